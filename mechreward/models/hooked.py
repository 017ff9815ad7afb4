"""HookedTransformer (transformer-lens 3): how it is loaded and driven.

Nothing here is needed for TransformerBridge.
"""

from __future__ import annotations

import inspect
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float, Int
from transformers.cache_utils import DynamicCache

from mechreward.base.errors import MechRewardError
from mechreward.models.plain import Plain


def hooked_class() -> Any:
    """The class HookedTransformer.

    Raises
    ------
    MechRewardError
        The installed transformer-lens has none.
    """
    try:
        from transformer_lens import HookedTransformer
    except ImportError as error:
        raise MechRewardError(
            'kind="hooked" is HookedTransformer, which transformer-lens has up to version 3: '
            'pip install "transformer-lens<4" better-abc, or load the model with kind="bridge".'
        ) from error
    return HookedTransformer


def load_hooked(
    name: str | Path,
    tokenizer: Any,
    dtype: torch.dtype,
    plain: Plain,
    *,
    device: str = "cpu",
    revision: str | None = None,
) -> Any:
    """A HookedTransformer without weight processing, from a HuggingFace folder or by hub name.

    Neurons are the coordinates that the same weights have in a raw bridge.

    Raises
    ------
    MechRewardError
        There is no HookedTransformer, or the weights are not whole.
    ValueError, RuntimeError, OSError
        There is no such model, or HookedTransformer does not know its architecture.
    """
    cls = hooked_class()
    given = {"revision": revision} if revision else {}
    raw = {
        "fold_ln": False,
        "center_writing_weights": False,
        "center_unembed": False,
        "fold_value_biases": False,
    }
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        inner = plain.from_pretrained(name, dtype=dtype, **given).eval()
        if not Path(name).is_dir():
            about = {"hf_model": inner, "device": device, "dtype": dtype}
            return cls.from_pretrained(str(name), **raw, **about).eval()
        # By name: version 4, which type checkers see, has other modules.
        loading: Any = import_module("transformer_lens.loading_from_pretrained")
        # The architecture would be guessed from words in the path, such as "llama" in a folder
        # above: a nameless one.
        with TemporaryDirectory() as nameless:
            inner.config.save_pretrained(nameless)
            about = {"hf_cfg": inner.config.to_dict(), "device": device, "dtype": dtype}
            cfg = loading.get_pretrained_model_config(nameless, **about)
            state = loading.get_pretrained_state_dict(nameless, cfg, inner, dtype=dtype)
        cfg.model_name, cfg.tokenizer_name = Path(name).name, None
        model = cls(cfg, tokenizer, move_to_device=False)
        model.load_and_process_state_dict(state, **raw)
        model.move_model_modules_to_device()
    return model.eval()


def is_hooked(model: Any) -> bool:
    """Whether `model` keeps its keys and values as HookedTransformer does."""
    run = getattr(model, "forward", model)
    return callable(run) and "past_kv_cache" in inspect.signature(run).parameters


def hooked_step(
    model: Any,
    tokens: Int[torch.Tensor, "batch pos"],
    mask: Int[torch.Tensor, "batch total"],
    cache: Any,
) -> Float[torch.Tensor, "batch 1 vocab"]:
    """Logits of the last position, with `tokens` behind what `cache` holds; `cache` grows."""
    seen = LensCache(cache, mask, model.cfg)
    # In two parts, so that only the last position is turned into logits.
    top = model.cfg.n_layers
    stream = model(
        tokens, attention_mask=mask[:, -tokens.shape[1] :], past_kv_cache=seen, stop_at_layer=top
    )
    return model(stream[:, -1:], start_at_layer=top)


class LensCache:
    """A HuggingFace cache, ours among them, as HookedTransformer sees one.

    HookedTransformer keeps keys unrotated and counts positions in the mask, so left-padded rows
    need nothing more.
    """

    def __init__(self, cache: DynamicCache, mask: torch.Tensor, cfg: Any) -> None:
        self.mask = mask
        heads = cfg.n_key_value_heads or cfg.n_heads
        past = (len(mask), cache.get_seq_length(), heads, cfg.d_head)
        self.entries = [_Entry(cache, layer, past) for layer in range(cfg.n_layers)]

    def __getitem__(self, layer: int) -> _Entry:
        return self.entries[layer]

    def append_attention_mask(self, _: torch.Tensor) -> torch.Tensor:
        """The mask of all columns, the new ones included."""
        return self.mask


class _Entry:
    """One layer; of `past_keys` only the shape `[batch column head head_dim]` is asked for."""

    def __init__(self, cache: DynamicCache, layer: int, past: tuple[int, ...]) -> None:
        self.cache, self.layer = cache, layer
        self.past_keys = torch.empty(past, device="meta")

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, the new ones included.

        HuggingFace caches have heads before columns.
        """
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        keys, values = self.cache.update(keys, values, self.layer)
        return keys.transpose(1, 2), values.transpose(1, 2)
