"""`Site` <-> hook name. The only file that spells TransformerLens hook names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mechreward.base.errors import MechRewardError, of_kind, one_of, require, whole

HOOKS = {
    "resid_pre": "blocks.{}.hook_resid_pre",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "resid_post": "blocks.{}.hook_resid_post",
    "mlp": "blocks.{}.mlp.hook_post",
}
BLOCK_ORDER = ("resid_pre", "resid_mid", "mlp", "resid_post")  # as a block computes the kinds
# What an MLP writes. A bridge gives a mixture of experts, which has no one hidden layer, this hook
# point under the name of the hidden units.
MLP_OUT = "blocks.{}.mlp.hook_out"
# What a component reads or writes, beside its sites. `head` is a head's mixture of values before
# the map out, `[batch pos head d_head]`; queries have an entry a head, keys and values an entry a
# key-value head. `attn_out` and `mlp_out` are what is added to the stream, behind a post-norm where
# there is one; the norms are what `ln1_post`, `ln2` and `ln2_post` divide by.
POINTS = {
    "query": "blocks.{}.attn.hook_q",
    "key": "blocks.{}.attn.hook_k",
    "value": "blocks.{}.attn.hook_v",
    "head": "blocks.{}.attn.hook_z",
    "attn_out": "blocks.{}.hook_attn_out",
    "attn_norm": "blocks.{}.ln1_post.hook_scale",
    "mlp_norm": "blocks.{}.ln2.hook_scale",
    "mlp_post_norm": "blocks.{}.ln2_post.hook_scale",
    "gate": "blocks.{}.mlp.hook_pre",
    "up": "blocks.{}.mlp.hook_pre_linear",
    "mlp_out": "blocks.{}.hook_mlp_out",
}
WHY = {
    "experts": "its MLP is a mixture of experts, which has no one hidden layer",
    "mlp": "its block has no MLP whose hidden units a hook point shows",
    "resid_mid": "attention and MLP stand side by side, or its block is of another kind",
}


@dataclass(frozen=True, order=True)
class Site:
    """Where neurons are read and written: a layer and a kind, written `"3.resid_post"`, `"5.mlp"`.

    A change at `resid_mid` reaches the MLP and the stream behind it in a HookedTransformer, but the
    MLP alone in a TransformerBridge, where that hook point is the input of the MLP's norm.

    Attributes
    ----------
    layer : int
        Counts from 0.
    kind : str
        `resid_pre`, `resid_mid`, `resid_post` are the residual stream before, inside and after a
        block (`[batch pos d_model]`); `mlp` is the MLP's hidden units after the activation, times
        the gate where there is one (`[batch pos d_mlp]`).

    Raises
    ------
    MechRewardError
        An unknown kind, or a layer that is no whole number or below 0.
    """

    layer: int
    kind: str

    def __post_init__(self) -> None:
        whole("a site's layer", self.layer)
        one_of("site kind", self.kind, HOOKS)
        require(self.layer >= 0, f"a site's layer counts from 0; {self.layer} was given.")

    def __str__(self) -> str:
        return f"{self.layer}.{self.kind}"

    @property
    def hook(self) -> str:
        """The TransformerLens hook point, the same name in every version we support."""
        return HOOKS[self.kind].format(self.layer)

    @classmethod
    def parse(cls, site: Site | str) -> Site:
        """A `Site` from `"3.resid_post"` or from a TransformerLens hook name.

        Parameters
        ----------
        site : Site or str
            In any of these forms.

        Returns
        -------
        Site
            Not checked against a model; see `check`.

        Raises
        ------
        MechRewardError
            Neither form; the message names the nearest kind or hook point.
        """
        if isinstance(site, Site):
            return site
        of_kind("a site", site, (Site, str), "as text it is LAYER.KIND, as in 3.mlp")
        layer, _, kind = site.partition(".")
        if _counts(layer):
            return cls(int(layer), kind)
        words = site.split(".")
        if len(words) > 2 and _counts(words[1]):
            names = {pattern.format(words[1]): kind for kind, pattern in HOOKS.items()}
            one_of("hook name", site, names)
            return cls(int(words[1]), names[site])
        raise MechRewardError(
            f"{site!r} is no site. A site is LAYER.KIND, as in 3.resid_post; "
            f"kinds: {', '.join(HOOKS)}."
        )

    def check(self, model: Any) -> Site:
        """Itself, if `model` has it.

        Raises
        ------
        MechRewardError
            Layer out of range, or the model lacks the site; the message says why, and which kinds
            the layer has.
        """
        return _checked(model, [self])[0]

    def width(self, model: Any) -> int:
        """Number of neurons here: for `mlp` the inputs of the map out of the hidden layer.

        The config is not asked: its width is another one for OPT, XGLM, Falcon and LFM2.
        """
        if self.kind != "mlp":
            return int(model.cfg.d_model)
        mlp = model.blocks[self.layer].mlp
        linear = getattr(getattr(mlp, "out", None), "original_component", None)
        width = getattr(linear, "in_features", None)  # quantised maps have it, too
        return int(width or mlp.W_out.shape[0])


def point(kind: str, layer: int) -> str:
    """The hook point of one of `POINTS`, or of a kind of site."""
    names = HOOKS | POINTS
    one_of("kind of hook point", kind, names)
    return names[kind].format(layer)


def all_sites(
    model: Any,
    kinds: tuple[str, ...] = ("resid_post", "mlp"),
    layers: Iterable[int] | None = None,
) -> list[Site]:
    """Every layer's sites of the given kinds, layer by layer; of some layers alone, if they are
    given.

    Raises
    ------
    MechRewardError
        As `Site.check`.
    """
    layers = range(model.cfg.n_layers) if layers is None else list(layers)
    return _checked(model, [Site(layer, kind) for layer in layers for kind in kinds])


def parse_sites(model: Any, sites: Any) -> list[Site]:
    """One or several sites in any written form, checked against the model, without repeats."""
    listed: list[Any] = [sites]
    if isinstance(sites, Iterable) and not isinstance(sites, (str, bytes)):
        listed = list(sites)
    require(bool(listed), "no site was given; a site is written as in 3.resid_post.")
    return _checked(model, list(dict.fromkeys(Site.parse(site) for site in listed)))


def lacking(model: Any) -> dict[Site, str]:
    """The sites that a model has not, and why."""
    hooks = model.hook_dict
    reasons = {}
    for layer in range(model.cfg.n_layers):
        for kind in HOOKS:
            site = Site(layer, kind)
            why = _why_not(site, hooks)
            if why:
                reasons[site] = why
    return reasons


def _checked(model: Any, sites: list[Site]) -> list[Site]:
    layers, hooks = model.cfg.n_layers, model.hook_dict
    for site in sites:
        require(site.layer < layers, f"site {site}: the model has layers 0 to {layers - 1}.")
        why = _why_not(site, hooks)
        if why and site.kind in WHY:
            others = [Site(site.layer, kind) for kind in HOOKS]
            possible = ", ".join(str(other) for other in others if not _why_not(other, hooks))
            raise MechRewardError(f"there is no site {site}: {why}; this layer has {possible}.")
        one_of("hook name", site.hook, hooks)
    return sites


def _why_not(site: Site, hooks: Any) -> str:
    """Why a site is not there; empty where it is."""
    if site.hook in hooks:
        same = getattr(hooks[site.hook], "name", None) == MLP_OUT.format(site.layer)
        return WHY["experts"] if same else ""
    return WHY.get(site.kind, "the model has no such hook point")


def _counts(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 4
