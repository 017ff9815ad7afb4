"""Prefill and decoding without the module machinery, for the blocks of Llama and Qwen.

They are equal to the model's own passes. A small model's decoding step is mostly Python: of 12 ms
through a bridge the matrix products are 3 (48 rows, the bundled models, 2 cores). Sampling and
values are nothing but such steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from mechreward.models.cache import Pair, RowCache
from mechreward.models.linears import Linears, Weight
from mechreward.models.site import HOOKS, Site

MODEL_TYPES = ("llama", "qwen2", "qwen3")
NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "self_attn.q_norm",
    "self_attn.k_norm",
)
LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
Hook = tuple[str, Any]


class LeanPass:
    """The passes of one model, with hooks at our own sites.

    Hooks are TransformerLens `(name, fn)` pairs; `fn` gets the tensor `[row pos width]` and the
    model's hook point.

    Parameters
    ----------
    model : TransformerBridge or Llama, Qwen2 or Qwen3 causal model
        One that fits (`fits`).
    changes : sequence of (str, function), default ()
        Hooks that act in every pass.
    readers : sequence of (str, function), default ()
        Hooks that act behind them, in decoding passes only.
    exact : bool, default False
        Whether every operation is the model's own, rounding included, with eager attention. Else
        some are fused and small weights packed (see `Linears`), which is faster for single tokens
        of some dozens of rows, and not for whole texts.

    Raises
    ------
    ValueError
        A hook that is at no site of ours.
    """

    def __init__(
        self,
        model: Any,
        changes: Sequence[Hook] = (),
        readers: Sequence[Hook] = (),
        exact: bool = False,
    ) -> None:
        inner = getattr(model, "original_model", model)
        named = _parameters(inner)
        self.model = model
        self.config = inner.config
        self.changes = _placed(model, changes)
        self.hooks = _placed(model, [*changes, *readers])
        self.embedding = named["model.embed_tokens.weight"]
        self.unembedding = named.get("lm_head.weight", self.embedding)
        self.norm = named["model.norm.weight"]
        self.norms: list[dict[str, torch.Tensor]] = []
        self.linears: list[dict[str, Linears]] = []
        self.exact = exact
        small = not exact and sum(part.nbytes for part in named.values()) <= Linears.LARGEST
        for layer in range(_layers(inner)):
            self.norms.append(_norms(named, layer))
            self.linears.append(_linears(named, layer, small))
        self.rotary = _bare(inner.model.rotary_emb)
        self.turns: Pair | None = None
        self.heads = int(self.config.num_attention_heads)
        width = getattr(self.config, "head_dim", None)
        self.head = int(width or self.config.hidden_size // self.heads)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the passes are known to be the model's own.

        That is a raw Llama, Qwen2 or Qwen3 causal model, bare or in a bridge, on one device and not
        quantised, with full attention in every layer and nobody else's hooks on it.
        """
        inner = getattr(model, "original_model", model)
        config: Any = getattr(inner, "config", None)
        if getattr(config, "model_type", None) not in MODEL_TYPES:
            return False
        if getattr(model, "compatibility_mode", False):
            return False
        cls = type(inner)
        if not cls.__module__.startswith("transformers.models."):
            return False
        if not cls.__name__.endswith("CausalLM"):
            return False
        attention = set(getattr(config, "layer_types", None) or ["full_attention"])
        if attention != {"full_attention"}:
            return False
        named = _parameters(inner)
        if config.hidden_act != "silu" or _expected(inner) != set(named):
            return False
        kinds = {(part.device, part.dtype) for part in named.values()}
        if len(kinds) != 1 or not inner.dtype.is_floating_point:
            return False
        if getattr(_bare(inner.model.rotary_emb), "rope_type", "") in ("dynamic", "longrope"):
            return False
        if inner.training and config.attention_dropout:
            return False
        return not any(map(_watched, inner.modules()))

    def prefill(
        self, tokens: Int[torch.Tensor, "row pos"], past: list[Pair] | None = None
    ) -> list[Pair]:
        """Keys and values of every layer, `[row head pos head_dim]`, of right-padded rows.

        `past` holds those of one row that is in front of every row; they are given back too. What
        comes behind the last layer's keys and values is left out, unless a change sits there: no
        token needs it.
        """
        x = self.embedding[tokens]
        turn = self._turns_of(tokens, past[0][0].shape[2] if past else 0)
        last = len(self.linears) - 1
        behind_last = any((last, kind) in self.changes for kind in HOOKS if kind != "resid_pre")
        pairs = []
        for layer in range(len(self.linears)):
            x = _at(self.changes, layer, "resid_pre", x)
            query, key, value = self._heads(layer, x, turn)
            if past is not None:
                key, value = _behind_past(past[layer], key, value)
            pairs.append((key, value))
            if layer == last and not behind_last:
                break
            x = self._behind(layer, x, self._mixed(query, key, value), self.changes)
        return pairs

    def under(self, changes: Sequence[Hook]) -> LeanPass:
        """The same passes with other changes, and no readers."""
        other = copy(self)
        other.changes = other.hooks = _placed(self.model, changes)
        return other

    def streams(
        self, tokens: Int[torch.Tensor, "row pos"]
    ) -> list[Float[torch.Tensor, "row pos d_model"]]:
        """The residual stream that enters every layer, and the one behind the last.

        Rows are right-padded.
        """
        streams = [self.embedding[tokens]]
        for layer in range(len(self.linears)):
            streams.append(self._through(layer, streams[-1]))
        return streams

    def replay(self, tokens: Int[torch.Tensor, "row pos"], layers: int) -> None:
        """Run the first `layers` layers over right-padded rows, for what the changes see."""
        x = self.embedding[tokens]
        for layer in range(layers):
            x = self._through(layer, x)

    def read(
        self, stream: Float[torch.Tensor, "row pos d_model"], layer: int = 0
    ) -> Float[torch.Tensor, "row pos vocab"]:
        """Logits at every position, from the residual stream that enters `layer` on."""
        for number in range(layer, len(self.linears)):
            stream = self._through(number, stream)
        stream = self._normed(stream, self.norm)
        return linear(stream, self.unembedding).float()

    def _through(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        x = _at(self.changes, layer, "resid_pre", x)
        query, key, value = self._heads(layer, x, self._turns_of(x))
        return self._behind(layer, x, self._mixed(query, key, value), self.changes)

    def _mixed(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> Float[torch.Tensor, "row pos head head_dim"]:
        """What attention gathers for every head of the last positions of rows."""
        past = key.shape[2] - query.shape[2]
        if self.exact:
            shared = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
            scores = torch.matmul(query, key.transpose(2, 3)) * self.head**-0.5
            shut = torch.full_like(scores[0, 0], torch.finfo(scores.dtype).min).triu(1 + past)
            weights = (scores + shut).softmax(-1, dtype=torch.float32).to(query.dtype)
            mixed = torch.matmul(weights, value)
        else:
            seen = None
            if past:
                seen = query.new_ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(past)
            mixed = scaled_dot_product_attention(
                query, key, value, seen, is_causal=seen is None, enable_gqa=True
            )
        return mixed.transpose(1, 2)

    def decode(
        self,
        tokens: Int[torch.Tensor, " row"],
        mask: Int[torch.Tensor, "row visible"],
        cache: RowCache,
    ) -> Float[torch.Tensor, "row vocab"]:
        """Logits behind one new token in every row.

        `cache` is open and receives the token's keys and values.
        """
        x = self.embedding[tokens][:, None]
        turn = self._turn(mask.sum(-1, keepdim=True) - 1, mask.shape[1])
        lowest = torch.finfo(x.dtype).min
        shut = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        shut = shut.masked_fill_(mask == 0, lowest)[:, None]
        for layer in range(len(self.linears)):
            x = _at(self.hooks, layer, "resid_pre", x)
            query, key, value = self._heads(layer, x, turn)
            keys, values = cache.update(key, value, layer)
            keys, values = keys.flatten(0, 1), values.flatten(0, 1)
            if not layer:
                shut = shut.repeat_interleave(len(keys) // len(x), 0)
            # Heads that share keys are rows of one product.
            query = query.reshape(len(keys), -1, self.head)
            keys = keys.transpose(1, 2)
            scores = torch.baddbmm(shut, query, keys, alpha=self.head**-0.5)
            weights = scores.softmax(-1, dtype=torch.float32).to(x.dtype)
            x = self._behind(layer, x, torch.bmm(weights, values), self.hooks)
        x = self._normed(x, self.norm)
        return linear(x, self.unembedding)[:, -1].float()

    def _turns_of(self, rows: torch.Tensor, begin: int = 0) -> Pair:
        """Cosines and sines of rows `[row pos ...]` that begin at a position."""
        end = begin + rows.shape[1]
        return self._turn(torch.arange(begin, end, device=rows.device)[None], end)

    def _turn(self, places: Int[torch.Tensor, "row pos"], reach: int) -> Pair:
        """Cosines and sines `[row pos 1 head_dim]` of places below `reach`.

        The signs of a rotation are in the sines.
        """
        if self.turns is None or len(self.turns[0]) < reach:
            every = torch.arange(2 * reach, device=places.device)[None]
            cos, sin = self.rotary(self.embedding, every)
            cos, sin = cos[0, :, None], sin[0, :, None]
            left, right = sin.split(self.head // 2, -1)
            self.turns = cos, torch.cat((-left, right), -1)
        cos, sin = self.turns
        return cos[places], sin[places]

    def _heads(self, layer: int, x: torch.Tensor, turn: Pair) -> tuple[torch.Tensor, ...]:
        """Query, key and value `[row head pos head_dim]`, the first two turned."""
        norms = self.norms[layer]
        cos, sin = turn
        x = self._normed(x, norms["input_layernorm"])
        qkv = self.linears[layer]["qkv"](x)
        qkv = qkv.unflatten(-1, (-1, self.head))
        n = self.heads
        k = (qkv.shape[2] - n) // 2
        turned, value = qkv.split((n + k, k), 2)
        if "self_attn.q_norm" in norms:
            query, key = turned.split((n, k), 2)
            query = self._normed(query, norms["self_attn.q_norm"])
            key = self._normed(key, norms["self_attn.k_norm"])
            turned = torch.cat((query, key), 2)
        rolled = turned.roll(self.head // 2, -1)
        if self.exact:
            turned = turned * cos + rolled * sin
        else:
            turned = torch.addcmul(turned * cos, rolled, sin)
        query, key = turned.transpose(1, 2).split((n, k), 1)
        return query, key, value.transpose(1, 2)

    def _behind(
        self, layer: int, x: torch.Tensor, mixed: torch.Tensor, hooks: _Placed
    ) -> torch.Tensor:
        """The stream behind the layer.

        `mixed` is what attention gathered, in the order of rows, positions, heads.
        """
        linears = self.linears[layer]
        rows, positions, _ = x.shape
        x = x + linears["o"](mixed.reshape(rows, positions, -1))
        # In a bridge this point is what the MLP's norm reads: a change here does not reach the
        # stream behind it.
        y = _at(hooks, layer, "resid_mid", x)
        y = self._normed(y, self.norms[layer]["post_attention_layernorm"])
        y = silu(linears["gate"](y)).mul_(linears["up"](y))
        x = x + linears["down"](_at(hooks, layer, "mlp", y))
        return _at(hooks, layer, "resid_post", x)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if self.exact:
            wide = x.float()
            spread = wide.square().mean(-1, keepdim=True) + self.config.rms_norm_eps
            return weight * (wide * spread.rsqrt()).to(x.dtype)
        return rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)


def _behind_past(past: Pair, key: torch.Tensor, value: torch.Tensor) -> Pair:
    """Keys and values with those of the one row in front of them."""
    before = [part.expand(len(key), -1, -1, -1) for part in past]
    return torch.cat((before[0], key), 2), torch.cat((before[1], value), 2)


def _norms(named: dict[str, torch.Tensor], layer: int) -> dict[str, torch.Tensor]:
    """The gains of a layer's norms, by `NORMS`; Llama and Qwen2 have none for queries and keys."""
    gains = {}
    for name in NORMS:
        key = f"model.layers.{layer}.{name}.weight"
        if key in named:
            gains[name] = named[key]
    return gains


def _linears(named: dict[str, torch.Tensor], layer: int, small: bool) -> dict[str, Linears]:
    """A layer's linear maps; those of queries, keys and values are one."""
    parts: list[Weight] = []
    for name in LINEARS:
        start = f"model.layers.{layer}.{name}"
        parts.append((named[f"{start}.weight"], named.get(f"{start}.bias")))
    *qkv, o, gate, up, down = parts
    return {
        "qkv": Linears(qkv, small),
        "o": Linears([o], small),
        "gate": Linears([gate], small),
        "up": Linears([up], small),
        "down": Linears([down], small),
    }


_Fn = Callable[[torch.Tensor], torch.Tensor | None]
_Placed = dict[tuple[int, str], list[_Fn]]


def _placed(model: Any, hooks: Sequence[Hook]) -> _Placed:
    """The hooks by layer and kind of site."""
    points = {}
    for layer in range(_layers(getattr(model, "original_model", model))):
        for kind in HOOKS:
            points[Site(layer, kind).hook] = (layer, kind)
    placed: _Placed = {}
    for name, fn in hooks:
        if name not in points:
            raise ValueError(f"{name} is no site")
        called = partial(fn, hook=model.hook_dict[name])
        placed.setdefault(points[name], []).append(called)
    return placed


def _at(placed: _Placed, layer: int, kind: str, x: torch.Tensor) -> torch.Tensor:
    for fn in placed.get((layer, kind), ()):
        changed = fn(x)
        x = x if changed is None else changed
    return x


def _watched(module: torch.nn.Module) -> bool:
    """Whether somebody has put a hook on a module or replaced its `forward`.

    Accelerate does the latter to offload weights. Hooks that the libraries need themselves do not
    count; a hook point says itself whether it is used.
    """
    before, behind = module._forward_pre_hooks, module._forward_hooks
    for hook in (*before.values(), *behind.values()):
        library = (getattr(hook, "__module__", None) or "").split(".")[0]
        if library not in ("transformers", "transformer_lens"):
            return True
    return "forward" in vars(module) or bool(getattr(module, "fwd_hooks", ()))


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
    """Every parameter that the pass uses.

    A model that has another one does something we do not know.
    """
    wanted = {"model.embed_tokens.weight", "model.norm.weight"}
    optional = {"lm_head.weight"}
    for layer in range(_layers(inner)):
        start = f"model.layers.{layer}."
        wanted |= {f"{start}{name}.weight" for name in (*LINEARS, *NORMS[:2])}
        optional |= {f"{start}{name}.bias" for name in LINEARS}
        optional |= {f"{start}{name}.weight" for name in NORMS[2:]}
    return wanted | (optional & set(_parameters(inner)))
