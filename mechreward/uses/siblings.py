"""The siblings test: of the steps that may follow one state, does a scorer know the better ones?

Sibling steps share all that came before them, so whatever a scorer knows of the problem or of the
answer so far is of no help. VinePPO (arXiv 2410.01679) asked this of value networks, which barely
beat chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from mechreward import stats
from mechreward.base.errors import MechRewardError, of_kind, require, whole
from mechreward.base.files import read_tensors, write_tensors
from mechreward.base.frames import Framed
from mechreward.base.plain import visible
from mechreward.base.progress import named
from mechreward.models.checks import check_model
from mechreward.models.identity import ModelId, model_id
from mechreward.models.policy import Policy
from mechreward.rollouts.trajectory import Rollouts, task_of
from mechreward.stats import Interval
from mechreward.tasks import Problem
from mechreward.uses.search.search import Given
from mechreward.uses.sibling_steps import (
    TAKEN,
    answered,
    by_name,
    drawn_at,
    panel_of,
    places_of,
    worth_of,
)

CHANCE, HALF = TAKEN
CLEAR = 1.96  # standard errors between the V-hats of a clearly different pair (our choice)


@dataclass(frozen=True)
class Siblings(Framed):
    """Sibling steps, what they are worth, and what scorers say of them.

    Attributes
    ----------
    state : array [row]
        Number of the state that a step follows.
    candidate : array [row]
        Number of the step among those drawn there. Of steps with the same tokens the first is kept.
    first, second : array [row]
        V-hat after the step from either half of the continuations; the verified reward, twice,
        where the step ended the answer.
    n : array [row]
        Continuations; 0 where the step ended the answer.
    scores : mapping of str to array [row]
        By scorer.
    texts : tuple of str
        [row] the steps.
    problem_ids : tuple of str
        [state] the problem of each state.
    steps : tuple of int
        [state] its number in its answer; 0 is s_0.
    k : int
        Steps drawn at each state.
    seed : int
        Of all that was drawn.
    policy : Policy
        How tokens were drawn, which V is defined under.
    model_id : ModelId
        The model.
    """

    state: Int[np.ndarray, " row"] = field(repr=False)
    candidate: Int[np.ndarray, " row"] = field(repr=False)
    first: Float[np.ndarray, " row"] = field(repr=False)
    second: Float[np.ndarray, " row"] = field(repr=False)
    n: Int[np.ndarray, " row"] = field(repr=False)
    scores: Mapping[str, Float[np.ndarray, " row"]] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    problem_ids: tuple[str, ...] = field(repr=False)
    steps: tuple[int, ...] = field(repr=False)
    k: int
    seed: int
    policy: Policy = field(repr=False)
    model_id: ModelId = field(repr=False)

    def __repr__(self) -> str:
        listed = ", ".join(map(visible, self.scores))
        return f"Siblings({len(self.texts)} steps of {len(self.problem_ids)} states; {listed})"

    def frame(self) -> pd.DataFrame:
        """A line a step: its state, its text, V-hat of either half, every scorer's score."""
        problems = [self.problem_ids[state] for state in self.state]
        columns = {
            "state": self.state,
            "problem_id": problems,
            "step": [self.steps[state] for state in self.state],
            "candidate": self.candidate,
            "text": self.texts,
            "first": self.first,
            "second": self.second,
            "n": self.n,
            **self.scores,
        }
        return pd.DataFrame(columns)

    def rates(self, level: float = 0.95) -> pd.DataFrame:
        """How often each scorer is right, a line a scorer.

        One half of the continuations says which pairs count and stands in the line "other half"
        for the choice that V-hat itself makes; the other half judges. Then they change places, and
        both results are averaged, so that no choice is judged by the luck it was made by.

        Parameters
        ----------
        level : float, default 0.95
            Of the intervals: bootstrap, clustered by problem.

        Returns
        -------
        DataFrame
            - `states`: with at least two different steps.
            - `pairs`: of siblings whose V-hats differ in the half that chooses, both ways together.
            - `rate`, `rate_low`, `rate_high`: how often the scorer prefers the one that is higher
              in the half that judges. Ties, of scores or there, count one half.
            - `p`: of the rate, two-sided, under flips of the signs of states.
            - `clear_pairs`, `clear`, `clear_low`, `clear_high`: the same of pairs that differ by
              more than 1.96 standard errors in the half that chooses (our choice).
            - `gain`, `gain_low`, `gain_high`: V-hat of the step with the best score less the mean
              of all siblings, where the half that judges measures both. What a choice is worth.

            Lines are the scorers, "other half" and "chance". "other half" is what V-hat from half
            of the continuations reaches; noise keeps it, and every scorer, from a rate of 1.
        """
        lines = []
        for name, score in self.scores.items():
            lines.append(self._line(name, score, score, level))
        lines.append(self._line(HALF, self.first, self.second, level))
        nothing = np.zeros(len(self.texts))
        line = self._line(CHANCE, nothing, nothing, level)
        for part, known in (("rate", 0.5), ("clear", 0.5), ("gain", 0.0)):
            # Chance is known, and has no interval.
            line |= {part: known, f"{part}_low": known, f"{part}_high": known, "p": 1.0}
        return pd.DataFrame([*lines, line])

    def _line(
        self,
        name: str,
        beside_first: Float[np.ndarray, " row"],
        beside_second: Float[np.ndarray, " row"],
        level: float,
    ) -> dict[str, Any]:
        """One scorer, by its scores where the first half chooses and where the second does."""
        tallies, problems = [], []
        for number, problem in enumerate(self.problem_ids):
            rows = np.flatnonzero(self.state == number)
            if len(rows) < 2:
                continue
            n = self.n[rows]
            a = _Half(self.first[rows], n - n // 2)
            b = _Half(self.second[rows], n // 2)
            one = _tally(beside_first[rows], a, b)
            other = _tally(beside_second[rows], b, a)
            tallies.append(np.add(one, other))
            problems.append(problem)
        require(len(tallies) > 0, "no state has two different steps: nothing can be compared.")
        pairs, right, clear_pairs, clear_right, gain = np.array(tallies).T

        def interval(top: np.ndarray, below: np.ndarray, low: int) -> Interval:
            return stats.cluster_bootstrap(
                _ratio, [top, below], problems, level=level, span=(low, 1)
            )

        both = np.full(len(gain), 2.0)
        return {
            "scorer": name,
            "states": len(tallies),
            "pairs": int(pairs.sum()),
            **_columns("rate", interval(right, pairs, 0)),
            "p": stats.sign_flips(right - pairs / 2),
            "clear_pairs": int(clear_pairs.sum()),
            **_columns("clear", interval(clear_right, clear_pairs, 0)),
            **_columns("gain", interval(gain, both, -1)),
        }

    def save(self, path: Path | str) -> Path:
        """One safetensors file, written atomically."""
        tensors = {}
        for name in ("state", "candidate", "first", "second", "n"):
            tensors[name] = torch.from_numpy(getattr(self, name))
        tensors["scores"] = torch.from_numpy(np.stack(list(self.scores.values())))
        about = {
            "kind": "siblings",
            "scorers": list(self.scores),
            "texts": self.texts,
            "problem_ids": self.problem_ids,
            "steps": self.steps,
            "k": self.k,
            "seed": self.seed,
            "policy": self.policy.to_json(),
            "model_id": asdict(self.model_id),
        }
        return write_tensors(path, tensors, about)

    @classmethod
    def load(cls, path: Path | str) -> Siblings:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        tensors, about = read_tensors(path, "siblings")
        require(about.get("kind") == "siblings", f"{path} holds {about.get('kind')}, not siblings.")
        try:
            columns = {name: tensor.numpy() for name, tensor in tensors.items()}
            scores = columns.pop("scores")
            return cls(
                **columns,
                scores=dict(zip(about["scorers"], scores, strict=True)),
                texts=tuple(about["texts"]),
                problem_ids=tuple(about["problem_ids"]),
                steps=tuple(about["steps"]),
                k=about["k"],
                seed=about["seed"],
                policy=Policy(**about["policy"]),
                model_id=ModelId(**about["model_id"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MechRewardError(f"{path} is a damaged siblings file: {error!r}.") from error


def siblings(
    model: Any,
    runs: Rollouts | Sequence[Problem],
    scorers: Mapping[str, Given] | Sequence[Given] | Given = (),
    *,
    states: int = 40,
    k: int = 4,
    continuations: int = 32,
    seed: int = 0,
    policy: Policy | None = None,
    batch: int = 256,
    progress: bool | str = True,
) -> Siblings:
    """Draw sibling steps, estimate what each is worth, and let scorers score them.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    runs : Rollouts or sequence of Problem
        Answers that states are drawn from; problems are answered first, once each.
    scorers : mapping, sequence, or one scorer, default none
        As `search` takes them, by name in a mapping. Log-probability is always there.
    states : int, default 40
        States, each of another problem, drawn among the step boundaries where the answer goes on;
        as many as there are problems, if these are fewer.
    k : int, default 4
        Next steps drawn at each state. Those of the same tokens are one; one that says nothing, as
        the end of the text alone, is none.
    continuations : int, default 32
        From the end of every step, half of which choose and half of which judge
        (`Siblings.rates`).
    seed : int, default 0
        Part of the name of all random numbers.
    policy : Policy or None, default None
        How tokens are drawn; None: as for the rollouts, or the model's own distribution.
    batch : int, default 256
        Rows decoded at once.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    Siblings

    Raises
    ------
    MechRewardError
        Before any work: no problems or rollouts, or rollouts of another model; a task without a
        verifier; k or continuations < 2; a scorer that `search` would not take, that knows whole
        answers only, or two of one name. Later: a scorer that fails, with its name and the problem.
    """
    check_model(model)
    states = whole("states", states, 1, "states")
    k = whole("k", k, 2, "steps drawn at each state")
    continuations = whole("continuations", continuations, 2, "continuations of each step")
    seed = whole("seed", seed)
    batch = whole("batch", batch, 1, "rows decoded at once")
    progress = named(progress, "siblings")
    if policy is not None:
        of_kind("policy", policy, Policy)
    panel = panel_of(by_name(scorers), model)
    runs = answered(model, runs, states, seed, policy, batch, progress)
    policy = policy or runs.policy
    task = task_of(runs.problems)
    places = places_of(runs, states, seed, policy.limit(task))
    drawn = drawn_at(model, runs, places, panel, k, seed, policy, batch)
    first, second, n = worth_of(model, task, drawn, continuations, seed, policy, batch, progress)
    scores = np.array([step.scores for step in drawn]).T
    return Siblings(
        state=np.array([step.state for step in drawn]),
        candidate=np.array([step.node.path[-1] for step in drawn]),
        first=first,
        second=second,
        n=n,
        scores=dict(zip(panel.scorers, scores, strict=True)),
        texts=tuple(step.text for step in drawn),
        problem_ids=tuple(runs.problems[run].id for run, _ in places),
        steps=tuple(step for _, step in places),
        k=k,
        seed=seed,
        policy=policy,
        model_id=model_id(model),
    )


class _Half(NamedTuple):
    """V-hat [row] of one state's steps from half of the continuations, and how many these are."""

    value: Float[np.ndarray, " row"]
    n: Int[np.ndarray, " row"]

    @property
    def error(self) -> Float[np.ndarray, " row"]:
        """Binomial standard error, as `Values.error` has it; 0 of a reward."""
        n = np.maximum(self.n, 1)
        p = (self.value * n + 1) / (n + 2)
        return np.where(self.n > 0, np.sqrt(p * (1 - p) / n), 0.0)


def _tally(
    score: Float[np.ndarray, " row"], chooses: _Half, judges: _Half
) -> tuple[float, float, float, float, float]:
    """Of one state: pairs that differ, those in the right order, the same of clearly different
    ones, and the gain."""
    pairs = right = clear_pairs = clear_right = 0.0
    error = chooses.error
    for i, j in combinations(range(len(score)), 2):
        apart = chooses.value[i] - chooses.value[j]
        if apart == 0:
            continue
        # 1 for the right order, 0 for the wrong one, one half for a tie.
        order = np.sign(score[i] - score[j]) * np.sign(judges.value[i] - judges.value[j])
        agrees = (1 + order) / 2
        pairs += 1
        right += agrees
        if abs(apart) > CLEAR * np.hypot(error[i], error[j]):
            clear_pairs += 1
            clear_right += agrees
    best = score == score.max()
    gain = judges.value[best].mean() - judges.value.mean()
    return pairs, right, clear_pairs, clear_right, float(gain)


def _ratio(top: np.ndarray, below: np.ndarray) -> float:
    """Of two sums; NaN over nothing."""
    total = below.sum()
    return float(top.sum() / total) if total > 0 else float("nan")


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
