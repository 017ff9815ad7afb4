"""Loading a model by name, where it lives, and one forward step behind a cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from transformers.cache_utils import DynamicCache

from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.models.hooked import hooked_class, hooked_step, is_hooked, load_hooked

WEIGHTS = Path(__file__).parent / "weights"
# What the libraries raise for a folder that holds no whole model.
DAMAGED = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    SafetensorError,
)


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(folder.parent.name for folder in WEIGHTS.glob("*/config.json"))


def load(
    name: str | Path,
    *,
    kind: str = "bridge",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A TransformerLens model by name, without weight processing.

    Only a hub name may use the network. A model object of your own needs no loading: give it to any
    verb.

    Parameters
    ----------
    name : str or Path
        A bundled model (`bundled` lists them), a folder in HuggingFace format, or `owner/model` on
        the hub.
    kind : str, default "bridge"
        "bridge" (TransformerBridge) or "hooked" (HookedTransformer, in transformer-lens before
        version 4).
    device : str, default "cpu"
        Where its parameters go.
    dtype : torch.dtype, default torch.float32
        Of its parameters.

    Returns
    -------
    TransformerBridge or HookedTransformer
        In evaluation mode, with a tokenizer.

    Raises
    ------
    MechRewardError
        No such bundled model, folder, hub model or kind, or it cannot be loaded.
    """
    one_of("kind of model", kind, LOADERS)
    if kind == "hooked":
        hooked_class()
    folder = WEIGHTS / str(name) if str(name) in bundled() else Path(name)
    if folder.is_dir():
        require(
            (folder / "config.json").is_file(),
            f"{folder} is no model folder: it has no config.json.",
        )
        try:
            with _no_bars():
                return LOADERS[kind](folder, _folder_tokenizer(folder), device, dtype)
        except DAMAGED as error:
            why = " ".join(str(error).split())
            raise MechRewardError(
                f"cannot load the model folder {folder} as {kind}: {why}"
            ) from error
    owner, _, repository = str(name).partition("/")
    if not (owner and repository) or "/" in repository or owner.startswith((".", "~")):
        one_of("model", str(name), bundled())
    try:
        return LOADERS[kind](str(name), None, device, dtype)
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise MechRewardError(
            f"{name} is no folder here, and cannot be loaded from the hub: {first}"
        ) from error


def _load_bridge(name: str | Path, tokenizer: Any, device: str, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        str(name), device=device, dtype=dtype, tokenizer=tokenizer
    ).eval()


LOADERS = {"bridge": _load_bridge, "hooked": load_hooked}


def _folder_tokenizer(folder: Path) -> Any:
    """The folder's own tokenizer; None leaves the choice to TransformerLens."""
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        return None
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    # Without this TransformerLens reloads it through AutoTokenizer, which replaces a word-level
    # tokenizer.json by the architecture's own byte-level one.
    words.init_kwargs["add_bos_token"] = True
    return words


def device_of(model: Any) -> torch.device:
    """Where the model's parameters live."""
    return next(model.parameters()).device


def forward_step(
    model: Any,
    tokens: Int[torch.Tensor, "batch pos"],
    mask: Int[torch.Tensor, "batch total"],
    cache: Any | None,
) -> tuple[Float[torch.Tensor, "batch vocab"], Any]:
    """Run `tokens` behind what `cache` holds.

    Hooks on the model fire. A bridge is run through the HuggingFace model it wraps; a bare
    HuggingFace causal model works too, without hooks.

    Parameters
    ----------
    model : object
        Bridge, HookedTransformer or HuggingFace causal model.
    tokens : tensor [batch pos]
        The new tokens of every row.
    mask : tensor [batch total]
        Covers cached and new columns; rows are left-padded with zeros.
    cache : Cache or None
        What was run before; None for a new one.

    Returns
    -------
    logits : tensor [batch vocab]
        Of the last position, float32.
    cache : Cache
        Grown by the new columns.

    Raises
    ------
    MechRewardError
        The model is none of these and no HookedTransformer.
    """
    cache = DynamicCache() if cache is None else cache
    inner = getattr(model, "original_model", model)
    if hasattr(inner, "prepare_inputs_for_generation"):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        logits = inner(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
    else:
        require(
            is_hooked(model),
            f"{type(model).__name__} is no HookedTransformer and has no HuggingFace model inside, "
            "so it cannot be sampled from here; wrap the model with TransformerBridge.",
        )
        logits = hooked_step(model, tokens, mask, cache)
    return logits[:, -1].float(), cache


@contextmanager
def _no_bars() -> Iterator[None]:
    """transformers' own progress bars are off meanwhile: loading a small folder needs none."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
