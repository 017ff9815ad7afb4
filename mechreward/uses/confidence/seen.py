"""What may be known of rollouts at each of their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mechreward.base.errors import require
from mechreward.base.progress import under
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.measures import measures
from mechreward.rollouts.trajectory import Rollouts
from mechreward.uses.confidence.columns import (
    Columns,
    of_ends,
    of_parts,
    of_prompts,
    of_several,
    prompt_texts,
)
from mechreward.uses.confidence.p_true import p_true

PROMPT, PARTIAL, ANSWER, SEVERAL = "prompt", "partial", "answer", "k answers"
STAGES = (PROMPT, PARTIAL, ANSWER, SEVERAL)
# Stages whose columns are known too: one row a trajectory each.
KNOWN_TOO = {PROMPT: (), PARTIAL: (PROMPT,), ANSWER: (PROMPT,), SEVERAL: (PROMPT, ANSWER)}
NO_PARTS = "no answer has a state between prompt and end"
NO_OTHERS = "there is one answer to each problem: sample(..., k=) gives more"


@dataclass(frozen=True)
class Seen:
    """Rollouts at each of their states, but for the verdict.

    Attributes
    ----------
    runs : Rollouts
        The answers.
    acts : Activations
        Of rows="states".
    columns : mapping of str to mapping of str to array [row]
        What needs no activations, by stage and name, in the rows of the stage (`rows`).
    missing : mapping of str to mapping of str to str
        Why a column is not defined, by stage and name.
    prompts : tuple of str
        Words of every trajectory's prompt.
    """

    runs: Rollouts
    acts: Activations
    columns: Mapping[str, Columns] = field(repr=False)
    missing: Mapping[str, Mapping[str, str]] = field(repr=False)
    prompts: tuple[str, ...] = field(repr=False)

    def rows(self, stage: str) -> Int[np.ndarray, " row"]:
        """Numbers of the states that a stage is asked at; none where it is not defined."""
        last = np.array([run.steps for run in self.runs])[self.acts.trajectory]
        step = self.acts.step
        if stage == PROMPT:
            return np.flatnonzero(step == 0)
        if stage == PARTIAL:
            return np.flatnonzero((step > 0) & (step < last))
        if stage == ANSWER:
            return np.flatnonzero(step == last)
        beside_others = several(self.runs)[self.acts.trajectory]
        return np.flatnonzero((step == last) & beside_others)

    def problem(self, stage: str) -> Int[np.ndarray, " row"]:
        """Number of the problem of each row of a stage."""
        return np.array(self.runs.groups)[self.acts.trajectory[self.rows(stage)]]

    def reward(self, stage: str) -> Int[np.ndarray, " row"]:
        """Terminal reward of the answer of each row of a stage."""
        return np.array(self.runs.rewards)[self.acts.trajectory[self.rows(stage)]]

    def known(self, stage: str) -> Columns:
        """The columns of a stage, and of those that are known by then, in its rows."""
        trajectory = self.acts.trajectory[self.rows(stage)]
        every = {}
        for earlier in KNOWN_TOO[stage]:
            for name, column in self.columns[earlier].items():
                every[name] = column[trajectory]
        return {**every, **self.columns[stage]}

    def why_not(self, stage: str) -> str:
        """Why a stage has no rows; empty where it has some."""
        if len(self.rows(stage)):
            return ""
        return NO_OTHERS if stage == SEVERAL else NO_PARTS


def several(runs: Rollouts) -> np.ndarray:
    """[trajectory] True where its problem has another answer beside it."""
    groups = np.array(runs.groups)
    return np.bincount(groups)[groups] > 1


def look(
    model: Any,
    runs: Rollouts,
    site: Site,
    *,
    batch: int = 64,
    progress: bool | str = True,
) -> Seen:
    """Read rollouts three times: for activations, for their tokens' distributions, for P(True).

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that answered.
    runs : Rollouts
        Its answers.
    site : Site
        Where activations are recorded.
    batch : int, default 64
        Trajectories run at once.
    progress : bool or str, default True
        Whether bars are shown, or their title.

    Raises
    ------
    MechRewardError
        Runs of another model, an answer without a token, a site that the model lacks, or numbers
        that are not finite.
    """
    empty = [run.problem_id for run in runs if run.steps == 0]
    require(
        not empty,
        f"{len(empty)} answers have no token, first one to {empty[:1]}: leave them out.",
    )
    name = str(site)
    title = under(progress, "activations")
    acts = record(model, runs, name, rows="states", batch=batch, progress=title)[name]
    measured = measures(model, runs, batch=batch, progress=under(progress, "distributions"))
    prompts, no_prompt = of_prompts(runs, measured)
    ends = dict(of_ends(runs, measured))
    asked, why = p_true(model, runs, batch)
    if asked is not None:
        ends["p_true"] = asked
    shared, no_several = of_several(model, runs, np.flatnonzero(several(runs)))
    columns = {PROMPT: prompts, PARTIAL: of_parts(runs, measured), ANSWER: ends, SEVERAL: shared}
    missing = {PROMPT: no_prompt, ANSWER: {"p_true": why} if why else {}, SEVERAL: no_several}
    return Seen(runs, acts, columns, missing, prompt_texts(model, runs))


def mean_within(x: Float[np.ndarray, " row"], group: Int[np.ndarray, " row"]) -> np.ndarray:
    """Mean over the rows of each group, at every row of it."""
    sums, counts = np.bincount(group, x), np.bincount(group)
    return (sums / np.maximum(counts, 1))[group]
