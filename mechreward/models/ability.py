"""What works with a model and what does not, by its modules and config; nothing is run for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from itertools import groupby
from typing import Any

from mechreward.base.errors import require
from mechreward.models.site import HOOKS, Site, lacking

ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def limits(model: Any, silent: Sequence[Site] = ()) -> str:
    """What does not work with a model and why, and what works, in one line; empty where all does.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model.
    silent : sequence of Site, default ()
        Sites that their hook points were seen not to show.
    """
    reasons = lacking(model) | dict.fromkeys(silent, "its hook point shows another")
    phrases = []
    works = []
    for kind in HOOKS:
        layers = {site.layer: why for site, why in reasons.items() if site.kind == kind}
        for why in dict.fromkeys(layers.values()):
            numbers = [layer for layer in layers if layers[layer] == why]
            phrases.append(f"no site {kind} in {_span(numbers)} ({why})")
        if len(layers) < model.cfg.n_layers:
            works.append(f"{kind} elsewhere" if layers else kind)
    works = [f"sites {', '.join(works)}"]
    why = no_rollouts(model)
    if why:
        phrases.append(f"no rollouts ({why})")
    works.append("recording of rollouts made elsewhere" if why else "rollouts")
    reach = reach_of(model)
    if reach is not None:
        phrases.append(f"no texts beyond {reach} tokens ({MOVING})")
    return f"{'; '.join(phrases)}; what works: {' and '.join(works)}" if phrases else ""


def no_rollouts(model: Any) -> str:
    """Why a model cannot be sampled from; empty where it can.

    The decode loop keeps the keys and values of attention, and nothing else that a layer could
    remember.
    """
    inner = getattr(model, "original_model", model)
    kinds = set(getattr(_config(inner), "layer_types", None) or ())
    if getattr(inner, "_is_stateful", False) or not kinds <= ATTENTION:
        return "layers that are no attention, such as state-space ones, keep another state"
    run = getattr(inner, "forward", None)
    takes = signature(run).parameters if callable(run) else {}
    # A wrapper passes on whatever it is given.
    if "input_ids" in takes and "past_key_values" not in takes:
        return "it keeps no keys and values of what it has read"
    return ""


MOVING = "there, its position embedding makes a row depend on the longest row of its batch"


def reach_of(model: Any) -> int | None:
    """How long texts may be before a row depends on the others of its batch; None: never.

    Dynamic NTK scaling and LongRoPE choose the frequencies of all rows by the longest one, and the
    former keeps them.
    """
    config = _config(getattr(model, "original_model", model))
    ropes = getattr(config, "rope_parameters", None) or {}
    reaches = []
    for rope in (ropes, *(part for part in ropes.values() if isinstance(part, dict))):
        kind = rope.get("rope_type") or ""
        if kind == "longrope":
            reaches.append(int(rope["original_max_position_embeddings"]))
        elif "dynamic" in kind:
            reaches.append(int(config.max_position_embeddings))
    return min(reaches, default=None)


@contextmanager
def evaluation(model: Any, longest: int) -> Iterator[None]:
    """The model as it is measured: without dropout, on rows of at most `longest` tokens.

    Every module gets its own mode back.

    Raises
    ------
    MechRewardError
        Rows of this length depend on each other.
    """
    reach = reach_of(model)
    require(
        reach is None or longest <= reach,
        f"texts of this model end at {reach} tokens, {longest} were asked for: {MOVING}.",
    )
    inner = getattr(model, "original_model", model)
    training = [module for module in (*model.modules(), *inner.modules()) if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _config(inner: Any) -> Any:
    """The HuggingFace config of what reads text; None for HookedTransformer."""
    config = getattr(inner, "config", None)
    read = getattr(config, "get_text_config", None)
    return read() if read else config


def _span(layers: list[int]) -> str:
    """Layers as they are written: `layers 0, 2 to 4`."""
    parts = []
    for _, group in groupby(enumerate(layers), lambda pair: pair[1] - pair[0]):
        run = [layer for _, layer in group]
        parts.append(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}")
    return f"{'layer' if len(layers) == 1 else 'layers'} {', '.join(parts)}"
