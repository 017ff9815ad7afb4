"""Is a set found again, on other rollouts and by its own recipe?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward.base.errors import MechRewardError
from mechreward.base.progress import under
from mechreward.base.streams import stream
from mechreward.causal.material import sample_states
from mechreward.models.engine import Policy
from mechreward.probing.neurons import NeuronSet, find_again
from mechreward.probing.overlap import overlap
from mechreward.probing.probe import ProbeWarning
from mechreward.tasks import Problem


@dataclass(frozen=True)
class FoundAgain:
    """How much of a set other rollouts find.

    Attributes
    ----------
    iou : array [repeat]
        Intersection over union of the set and what was found; NaN where nothing was.
    chance : array [repeat]
        What it is by chance: the mean over sets of any neurons, or of neurons as large, whichever
        is more.
    problems : int
        Problems of every repeat.
    fault : str, default ""
        What went wrong where nothing was found.
    """

    iou: Float[np.ndarray, " repeat"]
    chance: Float[np.ndarray, " repeat"]
    problems: int
    fault: str = ""


def found_again(
    model: Any,
    neurons: NeuronSet,
    problems: Sequence[Sequence[Problem]],
    k: int,
    seed: int = 0,
    policy: Policy | None = None,
    progress: bool | str = False,
) -> FoundAgain:
    """Look for a set anew, once on every list of problems.

    Problems, answers, continuations and the probe's seed are others each time; site, probe, ranking
    and share are the recipe's.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one the set belongs to.
    neurons : NeuronSet
        A set with a recipe.
    problems : sequence of sequence of Problem
        Of the training split, for every repeat.
    k : int
        Continuations for each state's V-hat.
    seed : int, default 0
        Of answers, continuations and probes.
    policy : Policy or None, default None
        How tokens are drawn; the model's own distribution if None.
    progress : bool or str, default False
        Whether a bar is shown, or its title.

    Returns
    -------
    FoundAgain
    """
    assert neurons.recipe is not None
    ious, chances, fault = [], [], ""
    for repeat, some in enumerate(problems):
        other = stream("found again", seed, repeat)
        title = under(progress, f"again, {repeat + 1} of {len(problems)}")
        _, values, acts = sample_states(
            model, some, neurons.site, k, other, policy, title, neurons.recipe.rows
        )
        try:
            with warnings.catch_warnings():  # of a fit near its mean: what it finds is held here
                warnings.simplefilter("ignore", ProbeWarning)
                found = find_again(neurons, acts, values, other)
        except MechRewardError as error:  # all answers right, say; the rest is not lost for that
            fault = str(error)
            ious.append(math.nan)
            chances.append(math.nan)
            continue
        any_neurons = overlap(neurons, found)
        as_large = overlap(neurons, found, acts.rms().numpy())
        ious.append(any_neurons.iou)
        chances.append(max(any_neurons.expected, as_large.expected))
    return FoundAgain(np.array(ious), np.array(chances), len(problems[0]), fault)
