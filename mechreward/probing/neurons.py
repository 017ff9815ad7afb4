"""`NeuronSet` and its algebra; `select` takes the best-scored neurons of a probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from mechreward import stats
from mechreward.base.errors import MechRewardError, finite, of_kind, one_of, require, shown
from mechreward.base.files import read_json, write_json
from mechreward.base.frames import Framed
from mechreward.base.plain import visible
from mechreward.models.identity import ModelId
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, Recording
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.probing.recipe import BY, Recipe, choice
from mechreward.rollouts.value import Values


@dataclass(frozen=True, repr=False)
class NeuronSet(Framed):
    """Some neurons of one site of one model.

    `&`, `|` and `-` need the same site and model, and give sets without scores, direction and
    recipe.

    Attributes
    ----------
    site : Site
        Where the neurons are.
    indices : tuple of int
        [k] sorted and unique.
    width : int
        Neurons that the site has.
    model_id : ModelId
        The model.
    scores : tuple of float, default ()
        [k] what they were chosen by, in any unit.
    how : str, default ""
        Where they come from, in words.
    direction : tuple of float, default ()
        [k] if known, a standard deviation of each neuron with the sign that goes with a higher
        V-hat or delta (see `causal.intervene.steer`).
    recipe : Recipe or None, default None
        How `select` found the set, so that it can be looked for again (`find_again`); None for one
        given by hand.

    Raises
    ------
    MechRewardError
        Indices that are not sorted and unique Python ints of the site.
    """

    site: Site
    indices: tuple[int, ...]
    width: int
    model_id: ModelId
    scores: tuple[float, ...] = field(default=(), repr=False, compare=False)
    how: str = field(default="", compare=False)
    direction: tuple[float, ...] = field(default=(), repr=False, compare=False)
    recipe: Recipe | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        of_kind("the site of a neuron set", self.site, Site, "Site.parse makes one of text")
        of_kind("the model_id of a neuron set", self.model_id, ModelId)
        whole = all(isinstance(i, int) for i in self.indices)
        require(
            whole,
            f"neuron indices must be Python ints, not {self.indices[:4]}; "
            "make sets with NeuronSet.of.",
        )
        bad = [i for i in self.indices if not 0 <= i < self.width]
        require(
            not bad,
            f"neuron {bad[:1]} is out of range: {self.site} has neurons 0 to {self.width - 1}.",
        )
        unique = list(self.indices) == sorted(set(self.indices))
        require(
            unique,
            "neuron indices must be sorted and without repeats; make sets with NeuronSet.of.",
        )

    def frame(self) -> pd.DataFrame:
        """A line a neuron: its number, score and direction, NaN where these are not known."""
        nothing = (float("nan"),) * len(self.indices)
        columns = {
            "model": self.model_id.name,
            "site": str(self.site),
            "neuron": self.indices,
            "score": self.scores or nothing,
            "direction": self.direction or nothing,
            "how": self.how,
        }
        return pd.DataFrame(columns)

    @classmethod
    def of(cls, acts: Activations, indices: Any, how: str, scores: Any = None) -> NeuronSet:
        """A set at the site and model of `acts`.

        Parameters
        ----------
        acts : Activations
            Activations of the site.
        indices : iterable of int
            In any order.
        how : str
            Where they come from, in words.
        scores : array [width] or None, default None
            [width] of all neurons, to keep those of the set.

        Returns
        -------
        NeuronSet
            Sorted and without repeats.
        """
        picked = tuple(sorted({int(i) for i in indices}))
        kept = () if scores is None else tuple(float(scores[i]) for i in picked)
        return cls(acts.site, picked, acts.width, acts.model_id, kept, how)

    @property
    def by_recipe(self) -> bool:
        """Whether the set is what its recipe chose: not given or changed by hand."""
        return self.recipe is not None and self.recipe.chose == choice(self.site, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        named = ", ".join(map(str, self.indices[:12])) + (", ..." if len(self) > 12 else "")
        how = visible(self.how or "given")
        return f"NeuronSet({len(self)} of {self.width} at {self.site}: {named}; {how})"

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return self._combine(other, set(self.indices) & set(other.indices), "&")

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return self._combine(other, set(self.indices) | set(other.indices), "|")

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return self._combine(other, set(self.indices) - set(other.indices), "-")

    def iou(self, other: NeuronSet, *, other_model: bool = False) -> float:
        """Intersection over union of the two sets of indices.

        Parameters
        ----------
        other : NeuronSet
            A set of the same site.
        other_model : bool, default False
            Whether it may be of another model of the same shape.

        Returns
        -------
        float
            In [0, 1].

        Raises
        ------
        MechRewardError
            Another site or width, or a model that was not asked for.
        """
        self.comparable(other, other_model=other_model)
        return stats.iou(np.array(self.indices), np.array(other.indices))

    def read(self, cache: Any, *, other_model: bool = False) -> Float[torch.Tensor, "*batch k"]:
        """Activations of the set's neurons.

        Parameters
        ----------
        cache : mapping or Activations
            A TransformerLens cache, any mapping by hook name, or activations of the same site.
        other_model : bool, default False
            Whether the activations may be of another model of the same shape.

        Returns
        -------
        tensor [*batch k]
            In the order of `indices`.

        Raises
        ------
        MechRewardError
            Activations of another site or width, of several sites, or of a model that was not asked
            for; or a cache without the site.
        """
        if isinstance(cache, Recording):
            cache.refuse()
        if isinstance(cache, Activations):
            require(
                cache.site == self.site,
                f"the activations are of {cache.site}; the set is of {self.site}.",
            )
            require(
                cache.width == self.width,
                f"the activations are of {cache.width} neurons; the set is of {self.width}.",
            )
            self.model_id.check(cache.model_id, "neuron set", other_model=other_model)
            return cache.x[:, list(self.indices)]
        require(
            hasattr(cache, "keys"),
            f"a neuron set reads activations of its site, or a cache by hook name; {shown(cache)} "
            "was given.",
        )
        one_of("hook name of this cache", self.site.hook, cache)
        return cache[self.site.hook][..., list(self.indices)]

    def save(self, path: Path | str) -> Path:
        """JSON, written atomically."""
        return write_json(path, {"kind": "neurons", **self.to_json()})

    @classmethod
    def load(cls, path: Path | str) -> NeuronSet:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        data = read_json(path, "neuron set")
        require(
            data.get("kind") == "neurons", f"{path} holds {data.get('kind')}, not a neuron set."
        )
        return cls.from_json(data, f"{path} is a damaged neuron set")

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "site": str(self.site),
            "indices": self.indices,
            "width": self.width,
            "scores": self.scores,
            "how": self.how,
            "direction": self.direction,
            "recipe": self.recipe and asdict(self.recipe),
            "model_id": asdict(self.model_id),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], otherwise: str) -> NeuronSet:
        """What `to_json` gave; other keys are not looked at.

        Raises
        ------
        MechRewardError
            It is damaged: `otherwise`, and how.
        """
        try:
            recipe = data.get("recipe")  # older files have none, nor a direction
            return cls(
                site=Site.parse(data["site"]),
                indices=tuple(data["indices"]),
                width=data["width"],
                model_id=ModelId(**data["model_id"]),
                scores=tuple(data["scores"]),
                how=data["how"],
                direction=tuple(data.get("direction", ())),
                recipe=Recipe(**recipe) if recipe else None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise MechRewardError(f"{otherwise}: {error!r}.") from error

    def comparable(self, other: NeuronSet, *, other_model: bool | None = None) -> None:
        """Raise MechRewardError unless neurons of both sets are the same by number: one site, one
        width, and one model, or another where `ModelId.check` is told `other_model`."""
        require(self.site == other.site, f"sets of different sites: {self.site} and {other.site}.")
        require(
            self.width == other.width,
            f"sets of different widths: {self.width} and {other.width} neurons at {self.site}.",
        )
        self.model_id.check(other.model_id, "neuron set", other_model=other_model)

    def _combine(self, other: NeuronSet, indices: set[int], sign: str) -> NeuronSet:
        self.comparable(other)
        how = f"({self.how}) {sign} ({other.how})"
        return NeuronSet(self.site, tuple(sorted(indices)), self.width, self.model_id, (), how)


def count(width: int, top: float) -> int:
    """How many neurons a share is: rounded, at least one.

    Raises
    ------
    MechRewardError
        A share outside (0, 1].
    """
    finite("top", top)
    require(
        0 < top <= 1, f"top is a share of the neurons in (0, 1], e.g. 0.01 for 1%; {top} was given."
    )
    return max(1, round(top * width))


def select(probe: ValueProbe | DopamineProbe, top: float = 0.01, by: str = "L1") -> NeuronSet:
    """The neurons that rank first for a fitted probe.

    Ties go to the lower index.

    Parameters
    ----------
    probe : ValueProbe or DopamineProbe
        Fitted by `fit` to `Activations`.
    top : float, default 0.01
        Share of the neurons to take, in (0, 1]; at least one neuron.
    by : str, default "L1"
        "L1", the probe's own scores: the L1 norm of a neuron's first-layer weights (the paper,
        section 2). Or "correlation", |Spearman's correlation| of each neuron alone with V-hat at
        states (the reward at tokens) or with delta over steps, of the rows given to `fit`: the
        probe and its target have no say in it (our choice; see the calibration).

    Returns
    -------
    NeuronSet
        With scores and direction.

    Raises
    ------
    MechRewardError
        The probe was not fitted, or fitted to bare rows, a share outside (0, 1], or another `by`.
    """
    one_of("ranking", by, BY)
    require(hasattr(probe, "site_"), "select needs a probe fitted with fit(activations, values).")
    if by == "L1":
        scores = probe.scores_
        target = getattr(probe, "target", "delta")
        how = f"of a {probe.shape} {type(probe).__name__} on {target}, column L1"
    else:
        scores = probe.correlation_
        how = f"by correlation with {probe.correlated_}"
    best = ranking(scores)[: count(len(scores), top)]
    indices = tuple(sorted(int(i) for i in best))
    return NeuronSet(
        site=probe.site_,
        indices=indices,
        width=len(scores),
        model_id=probe.model_id_,
        scores=tuple(float(scores[i]) for i in indices),
        how=f"top {top:.3g} {how}",
        direction=tuple(float(probe.direction_[i]) for i in indices),
        recipe=Recipe.of(probe, top, by, indices),
    )


def find_again(neurons: NeuronSet, acts: Activations, values: Values, seed: int = 0) -> NeuronSet:
    """The set that the same recipe finds on other rollouts.

    Parameters
    ----------
    neurons : NeuronSet
        A set with a recipe.
    acts, values : Activations, Values
        Of other rollouts, at the set's site and with the recipe's kind of row.
    seed : int, default 0
        Of the probe, in place of the recipe's.

    Returns
    -------
    NeuronSet

    Raises
    ------
    MechRewardError
        A set that was given by hand, activations of another site, or nothing to learn.
    """
    recipe = neurons.recipe
    if recipe is None or not neurons.by_recipe:
        raise MechRewardError(
            "this set was given by hand: only what select found can be looked for again."
        )
    require(
        acts.site == neurons.site,
        f"the activations are of {acts.site}; the set is of {neurons.site}.",
    )
    return select(recipe.unfitted(seed).fit(acts, values), recipe.top, recipe.by)


def ranking(scores: np.ndarray) -> np.ndarray:
    """Neurons [width] from the largest score to the smallest."""
    return np.argsort(-np.asarray(scores), kind="stable")
