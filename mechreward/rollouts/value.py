"""State values by Monte Carlo: V-hat with its error, and the TD error delta of every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from mechreward import stats
from mechreward.base.errors import MechRewardError, of_kind, require, whole
from mechreward.base.files import read_tensors, write_tensors
from mechreward.base.frames import Framed
from mechreward.base.progress import named, under
from mechreward.models.engine import Continuation, Job, generate
from mechreward.models.identity import model_id
from mechreward.models.policy import Policy
from mechreward.models.shards import kept_in
from mechreward.models.text import decode, eos_ids
from mechreward.rollouts.adaptive import (
    AdaptiveK,
    Prior,
    fitted_prior,
    posterior_interval,
    posterior_mean,
)
from mechreward.rollouts.trajectory import Rollouts, task_of
from mechreward.tasks.judge import check_problems, judge

GAMMA = 1 - 1e-5


@dataclass(frozen=True)
class Values(Framed):
    """V-hat of every state (step boundary) of every trajectory.

    Rows are states in the order of the trajectories: state 0 is s_0, the last one of a trajectory
    is its end, whose value is the verified reward itself.

    Attributes
    ----------
    trajectory : array [row]
        Number of the trajectory.
    step : array [row]
        Number of the state in it.
    first : array [row]
        Successes in the first half of the continuations; 0 at the end of a trajectory, where
        nothing is estimated.
    second : array [row]
        The same of the second half.
    reward : array [row]
        Terminal reward of the trajectory.
    group : array [row]
        Number of the problem.
    k : array [row]
        Continuations of the state. At the end of a trajectory, where nothing is drawn, it is made
        0.
    seed : int, default 0
        Seed of `estimate`.
    policy : Policy, default Policy()
        How continuations were drawn, which V is defined under. Files of versions that did not keep
        it have the default.
    least : int
        Continuations that every state has.
    successes : array [row]
        Correct continuations out of `k`.
    live : array [row]
        True where the trajectory goes on, so that V was estimated.
    mean : array [row]
        V-hat; the reward at the end of a trajectory.
    error : array [row]
        Binomial standard error of V-hat.
    is_step : array [row]
        True where the row ends a step, so that it has a TD error (all but s_0).
    delta : array [row]
        TD error of the step that ends in the row; NaN at s_0.
    """

    trajectory: Int[np.ndarray, " row"] = field(repr=False)
    step: Int[np.ndarray, " row"] = field(repr=False)
    first: Int[np.ndarray, " row"] = field(repr=False)
    second: Int[np.ndarray, " row"] = field(repr=False)
    reward: Int[np.ndarray, " row"] = field(repr=False)
    group: Int[np.ndarray, " row"] = field(repr=False)
    k: Int[np.ndarray, " row"]
    seed: int = 0
    policy: Policy = field(default=Policy(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", np.where(self.live, self.k, 0))

    def __repr__(self) -> str:
        most = int(self.k.max())
        k = f"{most}" if most == self.least else f"{self.least}-{most}"
        return f"Values({self.live.sum()} states, k={k}, sd {self.mean[self.live].std():.2f})"

    @property
    def least(self) -> int:
        """Continuations that every state has: the one number that describes a run."""
        return int(self.k[self.live].min()) if self.live.any() else 0

    @property
    def successes(self) -> Int[np.ndarray, " row"]:
        """Correct continuations out of `k`."""
        return self.first + self.second

    @property
    def live(self) -> np.ndarray:
        """[row] True where the trajectory goes on, so that V was estimated."""
        return np.append(self.trajectory[1:] == self.trajectory[:-1], False)

    @property
    def mean(self) -> Float[np.ndarray, " row"]:
        """V-hat; the reward at the end of a trajectory."""
        return self._shares(self.successes, self.k)

    @property
    def error(self) -> Float[np.ndarray, " row"]:
        """Binomial standard error of V-hat.

        It has the (successes + 1)/(k + 2) estimate, so that it is never 0 (our choice).
        """
        p = (self.successes + 1) / (self.k + 2)
        return np.where(self.live, np.sqrt(p * (1 - p) / np.maximum(self.k, 1)), 0.0)

    @property
    def is_step(self) -> np.ndarray:
        """[row] True where the row ends a step, so that it has a TD error (all but s_0)."""
        return self.step > 0

    @property
    def delta(self) -> Float[np.ndarray, " row"]:
        """TD error of the step that ends in each row; NaN at s_0.

        gamma V_t - V_(t-1), and r - V_(t-1) for the last step (paper section 2; gamma = 1 - 1e-5).
        """
        return self._differences(self.mean)

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """V-hat [row] from the first and from the second half of the continuations."""
        require(
            self.least > 1 or not self.live.any(),
            f"halves need k >= 2 continuations; these values have k={self.least}.",
        )
        b = self.k // 2
        return self._shares(self.first, self.k - b), self._shares(self.second, b)

    def prior(self) -> Prior:
        """The Beta prior (a, b) of V, by maximum likelihood of all states' successes.

        Raises
        ------
        MechRewardError
            No states.
        """
        return fitted_prior(self.successes[self.live], self.k[self.live])

    def shrunk(self, prior: Prior | None = None) -> Float[np.ndarray, " row"]:
        """Posterior mean of V [row]: V-hat drawn to the mean of all, the more the fewer k.

        The reward at the end of a trajectory. Unlike `mean` it is not biased by continuations that
        stopped by what was seen (`AdaptiveK`), and its mean squared error is lower.

        Parameters
        ----------
        prior : (float, float) or None, default None
            Beta prior (a, b); None fits one (`prior`).
        """
        if prior is None:
            prior = self.prior()
        mean = posterior_mean(self.successes, self.k, prior)
        return np.where(self.live, mean, self.reward)

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds [row] of V's 95% posterior interval under Jeffreys' prior, with equal tails.

        The reward at the end of a trajectory.
        """
        low, high = posterior_interval(self.successes, self.k)
        return np.where(self.live, low, self.reward), np.where(self.live, high, self.reward)

    def reliability(self) -> dict[str, float]:
        """Spearman-Brown split-half reliability of V-hat (live states) and of delta (steps)."""

        def reliability(halves: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> float:
            first, second = halves
            return stats.split_half_reliability(first[rows], second[rows])

        return {
            "value": reliability(self.halves(), self.live),
            "delta": reliability(self.delta_halves(), self.is_step),
        }

    def delta_halves(self) -> tuple[np.ndarray, np.ndarray]:
        """delta [row] from the first and from the second half of the continuations; NaN at s_0."""
        first, second = self.halves()
        return self._differences(first), self._differences(second)

    def _shares(self, successes: np.ndarray, k: np.ndarray) -> np.ndarray:
        return np.where(self.live, successes / np.maximum(k, 1), self.reward)

    def _differences(self, mean: np.ndarray) -> np.ndarray:
        before = np.concatenate([[np.nan], mean[:-1]])
        discount = np.where(self.live, GAMMA, 1.0)
        return np.where(self.is_step, discount * mean - before, np.nan)

    def frame(self) -> pd.DataFrame:
        """A line a state: V-hat and its error, and delta of the step that ends there."""
        columns = {
            "trajectory": self.trajectory,
            "problem": self.group,
            "step": self.step,
            "value": self.mean,
            "error": self.error,
            "delta": self.delta,
            "successes": self.successes,
            "k": self.k,
            "reward": self.reward,
        }
        return pd.DataFrame(columns)

    @classmethod
    def join(cls, parts: Sequence[Values]) -> Values:
        """Values of consecutive pieces of one set of rollouts.

        The problems must not straddle pieces.

        Raises
        ------
        MechRewardError
            Pieces of another seed or policy. Each row has its own k, so that may differ.
        """
        require(
            len({(part.seed, part.policy) for part in parts}) == 1,
            "values to join need one seed and one policy.",
        )
        trajectory, group = [], []
        runs = groups = 0
        for part in parts:
            trajectory.append(part.trajectory + runs)
            group.append(part.group + groups)
            runs += int(part.trajectory.max()) + 1
            groups += int(part.group.max()) + 1
        return cls(
            trajectory=np.concatenate(trajectory),
            step=np.concatenate([part.step for part in parts]),
            first=np.concatenate([part.first for part in parts]),
            second=np.concatenate([part.second for part in parts]),
            reward=np.concatenate([part.reward for part in parts]),
            group=np.concatenate(group),
            k=np.concatenate([part.k for part in parts]),
            seed=parts[0].seed,
            policy=parts[0].policy,
        )

    def save(self, path: Path | str) -> Path:
        """One safetensors file, written atomically."""
        names = ("trajectory", "step", "first", "second", "reward", "group", "k")
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in names}
        about = {"kind": "values", "seed": self.seed, "policy": self.policy.to_json()}
        return write_tensors(path, arrays, about)

    @classmethod
    def load(cls, path: Path | str) -> Values:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        tensors, about = read_tensors(path, "values")
        require(about.get("kind") == "values", f"{path} holds {about.get('kind')}, not values.")
        columns = {name: tensor.numpy() for name, tensor in tensors.items()}
        shapes = {column.shape for column in columns.values()}
        require(len(shapes) == 1, f"{path} is a damaged values file: columns of unlike lengths.")
        try:
            policy = Policy(**about.get("policy", {}))
            if "k" not in columns:
                # Older versions kept one number for all states.
                columns["k"] = np.full(next(iter(shapes)), about["k"])
            return cls(**columns, seed=about["seed"], policy=policy)
        except (KeyError, TypeError) as error:
            raise MechRewardError(f"{path} is a damaged values file: {error}.") from error


def estimate(
    model: Any,
    runs: Rollouts,
    *,
    k: int | AdaptiveK = 32,
    seed: int = 0,
    batch: int = 256,
    out: Path | str | None = None,
    progress: bool | str = True,
) -> Values:
    """V-hat of every state: continuations from every step boundary, under the runs' own policy.

    What is left of the token limit is the limit. A trajectory is
    prefilled once; all continuations of all its boundaries fork from there.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that made the runs.
    runs : Rollouts
        Of one task.
    k : int or AdaptiveK, default 32
        Continuations from each state. `AdaptiveK(width=.34)` goes on in rounds, each one run of the
        model, with the states whose interval is not narrow enough yet.
    seed : int, default 0
        Part of the key of every continuation.
    batch : int, default 256
        Rows decoded at once.
    out : Path or str or None, default None
        Folder that keeps what is generated, shard by shard: stopped and called again, it goes on.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    Values
        A row for every state, trajectory after trajectory.

    Raises
    ------
    MechRewardError
        No trajectories, k < 1, a model other than the one that made the runs, or a verifier that
        fails throughout (see `tasks.judge`).

    Notes
    -----
    V-hat is the mean verified reward of the continuations (paper section 2). At k < 32 noise alone
    makes many steps look like large TD errors (29% of them pass |delta| > .3 at k = 4 with nothing
    there; `Values.reliability` tells).

    A state's first continuations are the same whatever k is, adaptive or not.
    """
    of_kind("runs", runs, Rollouts, "sample makes them of problems")
    require(len(runs) > 0, "no trajectories were given.")
    if not isinstance(k, AdaptiveK):
        k = whole("k", k, 1, "continuations from each state")
    seed = whole("seed", seed)
    batch = whole("batch", batch, 1, "rows decoded at once")
    runs.model_id.check(model_id(model), "set of rollouts")
    task = task_of(runs.problems)
    check_problems(task, runs.problems)
    values = _nothing_drawn(runs, seed)
    title = named(progress, "values")
    rounds = 0
    lacking = _lacking(values, k)
    while lacking.any():
        rounds += 1
        rows, numbers = _wanted(values.k, lacking)
        jobs = _jobs(runs, values, rows, numbers)
        with kept_in(out):
            continuations = generate(
                model,
                jobs,
                eos=eos_ids(model),
                policy=runs.policy,
                batch=batch,
                progress=under(title, f"round {rounds}") if isinstance(k, AdaptiveK) else title,
            )
        owners = values.trajectory[rows].tolist()
        problems = [runs.problems[number] for number in owners]
        texts = _texts(model, runs, owners, jobs, continuations)
        ended = [continuation.finished for continuation in continuations]
        verdicts = judge(task, problems, texts, ended, sound=rounds > 1)
        rewards = np.array([verdict.reward for verdict in verdicts])
        values = _with(values, lacking, rows, numbers, rewards)
        lacking = _lacking(values, k)
    return values


def _nothing_drawn(runs: Rollouts, seed: int) -> Values:
    """The rows of `runs` before the first continuation."""
    states = []  # (trajectory, step, reward, group) of every row
    for number, (run, group) in enumerate(zip(runs, runs.groups, strict=True)):
        for step in range(len(run.step_ends)):
            states.append((number, step, run.reward, group))
    trajectory, step, reward, group = np.array(states, dtype=np.int64).T.copy()
    nothing = np.zeros_like(step)
    return Values(trajectory, step, nothing, nothing, reward, group, nothing, seed, runs.policy)


def _lacking(values: Values, k: int | AdaptiveK) -> np.ndarray:
    """Continuations [row] of the next round."""
    more = k.lacking(values.successes, values.k) if isinstance(k, AdaptiveK) else k - values.k
    return np.where(values.live, more, 0)


def _wanted(k: np.ndarray, lacking: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and number [job] of the continuations that are lacking; a row's first `k` are there."""
    rows = np.repeat(np.arange(len(k)), lacking)
    numbers = [np.arange(n, n + more) for n, more in zip(k, lacking, strict=True)]
    return rows, np.concatenate(numbers)


def _jobs(runs: Rollouts, values: Values, rows: np.ndarray, numbers: np.ndarray) -> list[Job]:
    limit = runs.policy.limit(task_of(runs.problems))
    jobs = []
    places = (values.trajectory[rows], values.step[rows], numbers)
    for trajectory, step, j in np.stack(places, axis=1).tolist():
        run = runs[trajectory]
        end = run.step_ends[step]
        begun = end + 1 - run.prompt_len
        id_ = run.problem_id
        key = ("value", values.seed, id_, run.seed, run.sample, step, j)
        jobs.append(Job(run.tokens, end + 1, limit - begun, key, problem=id_, begun=begun))
    return jobs


def _texts(
    model: Any,
    runs: Rollouts,
    owners: Sequence[int],
    jobs: Sequence[Job],
    continuations: Sequence[Continuation],
) -> list[str]:
    """Whole answers [job], from the end of the prompt; `owners` are their trajectories."""
    texts = []
    for number, job, continuation in zip(owners, jobs, continuations, strict=True):
        begun = job.trunk[runs[number].prompt_len : job.length]
        texts.append(decode(model, torch.cat([begun, continuation.tokens])))
    return texts


def _with(
    values: Values,
    more: np.ndarray,
    rows: np.ndarray,
    numbers: np.ndarray,
    rewards: np.ndarray,
) -> Values:
    """`values` with one round more: `more` [row] continuations, their rewards [job]."""
    before, after = values.k, values.k + more
    # The first half of a round's continuations joins the first half. So halves stay balanced, both
    # see every decision to go on alike, and those of one k, a single round, are what they were.
    joins_first = (after - after // 2) - (before - before // 2)
    in_first = numbers - before[rows] < joins_first[rows]
    first, second = values.first.copy(), values.second.copy()
    np.add.at(first, rows[in_first], rewards[in_first])
    np.add.at(second, rows[~in_first], rewards[~in_first])
    return replace(values, first=first, second=second, k=after)
