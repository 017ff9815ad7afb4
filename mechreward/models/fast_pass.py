"""Prefill and decoding without the module machinery, for the blocks of Llama and Qwen; equal to the
model's own passes.

A small model's decoding step is mostly Python: of 12 ms through a bridge the matrix products are 3
(48 rows, the bundled models, 2 cores). Sampling and values are nothing but such steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from mechreward.models.cache import Pair, RowCache
from mechreward.models.site import HOOKS, Site

MODEL_TYPES = ("llama", "qwen2", "qwen3")
NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
LINEARS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
Weight = tuple[torch.Tensor, torch.Tensor | None]
Hook = tuple[str, Any]


class LeanPass:
    """The passes of one model, with hooks at our own sites.

    Hooks are TransformerLens `(name, fn)` pairs; `fn` gets the tensor `[row pos width]` and the
    model's hook point.
    """

    def __init__(
        self, model: Any, changes: Sequence[Hook] = (), readers: Sequence[Hook] = ()
    ) -> None:
        """`model` must fit (`fits`); `changes` act in every pass, `readers` behind them in decoding
        passes only.

        Raises ValueError for a hook that is at no site of ours.
        """
        self.model, inner = model, getattr(model, "original_model", model)
        config = self.config = inner.config
        named = _parameters(inner)
        self.changes, self.hooks = _placed(model, changes), _placed(model, [*changes, *readers])
        self.embedding = named["model.embed_tokens.weight"]
        self.unembedding = named.get("lm_head.weight", self.embedding)
        self.norm = named["model.norm.weight"]
        self.norms: list[dict[str, torch.Tensor]] = []
        self.linears: list[dict[str, _Linears]] = []
        small = sum(part.nbytes for part in named.values()) <= _Linears.LARGEST
        for layer in range(_layers(inner)):
            start = f"model.layers.{layer}."
            self.norms.append(
                {n: named[f"{start}{n}.weight"] for n in NORMS if f"{start}{n}.weight" in named}
            )
            parts = {
                n: (named[f"{start}{n}.weight"], named.get(f"{start}{n}.bias")) for n in LINEARS
            }
            q, k, v, o, gate, up, down = (parts[n] for n in LINEARS)
            joined = {"qkv": (q, k, v), "o": (o,), "gate": (gate,), "up": (up,), "down": (down,)}
            self.linears.append({name: _Linears(each, small) for name, each in joined.items()})
        self.rotary = _bare(inner.model.rotary_emb)
        self.turns: Pair | None = None
        heads = config.num_attention_heads
        self.head = int(getattr(config, "head_dim", None) or config.hidden_size // heads)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the passes are known to be the model's own: a raw Llama, Qwen2 or Qwen3 causal
        model, bare or in a bridge, on one device and not quantised, with full attention in every
        layer and nobody else's hooks on it."""
        inner = getattr(model, "original_model", model)
        config: Any = getattr(inner, "config", None)
        if getattr(config, "model_type", None) not in MODEL_TYPES or getattr(
            model, "compatibility_mode", False
        ):
            return False
        plain = type(inner).__module__.startswith("transformers.models.") and type(
            inner
        ).__name__.endswith("CausalLM")
        full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        named = _parameters(inner)
        known = config.hidden_act == "silu" and _expected(inner) == set(named)
        whole = (
            len({(part.device, part.dtype) for part in named.values()}) == 1
            and inner.dtype.is_floating_point
        )
        moving = getattr(_bare(inner.model.rotary_emb), "rope_type", "") in ("dynamic", "longrope")
        fixed = not moving and not (inner.training and config.attention_dropout)
        return (
            plain and full and known and whole and fixed and not any(map(_watched, inner.modules()))
        )

    def prefill(self, tokens: Int[torch.Tensor, "row pos"]) -> list[Pair]:
        """Keys and values of every layer, `[row head pos head_dim]`, of right-padded rows.

        What comes behind the last layer's keys and values is left out, unless a change sits there:
        no token needs it.
        """
        x = self.embedding[tokens]
        turn = self._turn(
            torch.arange(tokens.shape[1], device=tokens.device)[None], tokens.shape[1]
        )
        last, pairs = len(self.linears) - 1, []
        for layer in range(len(self.linears)):
            x = _at(self.changes, layer, "resid_pre", x)
            query, key, value = self._heads(layer, x, turn)
            pairs.append((key, value))
            if layer == last and not any(
                (last, kind) in self.changes for kind in HOOKS if kind != "resid_pre"
            ):
                break
            mixed = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            x = self._behind(layer, x, mixed.transpose(1, 2), self.changes)
        return pairs

    def under(self, changes: Sequence[Hook]) -> LeanPass:
        """The same passes with other changes, and no readers."""
        other = copy(self)
        other.changes = other.hooks = _placed(self.model, changes)
        return other

    def streams(
        self, tokens: Int[torch.Tensor, "row pos"]
    ) -> list[Float[torch.Tensor, "row pos d_model"]]:
        """The residual stream that enters every layer, and the one behind the last, of right-padded
        rows."""
        found = [self.embedding[tokens]]
        for layer in range(len(self.linears)):
            found.append(self._through(layer, found[-1]))
        return found

    def read(
        self, stream: Float[torch.Tensor, "row pos d_model"], layer: int = 0
    ) -> Float[torch.Tensor, "row pos vocab"]:
        """Logits at every position, from the residual stream that enters `layer` on."""
        for number in range(layer, len(self.linears)):
            stream = self._through(number, stream)
        return linear(self._normed(stream, self.norm), self.unembedding).float()

    def _through(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        x = _at(self.changes, layer, "resid_pre", x)
        turn = self._turn(torch.arange(x.shape[1], device=x.device)[None], x.shape[1])
        query, key, value = self._heads(layer, x, turn)
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return self._behind(layer, x, mixed.transpose(1, 2), self.changes)

    def decode(
        self,
        tokens: Int[torch.Tensor, " row"],
        mask: Int[torch.Tensor, "row visible"],
        cache: RowCache,
    ) -> Float[torch.Tensor, "row vocab"]:
        """Logits behind one new token in every row; `cache` is open and receives the token's keys
        and values."""
        x = self.embedding[tokens][:, None]
        turn = self._turn(mask.sum(-1, keepdim=True) - 1, mask.shape[1])
        shut = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        shut = shut.masked_fill_(mask == 0, torch.finfo(x.dtype).min)[:, None]
        for layer in range(len(self.linears)):
            x = _at(self.hooks, layer, "resid_pre", x)
            query, key, value = self._heads(layer, x, turn)
            keys, values = (part.flatten(0, 1) for part in cache.update(key, value, layer))
            if not layer:
                shut = shut.repeat_interleave(len(keys) // len(x), 0)
            # Heads that share keys are rows of one product.
            query = query.reshape(len(keys), -1, self.head)
            scores = torch.baddbmm(shut, query, keys.transpose(1, 2), alpha=self.head**-0.5)
            mixed = torch.bmm(scores.softmax(-1, dtype=torch.float32).to(x.dtype), values)
            x = self._behind(layer, x, mixed, self.hooks)
        return linear(self._normed(x, self.norm), self.unembedding)[:, -1].float()

    def _turn(self, places: Int[torch.Tensor, "row pos"], reach: int) -> Pair:
        """Cosines and sines `[row pos 1 head_dim]` of places below `reach`, the signs of a rotation
        in the sines."""
        if self.turns is None or len(self.turns[0]) < reach:
            cos, sin = self.rotary(
                self.embedding, torch.arange(2 * reach, device=places.device)[None]
            )
            half = self.head // 2
            self.turns = (
                cos[0, :, None],
                torch.cat((-sin[0, :, None, :half], sin[0, :, None, half:]), -1),
            )
        cos, sin = self.turns
        return cos[places], sin[places]

    def _heads(self, layer: int, x: torch.Tensor, turn: Pair) -> tuple[torch.Tensor, ...]:
        """Query, key and value `[row head pos head_dim]`, the first two turned."""
        norms, (cos, sin) = self.norms[layer], turn
        made = self.linears[layer]["qkv"](self._normed(x, norms["input_layernorm"])).unflatten(
            -1, (-1, self.head)
        )
        n = self.config.num_attention_heads
        k = (made.shape[2] - n) // 2
        turned, value = made.split((n + k, k), 2)
        if "self_attn.q_norm" in norms:
            query, key = turned.split((n, k), 2)
            query, key = (
                self._normed(query, norms["self_attn.q_norm"]),
                self._normed(key, norms["self_attn.k_norm"]),
            )
            turned = torch.cat((query, key), 2)
        turned = torch.addcmul(turned * cos, turned.roll(self.head // 2, -1), sin).transpose(1, 2)
        return *turned.split((n, k), 1), value.transpose(1, 2)

    def _behind(
        self, layer: int, x: torch.Tensor, mixed: torch.Tensor, hooks: _Placed
    ) -> torch.Tensor:
        """The stream behind the layer; `mixed` is what attention gathered, in the order of rows,
        positions, heads."""
        linears = self.linears[layer]
        x = x + linears["o"](mixed.reshape(*x.shape[:2], -1))
        # In a bridge this point is what the MLP's norm reads: a change here does not reach the
        # stream behind it.
        y = _at(hooks, layer, "resid_mid", x)
        y = self._normed(y, self.norms[layer]["post_attention_layernorm"])
        y = silu(linears["gate"](y)).mul_(linears["up"](y))
        x = x + linears["down"](_at(hooks, layer, "mlp", y))
        return _at(hooks, layer, "resid_post", x)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)


class _Linears:
    """Linear maps of one input, side by side. On a CPU that oneDNN serves they are one product of
    weights in oneDNN's own order, nearly twice as fast for some dozens of rows; that order is a
    copy, so large models do without."""

    LARGEST = 2**28  # bytes of all weights: our choice

    def __init__(self, parts: Sequence[Weight], small: bool) -> None:
        self.parts, first, self.packed = parts, parts[0][0], None
        if (
            small
            and first.device.type == "cpu"
            and first.dtype == torch.float32
            and torch.backends.mkldnn.enabled
        ):
            biases = [
                weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in parts
            ]
            self.bias = torch.cat(biases) if any(bias is not None for _, bias in parts) else None
            self.packed = torch.ops.mkldnn._reorder_linear_weight(
                torch.cat([weight for weight, _ in parts])
            )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed is not None:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        made = [linear(x, *part) for part in self.parts]
        return made[0] if len(made) == 1 else torch.cat(made, -1)


_Placed = dict[tuple[int, str], list[Callable[[torch.Tensor], torch.Tensor | None]]]


def _placed(model: Any, hooks: Sequence[Hook]) -> _Placed:
    """The hooks by layer and kind of site."""
    points = {
        Site(layer, kind).hook: (layer, kind)
        for layer in range(_layers(getattr(model, "original_model", model)))
        for kind in HOOKS
    }
    placed: _Placed = {}
    for name, fn in hooks:
        if name not in points:
            raise ValueError(f"{name} is no site")
        point = model.hook_dict[name]
        placed.setdefault(points[name], []).append(lambda x, fn=fn, point=point: fn(x, hook=point))
    return placed


def _at(placed: _Placed, layer: int, kind: str, x: torch.Tensor) -> torch.Tensor:
    for fn in placed.get((layer, kind), ()):
        changed = fn(x)
        x = x if changed is None else changed
    return x


def _watched(module: torch.nn.Module) -> bool:
    """Whether somebody has put a hook on a module or replaced its `forward` (as accelerate does to
    offload weights). Hooks that the libraries need themselves do not count; a hook point says
    itself whether it is used."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    libraries = ("transformers", "transformer_lens")
    foreign = any(
        (getattr(hook, "__module__", None) or "").split(".")[0] not in libraries for hook in hooks
    )
    return foreign or "forward" in vars(module) or bool(getattr(module, "fwd_hooks", ()))


def _layers(inner: Any) -> int:
    return int(inner.config.num_hidden_layers)


def _bare(module: Any) -> Any:
    """What a bridge has wrapped."""
    return getattr(module, "_original_component", module)


def _parameters(inner: Any) -> dict[str, torch.Tensor]:
    """By the names they have without a bridge around."""
    return {
        name.replace("_original_component.", ""): tensor
        for name, tensor in inner.named_parameters()
    }


def _expected(inner: Any) -> set[str]:
    """Every parameter that the pass uses: a model that has another one does something we do not
    know."""
    has = set(_parameters(inner))
    wanted = {"model.embed_tokens.weight", "model.norm.weight", *({"lm_head.weight"} & has)}
    for layer in range(_layers(inner)):
        start = f"model.layers.{layer}."
        wanted |= {f"{start}{name}.weight" for name in (*LINEARS, *NORMS[:2])}
        wanted |= {f"{start}{name}.bias" for name in LINEARS} & has
        wanted |= {f"{start}{name}.weight" for name in NORMS[2:]} & has
    return wanted
