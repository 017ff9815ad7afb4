"""What the verbs ask of a model, and of hooks that stay on beside it."""

from __future__ import annotations

from typing import Any

from mechreward.base.errors import MechRewardError, one_of, require, shown

FIX = "give the pairs of an intervention, change.fwd_hooks(), or use attach"


def check_model(model: Any) -> None:
    """Raise MechRewardError for what is no TransformerLens model, as a name or a bare HuggingFace
    model is not."""
    if isinstance(model, str):
        raise MechRewardError(
            f"a model is needed, and {shown(model)} is a name: load it with mechreward.load."
        )
    known = hasattr(model, "cfg") and hasattr(model, "hook_dict") and hasattr(model, "parameters")
    require(
        known,
        f"a model is a TransformerBridge or a HookedTransformer; {shown(model)} was given. "
        "mechreward.load makes one from a name or a folder.",
    )


def check_hooks(model: Any, hooks: Any) -> None:
    """Raise MechRewardError for hooks that are no `(name, function)` pairs, or whose hook point the
    model lacks."""
    require(
        isinstance(hooks, list | tuple),
        f"hooks are a list of (name, function) pairs; {shown(hooks)} was given: {FIX}.",
    )
    for pair in hooks:
        require(
            isinstance(pair, list | tuple) and len(pair) == 2 and callable(pair[1]),
            f"hooks are (name, function) pairs; {shown(pair)} is among them: {FIX}.",
        )
        if not callable(pair[0]):  # TransformerLens takes a choice of names too
            one_of("hook name", pair[0], model.hook_dict)
