"""Interventions row by row: in one batch, every row carries edits of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.base.errors import MechRewardError, require
from mechreward.models.ability import evaluation
from mechreward.models.finite import check_logits, row_name
from mechreward.models.site import Site

Place = tuple[Site, int]  # a site, and which of a row's edits there


@dataclass(frozen=True, eq=False)
class Edit:
    """x <- keep * x + add at one site.

    Position 0 is the row's first token, whatever the padding. Arithmetic is in float32, the result
    has the input's dtype, and where `keep` is 1 and `add` 0 nothing changes. All linear
    interventions have this form: zero is keep 0, mean adds the mean, steering keeps and adds,
    scaling only keeps.

    Attributes
    ----------
    site : Site
        Where the neurons are.
    keep : tensor [width]
        Factor of every neuron.
    add : tensor [width] or tensor [pos width]
        What is added to every neuron. With a row for each position, for a mean or a patch that
        depends on it; behind the last row it starts again with the first.
    at : tuple of int or None, default None
        Absolute positions; None for every one.
    """

    site: Site
    keep: Float[torch.Tensor, " width"] = field(repr=False)
    add: Float[torch.Tensor, " width"] | Float[torch.Tensor, "pos width"] = field(repr=False)
    at: tuple[int, ...] | None = None


class RowEdits:
    """The hooks that apply each row's edits, and which edits have fired.

    A row may carry several edits; those at one site act in their order. Say with `rows` and
    `positions` what the next forward pass holds; a row or position without an edit passes through
    unchanged.
    """

    def __init__(self, carried: Iterable[tuple[Edit, ...]], device: torch.device) -> None:
        kinds = {_key(edits): edits for edits in carried}
        by_place: dict[Place, list[Edit]] = {}
        for edits in kinds.values():
            for place, edit in _places(edits):
                known = by_place.setdefault(place, [])
                if all(edit is not other for other in known):
                    known.append(edit)
        self.tables: dict[Place, _Table] = {}
        for place, edits in sorted(by_place.items()):
            self.tables[place] = _Table(edits, device)
        self.codes: dict[tuple[int, ...], list[int]] = {}
        for key, edits in kinds.items():
            placed = dict(_places(edits))
            code = []
            for place, table in self.tables.items():
                code.append(table.index[id(placed[place])] if place in placed else 0)
            self.codes[key] = code

    def code(self, edits: tuple[Edit, ...]) -> list[int]:
        """What a row with `edits` is called in `rows`: a number for each table, 0 for none."""
        return self.codes[_key(edits)]

    def set(
        self, rows: Int[torch.Tensor, "row table"], positions: Int[torch.Tensor, "row pos"]
    ) -> None:
        """The rows of the next pass: codes, and absolute positions of tokens (-1: padding)."""
        for number, table in enumerate(self.tables.values()):
            table.choose(rows[:, number], positions)

    def hooks(self) -> list[tuple[str, Any]]:
        """TransformerLens `(name, fn)` pairs."""
        return [(site.hook, table.hook) for (site, _), table in self.tables.items()]

    def check(self) -> None:
        """Raise MechRewardError if an edit has never met a token it acts on."""
        for table in self.tables.values():
            for edit, count in zip(table.edits, table.fired.tolist()[1:], strict=True):
                if count:
                    continue
                where = ""
                if edit.at is not None:
                    where = f" (positions {', '.join(map(str, edit.at[:6]))})"
                raise MechRewardError(f"the intervention at {edit.site}{where} never fired.")


@torch.no_grad()
def forward_arms(
    model: Any, tokens: Int[torch.Tensor, " pos"], arms: Sequence[tuple[Edit, ...]]
) -> Float[torch.Tensor, "arm pos vocab"]:
    """Logits of one text under every arm's edits, in one pass.

    The text is run once up to the first layer that an edit touches, and becomes one row for each
    arm there. Equal to `run_with_hooks` for each arm: layers before an edit cannot know of it, so
    nothing is left out.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    tokens : tensor [pos]
        The text.
    arms : sequence of tuple of Edit
        The edits each row carries; () for none.

    Returns
    -------
    tensor [arm pos vocab]
        Float32 or the dtype of the model.

    Raises
    ------
    MechRewardError
        No arms, a site the model lacks, an edit that never fired, or logits that are not finite.
    """
    require(len(arms) > 0, "no arms were given; an arm is the edits one row carries, () for none.")
    sites = [edit.site.check(model) for edits in arms for edit in edits]
    first = min((site.layer for site in sites), default=model.cfg.n_layers - 1)
    branch = Site(first, "resid_pre").check(model)
    device = next(model.parameters()).device
    tokens = tokens.to(device)
    rows = RowEdits(arms, device)
    codes = [rows.code(edits) for edits in arms]
    positions = torch.arange(len(tokens), device=device)
    rows.set(
        torch.tensor(codes, dtype=torch.long, device=device),
        positions.expand(len(arms), -1),
    )

    def fan_out(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        return tensor.expand(len(arms), -1, -1)

    hooks = [(branch.hook, fan_out), *rows.hooks()]
    with evaluation(model, len(tokens)), model.hooks(fwd_hooks=hooks):
        logits = model(tokens[None], return_type="logits")
    rows.check()
    for number, row in enumerate(logits):
        check_logits(row, row_name(number))
    return logits


class _Table:
    """All edits that are the n-th at their site in some row; entry 0 changes nothing."""

    def __init__(self, edits: list[Edit], device: torch.device) -> None:
        widths = {part.shape[-1] for edit in edits for part in (edit.keep, edit.add)}
        require(
            len(widths) == 1,
            f"the edits at {edits[0].site} have different widths: {sorted(widths)}.",
        )
        (width,) = widths
        self.edits = edits
        self.index = {id(edit): i for i, edit in enumerate(edits, start=1)}
        keep, add = [torch.ones(1, width)], [torch.zeros(1, width)]
        for edit in edits:
            keep.append(edit.keep[None].float().cpu())
            add.append(edit.add.view(-1, width).float().cpu())
        counts = torch.tensor([len(rows) for rows in add])
        self.keep = torch.cat(keep).repeat_interleave(counts, 0).to(device)
        self.add = torch.cat(add).to(device)
        # Of every edit: where its rows begin, and how many it has.
        self.first = (counts.cumsum(0) - counts).to(device)
        self.counts = counts.to(device) if counts.max() > 1 else None
        self.fired = torch.zeros(len(edits) + 1, dtype=torch.long, device=device)
        self.at = self._positions(device)
        self.acting = torch.zeros(0, 1, dtype=torch.long, device=device)
        self.chosen = self.acting

    def _positions(self, device: torch.device) -> torch.Tensor | None:
        """Where each edit acts, [edit + 1, last position + 2].

        The last column stands for all later positions.
        """
        if all(edit.at is None for edit in self.edits):
            return None
        last = max(position for edit in self.edits for position in edit.at or (0,))
        acts = torch.zeros(len(self.edits) + 1, last + 2, dtype=torch.bool)
        for row, edit in enumerate(self.edits, start=1):
            if edit.at is None:
                acts[row] = True
            else:
                acts[row, list(edit.at)] = True
        return acts.to(device)

    def choose(
        self, rows: Int[torch.Tensor, " row"], positions: Int[torch.Tensor, "row pos"]
    ) -> None:
        acts = positions >= 0
        edits = rows[:, None]
        if self.at is not None:
            last = self.at.shape[1] - 1
            acts &= self.at[edits, positions.clamp(0, last)]
        self.acting = torch.where(acts, edits, 0)
        self.chosen = self.acting
        if self.counts is not None:
            row = positions.clamp(min=0) % self.counts[self.acting]
            self.chosen = self.first[self.acting] + row

    def hook(self, tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        require(
            tensor.shape[:2] == self.chosen.shape,
            f"a hook met rows and positions {tuple(tensor.shape[:2])}; "
            f"the pass holds {tuple(self.chosen.shape)}.",
        )
        acting = self.acting.flatten()
        self.fired += torch.bincount(acting, minlength=len(self.fired))
        keep, add = self.keep[self.chosen], self.add[self.chosen]
        return (tensor.float() * keep + add).to(tensor.dtype)


def _key(edits: tuple[Edit, ...]) -> tuple[int, ...]:
    return tuple(id(edit) for edit in edits)


def _places(edits: tuple[Edit, ...]) -> list[tuple[Place, Edit]]:
    """Every edit with its site and its number among the row's edits there."""
    count: Counter[Site] = Counter()
    placed = []
    for edit in edits:
        place = edit.site, count[edit.site]
        placed.append((place, edit))
        count[edit.site] += 1
    return placed
