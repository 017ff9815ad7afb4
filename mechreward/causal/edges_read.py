"""Who reads a set: this reader's input alone has the set at its mean, all behind it is run again.

One pass holds a text many times: as it is, once for each set with every input at the set's mean,
and once for each reader, which takes from the second what it alone reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.causal.edges_written import Component
from mechreward.models.ability import evaluation
from mechreward.models.engine import Hooks
from mechreward.models.finite import check_logits, row_name
from mechreward.models.load import device_of
from mechreward.models.site import Site, point
from mechreward.probing.neurons import NeuronSet

ALL = Component("all readers")
OUT = Component("unembedding")
NUMBERS = 6e7  # logits of one pass (our choice): a quarter of a gigabyte in float32


def readers(model: Any, site: Site, units: Sequence[NeuronSet] = ()) -> tuple[Component, ...]:
    """Everything that reads the stream behind a set.

    Queries have a head each, keys and values together a key-value head, MLPs are whole, or given
    `units` of one.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    site : Site
        Of the set.
    units : sequence of NeuronSet, default ()
        Sets of MLP units that are readers too; their number is that in this sequence.

    Returns
    -------
    tuple of Component
        In the order of the layers, then the unembedding, then all of them together.
    """
    listed: list[Component] = []
    groups = getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads
    for layer in range(model.cfg.n_layers):
        attends, thinks = reads(site, layer)
        if attends and point("query", layer) in model.hook_dict:
            listed += [Component("query", layer, head) for head in range(model.cfg.n_heads)]
            listed += [Component("key-value", layer, group) for group in range(groups)]
        if thinks:
            listed.append(Component("mlp", layer))
            for number, neurons in enumerate(units):
                if neurons.site.layer == layer:
                    listed.append(Component("units", layer, number))
    return (*listed, OUT, ALL)


def reads(site: Site, layer: int) -> tuple[bool, bool]:
    """Whether attention and MLP of a layer read the stream behind a site."""
    if layer != site.layer:
        return layer > site.layer, layer > site.layer
    return site.kind == "resid_pre", site.kind in ("resid_pre", "resid_mid")


def points_of(reader: Component) -> tuple[str, ...]:
    """The hook points of what a reader gives out; none for the unembedding and for all together."""
    kinds = {
        "query": ("query",),
        "key-value": ("key", "value"),
        "mlp": ("mlp_out",),
        "units": ("mlp",),
    }
    return tuple(point(kind, reader.layer) for kind in kinds.get(reader.kind, ()))


def path_patched(
    model: Any,
    tokens: Int[torch.Tensor, " pos"],
    sets: Sequence[NeuronSet],
    means: Sequence[torch.Tensor],
    who: Sequence[Component],
    at: Sequence[int],
    units: Sequence[NeuronSet] = (),
    hooks: Hooks = (),
) -> Iterator[tuple[Float[torch.Tensor, "at vocab"], Float[torch.Tensor, "set reader at vocab"]]]:
    """Log-probabilities of the next token, as they are and for each reader of each set.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    tokens : tensor [pos]
        One text.
    sets : sequence of NeuronSet
        Of one site, each of them patched alone.
    means : sequence of tensor [k]
        What the neurons of each set are set to, at all positions.
    who : sequence of Component
        Some of `readers`.
    at : sequence of int
        Positions whose next token is looked at.
    units : sequence of NeuronSet, default ()
        Those that `readers` was given.
    hooks : sequence of (str, function), default ()
        TransformerLens pairs that stay on meanwhile, such as an intervention's.

    Yields
    ------
    clean : tensor [at vocab]
        Of the text as it is, float64.
    patched : tensor [set reader at vocab]
        The same under each patch, of as many sets as one pass holds.

    Raises
    ------
    MechRewardError
        Logits that are not finite.

    Notes
    -----
    Exact path patching (Wang et al. 2022, arXiv 2211.00593, section 3.1; Goldowsky-Dill et al.
    2023, arXiv 2304.05969) of the edge from set to reader along the stream: the norm before the
    reader sees the change, and no other path carries it.
    """
    rows = len(who) + 1
    words = int(model.cfg.d_vocab)
    size = max(1, int(NUMBERS // (rows * len(tokens) * words)))
    text = tokens[None].to(device_of(model))
    for start in range(0, len(sets), size):
        chosen = list(sets[start : start + size])
        patches = Rows(model, chosen, list(means[start : start + size]), list(who), list(units))
        many = 1 + len(chosen) * rows

        def fan_out(x: torch.Tensor, hook: Any, many: int = many) -> torch.Tensor:
            return x.expand(many, -1, -1)

        # Layers before the set are one for all rows.
        pairs = [(point("resid_pre", sets[0].site.layer), fan_out), *patches.pairs()]
        with (
            torch.no_grad(),
            evaluation(model, len(tokens)),
            model.hooks(fwd_hooks=[*hooks, *pairs]),
        ):
            logits = model(text, return_type="logits")
        logits = logits[:, list(at)]
        for number, row in enumerate(logits):
            check_logits(row, row_name(number))
        scores = logits.double().log_softmax(-1).cpu()
        table = scores[1:].unflatten(0, (len(chosen), rows))
        # The row whose every input has the set at its mean is what the unembedding makes of it.
        order = [0 if reader == OUT else 1 + number for number, reader in enumerate(who)]
        yield scores[0], table[:, order]


class Rows:
    """The hooks of one pass. Row 0 is the text as it is; then, for each set, a row whose inputs all
    have the set at its mean (`shadow`), and a row for each reader."""

    def __init__(
        self,
        model: Any,
        sets: list[NeuronSet],
        means: list[torch.Tensor],
        who: list[Component],
        units: list[NeuronSet],
    ) -> None:
        self.model, self.sets, self.units = model, sets, units
        self.site = sets[0].site
        self.device = device_of(model)
        self.means = [mean.to(self.device) for mean in means]
        rows = len(who) + 1
        self.shadow = torch.arange(len(sets), device=self.device) * rows + 1
        self.row = {reader: self.shadow + 1 + number for number, reader in enumerate(who)}
        self.change = torch.zeros(0)  # of the stream behind the set, [set pos d_model]
        self.middle = torch.zeros(0)

    def pairs(self) -> list[tuple[str, Any]]:
        """TransformerLens `(name, fn)` pairs."""
        here = self.site.layer
        known = self.model.hook_dict
        pairs: list[tuple[str, Any]] = []
        if self.site.kind == "mlp":
            pairs.append((self.site.hook, self._set_units))
            pairs.append((point("mlp_out", here), self._note_change))
        else:
            pairs.append((self.site.hook, self._set_stream))
        if self.site.kind == "resid_mid":
            # In a bridge a change there reaches the MLP alone: what goes on is put together here.
            pairs.append((point("mlp_out", here), self._add_up))
            pairs.append((point("resid_post", here), self._go_on))
        for layer in range(here, self.model.cfg.n_layers):
            if layer > here:
                pairs.append((point("resid_pre", layer), self._shift))
            later = layer > here or self.site.kind == "resid_pre"
            if later and point("resid_mid", layer) in known:
                pairs.append((point("resid_mid", layer), self._shift))
        last = self.model.cfg.n_layers - 1
        pairs.append((point("resid_post", last), self._shift))
        for reader in self.row:
            take = partial(self._take, reader=reader)
            pairs += [(name, take) for name in points_of(reader)]
        return pairs

    def _take(self, x: torch.Tensor, hook: Any, reader: Component) -> torch.Tensor:
        """What this reader makes of the set at its mean, into its rows."""
        x = x.clone()
        rows = self.row[reader]
        if reader.kind == "mlp":
            x[rows] = x[self.shadow]
        elif reader.kind == "units":
            columns = torch.tensor(self.units[reader.index].indices, device=x.device)
            x[rows[:, None], :, columns] = x[self.shadow[:, None], :, columns]
        else:
            x[rows, :, reader.index] = x[self.shadow, :, reader.index]
        return x

    def _set_stream(self, x: torch.Tensor, hook: Any) -> torch.Tensor:
        """At a set of the stream: note the change, and make it where all may read it."""
        change = x.new_zeros(len(self.sets), *x.shape[1:])
        for number, neurons in enumerate(self.sets):
            columns = list(neurons.indices)
            change[number, :, columns] = self.means[number].to(x.dtype) - x[0][:, columns]
        self.change = change
        x = x.clone()
        x[self.shadow] = x[0] + change
        if ALL in self.row:
            x[self.row[ALL]] = x[0] + change
        self.middle = x
        return x

    def _set_units(self, x: torch.Tensor, hook: Any) -> torch.Tensor:
        """At a set of MLP units."""
        x = x.clone()
        for number, neurons in enumerate(self.sets):
            columns = list(neurons.indices)
            mean = self.means[number].to(x.dtype)
            x[self.shadow[number], :, columns] = mean
            if ALL in self.row:
                x[self.row[ALL][number], :, columns] = mean
        return x

    def _note_change(self, x: torch.Tensor, hook: Any) -> None:
        self.change = x[self.shadow] - x[0]

    def _shift(self, x: torch.Tensor, hook: Any) -> torch.Tensor:
        """The stream as it is, but for the set."""
        x = x.clone()
        x[self.shadow] = x[0] + self.change
        return x

    def _add_up(self, x: torch.Tensor, hook: Any) -> None:
        self.middle = self.middle + x

    def _go_on(self, x: torch.Tensor, hook: Any) -> torch.Tensor:
        if ALL not in self.row:
            return x
        x = x.clone()
        x[self.row[ALL]] = self.middle[self.row[ALL]]
        return x
