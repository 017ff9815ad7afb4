"""R11: does a scorer make a search better than the same search by chance, and than other uses of
the same tokens?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mechreward import stats
from mechreward.base.progress import under
from mechreward.experiments.rows import Detail, Row, Setting, bare, row_of
from mechreward.models.policy import Policy
from mechreward.stats import Interval
from mechreward.tasks import Problem
from mechreward.uses.search.pool import Pool, pool
from mechreward.uses.search.scorers import Chance, LogProbability, Scorer
from mechreward.uses.search.search import search

CANDIDATES = 4  # of each step (the paper's search)
ANSWERS = 8  # of each problem, that scorers choose among
SEEDS = (0, 1, 2)
WITHIN = 0.05  # by how much costs that are compared may differ


@dataclass(frozen=True)
class Arm:
    """Rewards and costs of one method, a line a seed.

    Attributes
    ----------
    name : str
        Of the scorer, or of the vote.
    algorithm : str
        What it served.
    k : int
        Candidates of a step, or answers.
    rewards, tokens : array [seed problem]
        Verified reward and generated tokens.
    trained : int
        Generated tokens that the making of the scorer cost.
    """

    name: str
    algorithm: str
    k: int
    rewards: Float[np.ndarray, "seed problem"]
    tokens: Float[np.ndarray, "seed problem"]
    trained: int = 0

    @property
    def cost(self) -> float:
        """Mean of generated tokens a problem."""
        return float(self.tokens.mean())

    def accuracy(self) -> Interval:
        """Over problems and seeds, clustered by problem."""
        seeds, problems = self.rewards.shape
        group = np.tile(np.arange(problems), seeds)
        return stats.cluster_bootstrap(np.mean, [self.rewards.ravel()], group)


def guided_search(
    model: Any,
    problems: Sequence[Problem],
    scorers: Sequence[Scorer],
    setting: Setting,
    *,
    k: int = CANDIDATES,
    n: int = ANSWERS,
    seeds: Sequence[int] = SEEDS,
    policy: Policy | None = None,
    progress: bool | str = False,
) -> list[Row]:
    """Step beams by every scorer, beside chance; best-of-n by every scorer, votes and the oracle on
    shared samples.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    problems : sequence of Problem
        Problems that no scorer was made on.
    scorers : sequence of Scorer
        Chance and log-probability are added where they are missing.
    setting : Setting
        What the rows have in common.
    k, n : int
        Candidates of each step; answers of best-of-n at most.
    seeds : sequence of int
        Of the searches: shared problems, shared random numbers.
    policy : Policy or None, default None
        How tokens are drawn.
    progress : bool or str, default False
        Whether bars are shown, or their title.

    Returns
    -------
    list of Row
        `accuracy` of every arm with its tokens; `gain` of every beam over chance, and over
        best-of-n by log-probability and votes at its own tokens; the change that so many problems
        can show (`detectable`).

    Notes
    -----
    The difference of a problem is the mean over seeds. Its p-value is that of sign flips of
    problems, after Holm over the beams; within a seed McNemar's is kept. Costs that are compared
    differ by at most 5%, but with chance, whose accuracy more tokens do not change.
    """
    names = {scorer.name for scorer in scorers}
    every = [*scorers, *(kind() for kind in (Chance, LogProbability) if kind.name not in names)]
    beams = [_beam(model, problems, scorer, k, seeds, policy, progress) for scorer in every]
    greedy = _greedy(model, problems, policy, len(seeds))
    pools = [pool(model, problems, every, n, seed=seed, policy=policy) for seed in seeds]
    rows = [_detectable(greedy, pools, setting)]
    rows += [_accuracy(arm, setting) for arm in (greedy, *beams, *_choices(pools, every))]
    chance = next(arm for arm in beams if arm.name == Chance.name)
    rivals = {"beam by random": [chance] * len(beams)}
    rivals["best_of_n by logprob"] = [_at(pools, arm.cost, LogProbability.name) for arm in beams]
    if all(some.compares for some in pools):
        rivals["majority"] = [_at(pools, arm.cost, "majority") for arm in beams]
    for beyond, others in rivals.items():
        compared = []
        for arm, other in zip(beams, others, strict=True):
            near = abs(arm.cost - other.cost) <= WITHIN * arm.cost
            if arm is not chance and (near or other is chance):
                compared.append((arm, other))
        rows += _gains(compared, beyond, setting)
    return rows


def _beam(
    model: Any,
    problems: Sequence[Problem],
    scorer: Scorer,
    k: int,
    seeds: Sequence[int],
    policy: Policy | None,
    progress: bool | str,
) -> Arm:
    rewards, tokens = [], []
    for seed in seeds:
        title = under(progress, f"{scorer.name}, seed {seed}") if progress else False
        made = search(model, problems, scorer, k=k, seed=seed, policy=policy, progress=title)
        rewards.append(made.rewards)
        tokens.append([ledger.generated for ledger in made.ledgers])
    return Arm(scorer.name, "beam", k, np.array(rewards), np.array(tokens, float), scorer.trained)


def _greedy(model: Any, problems: Sequence[Problem], policy: Policy | None, seeds: int) -> Arm:
    """One answer whatever the seed."""
    made = search(model, problems, algorithm="greedy", policy=policy, progress=False)
    tokens = np.array([ledger.generated for ledger in made.ledgers], float)
    shape = seeds, 1
    return Arm("greedy", "greedy", 1, np.tile(made.rewards, shape), np.tile(tokens, shape))


def _choices(pools: Sequence[Pool], scorers: Sequence[Scorer]) -> list[Arm]:
    """Best-of-n for n = 1, 2, 4 ..., by every scorer; votes; the oracle."""
    arms = []
    sizes = [2**power for power in range(20) if 2**power <= pools[0].n]
    for n in sizes:
        tokens = np.array([some.cost(n) for some in pools], float)
        for scorer in scorers:
            rewards = np.array([some.best(scorer.name, n) for some in pools], float)
            arms.append(Arm(scorer.name, "best_of_n", n, rewards, tokens, scorer.trained))
        best = np.array([some.oracle(n) for some in pools], float)
        arms.append(Arm("oracle", "best_of_n", n, best, tokens))
        if all(some.compares for some in pools):
            voted = np.array([some.majority(n) for some in pools], float)
            arms.append(Arm("majority", "majority", n, voted, tokens))
    return arms


def _at(pools: Sequence[Pool], tokens: float, name: str) -> Arm:
    """Best-of-n by a scorer, or a vote, at a mean cost."""
    rewards, costs = [], []
    for some in pools:

        def choose(n: int, some: Pool = some) -> Int[np.ndarray, " problem"]:
            return some.majority(n) if name == "majority" else some.best(name, n)

        reward, cost = some.at(tokens, choose)
        rewards.append(reward)
        costs.append(cost)
    return Arm(name, "best_of_n", 0, np.array(rewards, float), np.array(costs))


def _accuracy(arm: Arm, setting: Setting) -> Row:
    detail = Detail(algorithm=arm.algorithm, k=arm.k, tokens=arm.cost, seeds=len(arm.rewards))
    if arm.trained:
        detail["trained"] = arm.trained
    return row_of(setting, arm.name, "accuracy", arm.accuracy(), detail)


def _gains(pairs: Sequence[tuple[Arm, Arm]], beyond: str, setting: Setting) -> list[Row]:
    """Differences of accuracy, paired by problem and seed."""
    rows, p = [], []
    for arm, other in pairs:
        difference = (arm.rewards - other.rewards).mean(0)
        each = np.arange(len(difference))
        interval = stats.cluster_bootstrap(np.mean, [difference], each)
        p.append(stats.sign_flips(difference))
        within = [stats.mcnemar(a, b) for a, b in zip(other.rewards, arm.rewards, strict=True)]
        detail = Detail(
            algorithm=arm.algorithm,
            beyond=beyond,
            tokens=arm.cost,
            p=p[-1],
            p_mcnemar=float(np.median(within)),
            seeds=len(within),
        )
        rows.append(row_of(setting, arm.name, "gain", interval, detail))
    for row, corrected in zip(rows, stats.holm(np.array(p)) if p else [], strict=True):
        row.detail["p_holm"] = float(corrected)
    return rows


def _detectable(greedy: Arm, pools: Sequence[Pool], setting: Setting) -> Row:
    """The change of accuracy that McNemar would see on one seed's problems."""
    base = float(np.mean([some.rewards.mean() for some in pools]))
    count = greedy.rewards.shape[1]
    see = stats.detectable_effect(count, base)
    return row_of(setting, "random", "detectable", bare(see, count))
