"""Activations, or what is read off them, caught while tokens are generated.

No second pass over the text is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool, Float, Int

from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.models.site import Site

ROWS = ("states", "steps", "tokens")
Read = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Capture:
    """What to catch at which sites in the generating pass.

    Attributes
    ----------
    read : mapping of Site to function or None
        For each site a read-out `[row width] -> [row out]` (float32, on the model's device), or
        None for the activations themselves.
    rows : str, default "tokens"
        "tokens" (the last prompt token and every new one), "states" (the last prompt token, every
        new token in `ends`, and the last token), or "steps" (the mean over the tokens of every
        step, a step being what ends at a token in `ends` or at the last token); as in
        `probing.activations.record`.
    ends : frozenset of int, default none
        Tokens that end a step.

    Raises
    ------
    MechRewardError
        An unknown kind of rows, or no site.
    """

    read: Mapping[Site, Read | None]
    rows: str = "tokens"
    ends: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        one_of("kind of rows", self.rows, ROWS)
        require(bool(self.read), "nothing is captured: name at least one site.")


@dataclass(frozen=True)
class Caught:
    """What was caught of one job.

    Attributes
    ----------
    position : tensor [row]
        Absolute position of every row.
    x : dict of Site to tensor [row out]
        By site what was read there, float32 on the CPU.
    """

    position: Int[torch.Tensor, " row"]
    x: dict[Site, Float[torch.Tensor, "row out"]]


class Catcher:
    """The hooks of one `generate` call, and which rows of the next pass they keep.

    Jobs are known by number; which row a job sits in, the engine says before every pass. What is
    kept of a row whose job is over is dropped in the end. No hook waits for the device.

    Parameters
    ----------
    capture : Capture
        What to catch.
    starts : sequence of int
        [job] position of the token each job is continued from.
    slots : int
        Rows there can be at once.
    device : torch.device
        The model's.
    """

    FLUSH = 64  # passes after which what was caught leaves the device
    GONE = -1  # the job of a row whose job is over

    def __init__(
        self, capture: Capture, starts: Sequence[int], slots: int, device: torch.device
    ) -> None:
        self.capture, self.starts, self.slots, self.device = capture, starts, slots, device
        self.ends = torch.tensor(sorted(capture.ends), dtype=torch.long, device=device)
        self.passes = 0
        self.entered: dict[int, int] = {}  # of every job in a row: before which pass it came,
        self.since: dict[int, int] = {}  # before which its present step began,
        self.slot: dict[int, int] = {}  # and where its sums are
        self.marked: set[int] = set()
        self.waiting: set[Site] = set()
        self.labels: list[list[int]] = []  # of every pass: the jobs of what is kept,
        self.places: list[list[int]] = []  # and their positions
        self.kept: dict[Site, list[torch.Tensor]] = {site: [] for site in capture.read}
        self.sums: dict[Site, torch.Tensor] = {}

    @property
    def chooses(self) -> bool:
        """Whether it keeps marked rows only, and not those of every token."""
        return self.capture.rows != "tokens"

    def hooks(self) -> list[tuple[str, Any]]:
        """TransformerLens `(name, fn)` pairs, to be put behind all that change activations."""
        return [(site.hook, self._hook(site)) for site in self.capture.read]

    def enter(self, job: int, row: int) -> None:
        """A job takes a row. Its number stays the slot: rows only move once nobody enters any more."""
        self.entered[job] = self.since[job] = self.passes
        self.slot[job] = row
        self.marked.add(job)

    def mark(self, jobs: Iterable[int]) -> None:
        """The next pass of these jobs meets the last token of a step."""
        self.marked.update(jobs)

    def leave(self, jobs: Iterable[int]) -> None:
        """The last tokens of these jobs have been run."""
        for job in jobs:
            del self.entered[job], self.since[job], self.slot[job]

    def ending(self, drawn: Int[torch.Tensor, " row"]) -> Bool[torch.Tensor, " row"]:
        """Which tokens end a step."""
        return torch.isin(drawn, self.ends)

    def expect(self, jobs: Sequence[int]) -> None:
        """Announce the next decoding pass: the job in each row."""
        entered, shift = self.entered, self.passes
        self.passes += 1
        if self.chooses:
            chosen = [
                (row, job) for row, job in enumerate(jobs) if job in self.marked and job in entered
            ]
            labels = [job for _, job in chosen]
            self.rows = self._index(row for row, _ in chosen)
        else:
            labels = [job if job in entered else self.GONE for job in jobs]
        self.labels.append(labels)
        self.places.append(
            [self.starts[job] + shift - entered[job] if job >= 0 else 0 for job in labels]
        )
        if self.capture.rows == "steps":
            there = [(row, job) for row, job in enumerate(jobs) if job in entered]
            self.there = self._index(row for row, _ in there)
            self.into = self._index(self.slot[job] for _, job in there)
            self.full = self._index(self.slot[job] for job in labels)
            self.tokens = self._index(self.passes - self.since[job] for job in labels)[:, None]
            self.since.update(dict.fromkeys(labels, self.passes))
        self.marked.clear()
        self.waiting = set(self.kept) if labels or self.capture.rows == "steps" else set()

    def done(self) -> None:
        """The pass is over. Raises MechRewardError if a hook did not fire in it."""
        if self.waiting:
            missing = ", ".join(sorted(map(str, self.waiting)))
            raise MechRewardError(f"nothing passed through {missing}: the hook never fired.")
        if not self.passes % self.FLUSH:
            self.kept = {
                site: [torch.cat(parts).cpu()] if parts else [] for site, parts in self.kept.items()
            }

    def results(self) -> list[Caught]:
        """By job, rows in the order of their positions."""
        job, position = (
            torch.tensor([*chain(*parts)], dtype=torch.long) for parts in (self.labels, self.places)
        )
        order = job.argsort(stable=True)[int((job == self.GONE).sum()) :]
        counts = job[order].bincount(minlength=len(self.starts)).tolist()
        columns = {
            site: torch.cat([part.cpu() for part in parts])[order]
            for site, parts in self.kept.items()
        }
        positions, parts = (
            position[order].split(counts),
            {site: x.split(counts) for site, x in columns.items()},
        )
        # The row of the last prompt token ends no step.
        first = int(self.capture.rows == "steps")
        return [
            Caught(positions[i][first:], {site: x[i][first:] for site, x in parts.items()})
            for i in range(len(self.starts))
        ]

    def _index(self, numbers: Iterable[int]) -> torch.Tensor:
        return torch.tensor(list(numbers), dtype=torch.long).to(self.device, non_blocking=True)

    def _hook(self, site: Site) -> Callable[..., None]:
        read = self.capture.read[site]

        def hook(tensor: torch.Tensor, hook: Any) -> None:
            if site not in self.waiting:  # a prefill, or a pass that nothing is kept of
                return
            self.waiting.discard(site)
            x = tensor[:, 0].float()
            if self.capture.rows == "steps":
                x = self._means(site, x)
            elif self.chooses:
                x = x[self.rows]
            # The model may write over its tensors later; a read-out is new anyway.
            self.kept[site].append(x.clone() if read is None else read(x))

        return hook

    def _means(self, site: Site, x: torch.Tensor) -> torch.Tensor:
        sums = self.sums.setdefault(site, x.new_zeros(self.slots, x.shape[1]))
        sums.index_add_(0, self.into, x[self.there])
        means = sums[self.full] / self.tokens
        sums[self.full] = 0
        return means
