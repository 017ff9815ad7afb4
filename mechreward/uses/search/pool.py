"""Several answers to each problem that all scorers choose among: best-of-N shares its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mechreward.base import streams
from mechreward.base.errors import of_kind, one_of, require, whole
from mechreward.models.capture import Caught, Read
from mechreward.models.policy import Policy
from mechreward.models.site import Site
from mechreward.rollouts.trajectory import check_distinct, task_of
from mechreward.tasks import Problem
from mechreward.tasks.judge import answers_of, judge
from mechreward.uses.search.sampler import Sampler
from mechreward.uses.search.scorers import Draft, Scorer, checked
from mechreward.uses.search.tree import COMBINE, Ask, Purse


class Several(Scorer):
    """Scorers that look at the same candidates; `given` keeps what each gave, by problem and
    path."""

    name = "several"

    def __init__(self, scorers: Mapping[str, Scorer]) -> None:
        self.scorers = scorers
        self.spread = any(scorer.spread for scorer in scorers.values())
        self.given: dict[tuple[str, tuple[int, ...]], dict[str, list[float]]] = {}

    def reads(self) -> Mapping[Site, Read | None]:
        """All of every site, since scorers may read different neurons of one."""
        sites: dict[Site, Read | None] = {}
        for scorer in self.scorers.values():
            for site in scorer.reads():
                sites[site] = None
        return sites

    def __call__(self, draft: Draft) -> list[float]:
        scores = {}
        for name, scorer in self.scorers.items():
            scores[name] = checked(scorer, _as_read_by(scorer, draft))
        self.given[draft.problem.id, draft.path] = scores
        return [0.0] * len(draft.spans)  # nothing is chosen here

    def scored(self, draft: Draft) -> int:
        return sum(scorer.scored(draft) for scorer in self.scorers.values())


def _as_read_by(scorer: Scorer, draft: Draft) -> Draft:
    """A draft with what this scorer wants to read of what was caught."""
    if draft.caught is None:
        return draft
    x = {}
    for site, read in scorer.reads().items():
        whole_site = draft.caught.x[site]
        x[site] = whole_site if read is None else read(whole_site)
    return replace(draft, caught=Caught(draft.caught.position, x))


@dataclass(frozen=True)
class Pool:
    """Some answers to each problem, all scored by every scorer.

    Attributes
    ----------
    rewards : array [problem n]
        Verified rewards.
    tokens : array [problem n]
        Generated tokens of each answer.
    answers : array [problem n]
        What each answer gives (`Task.answer`), as numbers that are equal where answers are; -1
        where none can be read.
    scores : dict of str to array [problem n]
        Combined score of each answer, by scorer.
    seed : int
        Of the answers: those of `sample(..., k=n, seed=)`.
    """

    rewards: Int[np.ndarray, "problem n"] = field(repr=False)
    tokens: Int[np.ndarray, "problem n"] = field(repr=False)
    answers: Int[np.ndarray, "problem n"] = field(repr=False)
    scores: dict[str, Float[np.ndarray, "problem n"]] = field(repr=False)
    seed: int = 0

    @property
    def n(self) -> int:
        """Answers to a problem."""
        return self.rewards.shape[1]

    def cost(self, n: int) -> Int[np.ndarray, " problem"]:
        """Tokens of the first `n` answers to each problem."""
        return self.tokens[:, :n].sum(1)

    def best(self, scorer: str, n: int) -> Int[np.ndarray, " problem"]:
        """Reward of the best of the first `n` answers by a scorer; the earlier of equals.

        Raises
        ------
        MechRewardError
            A scorer that did not look at the pool, or n outside 1 to `self.n`.
        """
        one_of("scorer of this pool", scorer, self.scores)
        return self._taken(self.scores[scorer][:, :n].argmax(1), n)

    def oracle(self, n: int) -> Int[np.ndarray, " problem"]:
        """Whether any of the first `n` answers is right: what a perfect choice reaches."""
        return self._taken(self.rewards[:, :n].argmax(1), n)

    def majority(self, n: int) -> Int[np.ndarray, " problem"]:
        """Reward of an answer of the largest group among the first `n`; the earliest group of
        equals.

        Raises
        ------
        MechRewardError
            No answer can be read: they cannot be compared.
        """
        require(self.compares, "the answers of this task cannot be compared: there is no majority.")
        chosen = []
        for answers in self.answers[:, :n]:
            votes = (answers[:, None] == answers[None]).sum(1)
            chosen.append(int(np.where(answers >= 0, votes, 0).argmax()))
        return self._taken(np.array(chosen), n)

    @property
    def compares(self) -> bool:
        """Whether any answer can be compared."""
        return bool((self.answers >= 0).any())

    def at(
        self, tokens: float, choose: Callable[[int], Int[np.ndarray, " problem"]]
    ) -> tuple[Int[np.ndarray, " problem"], Float[np.ndarray, " problem"]]:
        """Rewards and tokens of best-of-n at a mean cost: n on some problems, n + 1 on the others,
        which are drawn by name, so that the mean is met as nearly as it can be.

        Parameters
        ----------
        tokens : float
            Wanted mean of generated tokens a problem.
        choose : function
            Rewards by n, such as `pool.oracle`.

        Returns
        -------
        (array [problem], array [problem])
            At the largest or smallest n where the cost is out of reach.
        """
        means = np.array([self.cost(n).mean() for n in range(1, self.n + 1)])
        fewer = int(np.clip(np.searchsorted(means, tokens, side="right"), 1, self.n))
        more = min(fewer + 1, self.n)
        share = 0.0
        if more > fewer:
            step = means[more - 1] - means[fewer - 1]
            share = float(np.clip((tokens - means[fewer - 1]) / step, 0, 1))
        count = round(share * len(self.rewards))
        order = streams.rng("pool: which problems get one more", self.seed).permutation(
            len(self.rewards)
        )
        extra: Bool[np.ndarray, " problem"] = np.zeros(len(self.rewards), bool)
        extra[order[:count]] = True
        rewards = np.where(extra, choose(more), choose(fewer))
        return rewards, np.where(extra, self.cost(more), self.cost(fewer)).astype(float)

    def _taken(self, chosen: Int[np.ndarray, " problem"], n: int) -> Int[np.ndarray, " problem"]:
        require(1 <= n <= self.n, f"this pool has 1 to {self.n} answers a problem; not {n}.")
        return self.rewards[np.arange(len(chosen)), chosen]


def pool(
    model: Any,
    problems: Sequence[Problem],
    scorers: Sequence[Scorer],
    n: int,
    *,
    combine: str = "last",
    seed: int = 0,
    policy: Policy | None = None,
    batch: int = 256,
) -> Pool:
    """Draw `n` answers to each problem and let every scorer score them in the same pass.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    problems : sequence of Problem
        Of one task with a verifier.
    scorers : sequence of Scorer
        With different names.
    n : int
        Answers to each.
    combine : str, default "last"
        As for `search`.
    seed : int, default 0
        As for `sample`, whose answers these are.
    policy : Policy or None, default None
        How tokens are drawn.
    batch : int, default 256
        Rows decoded at once.

    Raises
    ------
    MechRewardError
        As `search`, or two scorers of one name.
    """
    task = task_of(problems)
    check_distinct(problems)
    n = whole("n", n, 1, "answers to each problem")
    one_of("way to combine scores", combine, COMBINE)
    names = [scorer.name for scorer in scorers]
    require(len(set(names)) == len(names), f"scorers need different names; these: {names}.")
    policy = Policy() if policy is None else policy
    of_kind("policy", policy, Policy)
    several = Several(dict(zip(names, scorers, strict=True)))
    sampler = Sampler(
        model,
        problems,
        task,
        several,
        policy=policy,
        block=None,
        seed=seed,
        purses=[Purse() for _ in problems],
        batch=batch,
    )
    asks = [(number, Ask(sampler.root(number), n, whole=True)) for number in range(len(problems))]
    nodes = sampler.expand(asks)
    for fault in sampler.faults.values():
        raise fault
    texts = [sampler.text(node, number) for number, some in enumerate(nodes) for node in some]
    ended = [node.content.finished for some in nodes for node in some]
    owners = [problem for problem in problems for _ in range(n)]
    verdicts = judge(task, owners, texts, ended)
    known: dict[str, int] = {}
    answers = []
    for answer in answers_of(owners, texts):
        answers.append(-1 if answer is None else known.setdefault(answer, len(known)))
    scores = {}
    for name in names:
        rows = []
        for problem, some in zip(problems, nodes, strict=True):
            of_problem = [several.given[problem.id, node.path][name] for node in some]
            rows.append([float(COMBINE[combine](given)) for given in of_problem])
        scores[name] = np.array(rows)
    lengths = [[len(node.content.logprobs) for node in some] for some in nodes]
    shape = len(problems), n
    rewards = np.array([verdict.reward for verdict in verdicts]).reshape(shape)
    return Pool(rewards, np.array(lengths), np.array(answers).reshape(shape), scores, seed)
