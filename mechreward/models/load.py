"""Loading a model by name, where it lives, and one forward step behind a cache."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from transformers.cache_utils import DynamicCache

from mechreward.base.errors import MechRewardError, of_kind, one_of, require
from mechreward.models.ability import limits, no_rollouts
from mechreward.models.hooked import hooked_class, hooked_step, is_hooked, load_hooked
from mechreward.models.plain import Plain
from mechreward.models.site import HOOKS, Site, lacking
from mechreward.models.sources import Source, find

# What the libraries raise for a folder that holds no whole model.
DAMAGED = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    SafetensorError,
)


def load(
    name: str | Path,
    *,
    adapter: str | Path | None = None,
    revision: str | None = None,
    kind: str = "bridge",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    device_map: str | dict[str, Any] | None = None,
    check: bool = True,
) -> Any:
    """A TransformerLens model by name, without weight processing.

    Only a hub name may use the network. A model object of your own needs no loading: give it to any
    verb. A warning says what does not work with the model, if anything (`models.ability`).

    Parameters
    ----------
    name : str or Path
        A bundled model (`bundled` lists them), "smollm2" (once `make real` has made it), a folder
        in HuggingFace format, a folder with an adapter whose config names its base model, a GGUF
        file (read once into the user's cache), or `owner/model` on the hub.
    adapter : str, Path or None, default None
        A LoRA adapter, folder or `owner/name` on the hub (`owner/name@revision` for a version of
        it), that is merged into the weights.
    revision : str or None, default None
        Branch, tag or commit of a model on the hub; None is the newest.
    kind : str, default "bridge"
        "bridge" (TransformerBridge) or "hooked" (HookedTransformer, in transformer-lens before
        version 4).
    dtype : torch.dtype, default torch.float32
        Of its parameters.
    device : str, default "cpu"
        Where its parameters go.
    device_map : str, dict or None, default None
        Instead of `device`, for a model that needs several: "auto", or as accelerate takes it.
    check : bool, default True
        Whether the logits of a short text are compared with plain HuggingFace's, at once and token
        by token.

    Returns
    -------
    TransformerBridge or HookedTransformer
        In evaluation mode, with a tokenizer.

    Raises
    ------
    MechRewardError
        No such bundled model, folder, file, hub model, adapter or kind; tensors that are missing,
        left over or mis-shaped; other logits; or it cannot be loaded.
    """
    one_of("kind of model", kind, LOADERS)
    of_kind("dtype", dtype, torch.dtype, "such as torch.bfloat16")
    if kind == "hooked":
        hooked_class()
        require(device_map is None, 'kind="hooked" lies on one device: give device=.')
    if device_map is None:
        check_device(device)
    source = find(name, adapter, revision)
    plain = Plain(reads=check, adapter=source.adapter)
    place: dict[str, Any] = {"device": device} if device_map is None else {"device_map": device_map}
    if source.revision:
        place["revision"] = source.revision
    try:
        with no_bars():
            words = tokenizer_of(source.weights)
            model = LOADERS[kind](source.weights, words, dtype, plain, **place)
            silent = _compare(model, plain) if check else []
    except DAMAGED as error:
        what = source.what if isinstance(error, MechRewardError) else source.what_if_missing
        why = " ".join(str(error).split())
        hint = ' (kind="bridge" may)' if kind == "hooked" else ""
        raise MechRewardError(f"cannot load {what} as {kind}{hint}: {why}") from error
    model.source = _as_loaded(source, model)  # for the model's identity
    about = limits(model, silent)
    if about:
        warnings.warn(f"{source.name}: {about}.", stacklevel=2)
    return model


def _as_loaded(source: Source, model: Any) -> Source:
    """The source with the commit that a branch or tag of the hub stood for."""
    config = getattr(getattr(model, "original_model", None), "config", None)
    commit = getattr(config, "_commit_hash", None)
    return replace(source, revision=commit) if commit else source


def check_device(device: str) -> None:
    """Raise MechRewardError for a device that this machine, or this build of torch, lacks."""
    require(device != "auto", "a model that needs several devices takes device_map='auto'.")
    try:
        torch.zeros(1, device=device)
    # torch raises whatever its back ends do, assertions among them.
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise MechRewardError(f"the device {device!r} cannot be used here: {why}") from error


@torch.no_grad()
def _compare(model: Any, plain: Plain) -> list[Site]:
    """Compare the model with what it was made from: in one pass, and behind a cache.

    HookedTransformer reads a config in its own way and passes over what it does not know. Returned
    are the sites whose hook point did not show the site's activations meanwhile.
    """
    tokens = plain.tokens.to(device_of(model))
    whose = f"as {type(model).__name__}"
    missing, shapes = lacking(model), {}
    layers = range(model.cfg.n_layers)
    sites = [Site(layer, kind) for layer in layers for kind in HOOKS]
    sites = [site for site in sites if site not in missing]

    def note(x: torch.Tensor, hook: Any, site: Site) -> None:
        shapes[site] = tuple(x.shape)

    hooks = [(site.hook, partial(note, site=site)) for site in sites]
    mask = torch.ones_like(tokens)  # where a mask of ones changes something, recordings are wrong
    with model.hooks(fwd_hooks=hooks):
        plain.compare(model(tokens, return_type="logits", attention_mask=mask), whose)
    if not no_rollouts(model):
        _, cache = forward_step(model, tokens[:, :-1], mask[:, :-1], None)
        last, _ = forward_step(model, tokens[:, -1:], mask, cache)
        plain.compare(last[:, None], f"token by token {whose}")
    return [site for site in sites if shapes.get(site) != (*tokens.shape, site.width(model))]


def _load_bridge(
    weights: str | Path, tokenizer: Any, dtype: torch.dtype, plain: Plain, **place: Any
) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        str(weights), dtype=dtype, tokenizer=tokenizer, model_class=plain, **place
    ).eval()


LOADERS = {"bridge": _load_bridge, "hooked": load_hooked}


def tokenizer_of(weights: str | Path) -> Any:
    """The folder's own tokenizer; None leaves the choice to TransformerLens."""
    from transformers import PreTrainedTokenizerFast

    folder = Path(weights)
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
        The model is none of these, or keeps something else than keys and values.
    """
    fresh = cache is None
    if fresh:
        why = no_rollouts(model)
        require(not why, f"this model cannot be sampled from here: {why}.")
        cache = DynamicCache()
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
    require(
        not fresh or cache.get_seq_length() > 0,
        "this model cannot be sampled from here: it keeps no keys and values of what it has read.",
    )
    return logits[:, -1].float(), cache


@contextmanager
def no_bars() -> Iterator[None]:
    """transformers' own progress bars are off meanwhile: loading a small folder needs none."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
