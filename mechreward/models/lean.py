"""One decoding pass without the module machinery, for the blocks of Llama and Qwen; it equals the model's own pass.

A small model's decoding step is mostly Python: of 14 ms through a bridge the matrix products are 5 (48 rows, the
bundled models, 2 cores). Sampling and values are nothing but such steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch.nn.functional import linear, silu

from mechreward.models.cache import RowCache
from mechreward.models.site import HOOKS, Site

KINDS = ("llama", "qwen2", "qwen3")
NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
LINEARS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
Weight = tuple[torch.Tensor, torch.Tensor | None]


class LeanStep:
    """The decoding pass of one model, with hooks at our own sites.

    Hooks are TransformerLens `(name, fn)` pairs; `fn` gets the tensor `[row 1 width]` and the model's hook point.
    """

    def __init__(self, model: Any, hooks: Sequence[tuple[str, Any]]) -> None:
        """`model` must fit (`fits`). Raises ValueError for a hook that is at no site of ours."""
        inner = getattr(model, "original_model", model)
        config = self.config = inner.config
        named = _parameters(inner)
        points = {Site(layer, kind).hook: (layer, kind) for layer in range(_layers(inner)) for kind in HOOKS}
        self.hooks: dict[tuple[int, str], list[Callable[[torch.Tensor], torch.Tensor | None]]] = {}
        for name, fn in hooks:
            if name not in points:
                raise ValueError(f"{name} is no site")
            point = model.hook_dict[name]
            self.hooks.setdefault(points[name], []).append(lambda x, fn=fn, point=point: fn(x, hook=point))
        self.embedding = named["model.embed_tokens.weight"]
        self.unembedding = named.get("lm_head.weight", self.embedding)
        self.norm = named["model.norm.weight"]
        self.layers: list[dict[str, Weight]] = []
        for layer in range(_layers(inner)):
            start = f"model.layers.{layer}."
            names = [name for name in (*LINEARS, *NORMS) if f"{start}{name}.weight" in named]
            self.layers.append({n: (named[f"{start}{n}.weight"], named.get(f"{start}{n}.bias")) for n in names})
        self.rotary = _bare(inner.model.rotary_emb)
        heads = config.num_attention_heads
        self.head = int(getattr(config, "head_dim", None) or config.hidden_size // heads)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the pass is known to be the model's own: a raw Llama, Qwen2 or Qwen3 causal model, bare or in a
        bridge, on one device and not quantised, with full attention in every layer and nobody else's hooks on it."""
        inner = getattr(model, "original_model", model)
        config: Any = getattr(inner, "config", None)
        if getattr(config, "model_type", None) not in KINDS or getattr(model, "compatibility_mode", False):
            return False
        plain = type(inner).__module__.startswith("transformers.models.") and type(inner).__name__.endswith("CausalLM")
        full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        named = _parameters(inner)
        known = config.hidden_act == "silu" and _expected(inner) == set(named)
        whole = len({(part.device, part.dtype) for part in named.values()}) == 1 and inner.dtype.is_floating_point
        fixed = not (inner.training and config.attention_dropout)
        return plain and full and known and whole and fixed and not any(map(_watched, inner.modules()))

    def __call__(
        self, tokens: Int[torch.Tensor, " row"], mask: Int[torch.Tensor, "row visible"], cache: RowCache
    ) -> Float[torch.Tensor, "row vocab"]:
        """Logits behind one new token in every row; `cache` is open and receives the token's keys and values."""
        x = self.embedding[tokens][:, None]
        places = mask.sum(-1, keepdim=True) - 1
        cos, sin = (part[:, :, None] for part in self.rotary(x, places))
        shut = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        shut = shut.masked_fill_(mask == 0, torch.finfo(x.dtype).min)[:, None, None]
        for layer, weights in enumerate(self.layers):
            x = self._at(layer, "resid_pre", x)
            y = self._normed(x, weights["input_layernorm"][0])
            x = x + self._attention(layer, weights, y, cos, sin, shut, cache)
            # In a bridge this point is what the MLP's norm reads: a change here does not reach the stream behind it.
            y = self._at(layer, "resid_mid", x)
            y = self._normed(y, weights["post_attention_layernorm"][0])
            y = silu(linear(y, *weights["mlp.gate_proj"])).mul_(linear(y, *weights["mlp.up_proj"]))
            x = x + linear(self._at(layer, "mlp", y), *weights["mlp.down_proj"])
            x = self._at(layer, "resid_post", x)
        return linear(self._normed(x, self.norm), self.unembedding)[:, -1].float()

    def _attention(
        self,
        layer: int,
        weights: dict[str, Weight],
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        shut: torch.Tensor,
        cache: RowCache,
    ) -> torch.Tensor:
        query, key, value = (linear(x, *weights[f"self_attn.{n}_proj"]).unflatten(-1, (-1, self.head)) for n in "qkv")
        if "self_attn.q_norm" in weights:
            query = self._normed(query, weights["self_attn.q_norm"][0])
            key = self._normed(key, weights["self_attn.k_norm"][0])
        query, key = query * cos + _turned(query) * sin, key * cos + _turned(key) * sin
        keys, values = cache.update(key.transpose(1, 2), value.transpose(1, 2), layer)
        # Heads that share keys are rows of one product.
        query = query.view(len(x), keys.shape[1], -1, self.head)
        scores = (query @ keys.transpose(2, 3)).mul_(self.head**-0.5).add_(shut)
        mixed = scores.softmax(-1, dtype=torch.float32).to(x.dtype) @ values
        return linear(mixed.reshape(len(x), 1, -1), *weights["self_attn.o_proj"])

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y = x.float()
        return weight * (y * (y.square().mean(-1, keepdim=True) + self.config.rms_norm_eps).rsqrt()).to(x.dtype)

    def _at(self, layer: int, kind: str, x: torch.Tensor) -> torch.Tensor:
        for fn in self.hooks.get((layer, kind), ()):
            changed = fn(x)
            x = x if changed is None else changed
        return x


def _turned(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def _watched(module: torch.nn.Module) -> bool:
    """Whether somebody has put a hook on a module or replaced its `forward` (as accelerate does to offload weights).
    Hooks that the libraries need themselves do not count; a hook point says itself whether it is used."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    libraries = ("transformers", "transformer_lens")
    foreign = any((getattr(hook, "__module__", None) or "").split(".")[0] not in libraries for hook in hooks)
    return foreign or "forward" in vars(module) or bool(getattr(module, "fwd_hooks", ()))


def _layers(inner: Any) -> int:
    return int(inner.config.num_hidden_layers)


def _bare(module: Any) -> Any:
    """What a bridge has wrapped."""
    return getattr(module, "_original_component", module)


def _parameters(inner: Any) -> dict[str, torch.Tensor]:
    """By the names they have without a bridge around."""
    return {name.replace("_original_component.", ""): tensor for name, tensor in inner.named_parameters()}


def _expected(inner: Any) -> set[str]:
    """Every parameter that the pass uses: a model that has another one does something we do not know."""
    has = set(_parameters(inner))
    wanted = {"model.embed_tokens.weight", "model.norm.weight", *({"lm_head.weight"} & has)}
    for layer in range(_layers(inner)):
        start = f"model.layers.{layer}."
        wanted |= {f"{start}{name}.weight" for name in (*LINEARS, *NORMS[:2])}
        wanted |= {f"{start}{name}.bias" for name in LINEARS} & has
        wanted |= {f"{start}{name}.weight" for name in NORMS[2:]} & has
    return wanted
