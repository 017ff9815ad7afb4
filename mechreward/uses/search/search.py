"""Guided search: `search` lets a scorer choose among a model's steps or answers; `Search` is what
came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechreward.base import streams
from mechreward.base.errors import MechRewardError, finite, of_kind, one_of, require, whole
from mechreward.base.files import read_json, write_json
from mechreward.base.frames import Framed
from mechreward.base.progress import bar
from mechreward.models.checks import check_model
from mechreward.models.identity import ModelId, model_id
from mechreward.models.policy import Policy
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.rollouts.steps import step_ends
from mechreward.rollouts.trajectory import Rollouts, Trajectory, check_distinct, task_of
from mechreward.tasks import Problem, Task
from mechreward.tasks.base import Verdict
from mechreward.tasks.judge import check_problems, judge
from mechreward.uses.search import readouts
from mechreward.uses.search.algorithms import ALGORITHMS, UNSCORED, VOTES, WHOLE
from mechreward.uses.search.kept import Kept, code_of, told
from mechreward.uses.search.ledger import Ledger
from mechreward.uses.search.reward_model import RewardModel
from mechreward.uses.search.sampler import Sampler
from mechreward.uses.search.scorers import (
    Chance,
    Length,
    LogProbability,
    Oracle,
    Outside,
    Scorer,
    SelfCertainty,
)
from mechreward.uses.search.tree import COMBINE, Node, Options, Purse, explore

NAMED: dict[str, type[Scorer]] = {
    kind.name: kind for kind in (Chance, LogProbability, SelfCertainty, Length, Oracle)
}
Given = Scorer | NeuronSet | ValueProbe | DopamineProbe | str | Callable[..., Any]
LONGEST = 86_400  # seconds that one call may take: a day
UNJUDGED = Verdict("unverifiable", "the task has no verifier")


@dataclass(frozen=True)
class Search(Framed):
    """Answers that a search chose, one a problem, and what they cost.

    Attributes
    ----------
    algorithm : str
        Its name.
    scorer : str
        Name of the scorer; "" where none was asked.
    k, width : int
        Candidates of a step or answers; beams or trees.
    budget : int or None
        Generated tokens that a problem might cost.
    combine : str
        How scores of steps became one of an answer.
    rollouts : Rollouts
        The chosen answers.
    scores : tuple of float
        [problem] combined score of each; NaN without a scorer.
    ledgers : tuple of Ledger
        [problem] what each cost.
    trained : int
        Generated tokens that the making of the scorer cost.
    judged : bool
        Whether the task verified the answers.
    rewards : array [problem]
        Verified reward, NaN without a verifier.
    ledger : Ledger
        All problems' together.
    """

    algorithm: str
    scorer: str
    k: int
    width: int
    budget: int | None
    combine: str
    rollouts: Rollouts = field(repr=False)
    scores: tuple[float, ...] = field(repr=False)
    ledgers: tuple[Ledger, ...] = field(repr=False)
    trained: int = 0
    judged: bool = True

    def __repr__(self) -> str:
        by = f" by {self.scorer}" if self.scorer else ""
        right = f", accuracy {self.rewards.mean():.3f}" if self.judged else ", not judged"
        mean = self.ledger.generated / len(self.ledgers)
        return (
            f"Search({self.algorithm}{by}, {len(self.ledgers)} problems{right}, "
            f"{mean:.0f} tokens a problem)"
        )

    @property
    def rewards(self) -> Float[np.ndarray, " problem"]:
        """Verified reward of each answer; NaN without a verifier."""
        if not self.judged:
            return np.full(len(self.rollouts), np.nan)
        return np.array(self.rollouts.rewards, dtype=float)

    @property
    def ledger(self) -> Ledger:
        """All problems' together."""
        return Ledger.total(self.ledgers)

    def frame(self) -> pd.DataFrame:
        """A line a problem: reward, score, and the ledger."""
        lines = []
        for number, run in enumerate(self.rollouts):
            line = {
                "problem_id": run.problem_id,
                "algorithm": self.algorithm,
                "scorer": self.scorer,
                "k": self.k,
                "width": self.width,
                "seed": self.rollouts.seed,
                "reward": self.rewards[number],
                "score": self.scores[number],
                **asdict(self.ledgers[number]),
                "trained": self.trained,
            }
            lines.append(line)
        return pd.DataFrame(lines)

    def save(self, folder: Path | str) -> Path:
        """A folder: the rollouts, and the rest as JSON."""
        folder = Path(folder)
        self.rollouts.save(folder / "rollouts.safetensors")
        about = {
            "kind": "search",
            "algorithm": self.algorithm,
            "scorer": self.scorer,
            "k": self.k,
            "width": self.width,
            "budget": self.budget,
            "combine": self.combine,
            "scores": [None if np.isnan(score) else score for score in self.scores],
            "ledgers": [ledger.to_json() for ledger in self.ledgers],
            "trained": self.trained,
            "judged": self.judged,
        }
        write_json(folder / "search.json", about)
        return folder

    @classmethod
    def load(cls, folder: Path | str, task: Task | None = None) -> Search:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            A file is missing, damaged, or holds something else.
        """
        path = Path(folder) / "search.json"
        about = read_json(path, "search")
        require(about.pop("kind", None) == "search", f"{path} holds no search.")
        rollouts = Rollouts.load(Path(folder) / "rollouts.safetensors", task)
        try:
            scores = [np.nan if score is None else score for score in about.pop("scores")]
            ledgers = [Ledger(**ledger) for ledger in about.pop("ledgers")]
            return cls(rollouts=rollouts, scores=tuple(scores), ledgers=tuple(ledgers), **about)
        except (KeyError, TypeError) as error:
            raise MechRewardError(f"{path} is a damaged search: {error!r}.") from error


def scorer_of(given: Given | None, timeout: int | float = 60.0) -> Scorer | None:
    """What a user may give for a scorer, as one.

    Raises
    ------
    MechRewardError
        Something else, a name that is not known, or neurons or a probe that cannot score.
    """
    if given is None or isinstance(given, Scorer):
        return given
    if isinstance(given, str):
        neurons = given in ("dopamine", "value")
        require(not neurons, f"{given} neurons are given as a NeuronSet (mr.select), not by name.")
        one_of("scorer", given, NAMED)
        return NAMED[given]()
    if isinstance(given, NeuronSet):
        return readouts.of_neurons(given)
    if isinstance(given, ValueProbe | DopamineProbe):
        return readouts.of_probe(given)
    if isinstance(given, RewardModel):
        return given.scorer(float(timeout))
    if not callable(given):
        raise readouts.refuse(given)
    name = getattr(given, "__name__", None) or type(given).__name__
    return Outside(str(name), given, float(timeout), mark=code_of(given))


def search(
    model: Any,
    problems: Sequence[Problem],
    scorer: Given | None = None,
    *,
    algorithm: str = "beam",
    k: int = 4,
    width: int = 1,
    budget: int | None = None,
    combine: str = "last",
    block: int | None = None,
    seed: int = 0,
    policy: Policy | None = None,
    batch: int = 256,
    timeout: int | float = 60.0,
    out: Path | str | None = None,
    progress: bool | str = True,
) -> Search:
    """Answer problems by search: a scorer chooses among candidates.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    problems : sequence of Problem
        Of one task. A task without a verifier (`Task.verifies` is False) is searched as well; the
        rewards are NaN then.
    scorer : NeuronSet, probe, str, callable, Scorer or None, default None
        What scores a step. Neurons and probes are read in the generating pass (`readouts`). Names:
        "random", "logprob", "self_certainty", "length", "oracle". A callable is
        `score(prompt, steps) -> list of float`, such as a process reward model (`RewardModel` loads
        one). None where the algorithm looks at no score.
    algorithm : str, default "beam"
        "greedy", "random", "best_of_n", "weighted", "majority", "adaptive" (whole answers), "beam",
        "diverse", "particles" (step by step); see `algorithms`.
    k : int, default 4
        Candidates of each step (the paper has 4), answers, or particles.
    width : int, default 1
        Beams that are kept, or trees.
    budget : int or None, default None
        Generated tokens that a problem may cost, dropped candidates included; never exceeded. None:
        no limit.
    combine : {"last", "min", "mean", "product", "sum"}, default "last"
        How the scores of an answer's steps become one.
    block : int or None, default None
        Tokens of a step; None: steps as the task cuts them.
    seed : int, default 0
        Part of the name of all random numbers. Whole answers are those of `sample(..., seed=)`.
    policy : Policy or None, default None
        How tokens are drawn; the model's own distribution if None.
    batch : int, default 256
        Rows decoded at once. Problems are searched side by side, about `batch / k` at a time.
    timeout : float, default 60.0
        Seconds that one call of a callable may take.
    out : Path or str or None, default None
        Folder that keeps finished problems: stopped and called again, the search goes on. A
        function goes by its name and its own code there, not by what it calls.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    Search

    Raises
    ------
    MechRewardError
        Before any work: no problems, an unknown algorithm, scorer or `combine`, k or width < 1, a
        budget under one answer, a scorer of another model, no scorer where one is needed, votes on
        a task whose answers cannot be compared, the oracle without a verifier or step by step.
        Later: a scorer that fails, hangs, or gives what are no scores, with its name and the
        problem; problems that are finished stay in `out`.
    """
    check_model(model)
    task = task_of(problems)
    check_distinct(problems)
    if task.verifies:
        check_problems(task, problems)
    policy = Policy() if policy is None else policy
    of_kind("policy", policy, Policy)
    one_of("algorithm", algorithm, ALGORITHMS)
    one_of("way to combine scores", combine, COMBINE)
    k = whole("k", k, 1, "candidates of each step or answers")
    width = whole("width", width, 1, "beams that are kept")
    seed = whole("seed", seed)
    batch = whole("batch", batch, 1, "rows decoded at once")
    if block is not None:
        block = whole("block", block, 1, "tokens of a step")
    limit = policy.limit(task)
    if budget is not None:
        budget = whole("budget", budget, 1, "generated tokens a problem")
        require(
            budget >= limit,
            f"budget={budget} is under one answer, which may take {limit} tokens: give more, or "
            "lower max_tokens of the policy.",
        )
    timeout = finite("timeout", timeout)
    require(
        0 < timeout <= LONGEST,
        f"timeout={timeout:g}: seconds above 0 and at most {LONGEST} (a day).",
    )
    judge_of = scorer_of(scorer, timeout)
    identity = model_id(model)
    _check(judge_of, algorithm, task, problems[0], identity, model)
    plan = _Plan(model, task, judge_of, algorithm, k, width, budget, combine, block, seed, policy)
    kept = Kept(out, plan.decides(identity), combine)
    size = max(1, batch // (k * width))
    with bar(progress, "search", "problem", total=len(problems)) as shown:
        left = [problem for problem in problems if not kept.has(problem)]
        shown.update(len(problems) - len(left))
        for start in range(0, len(left), size):
            some = left[start : start + size]
            fault = plan.run(some, batch, kept)
            if fault is not None:
                done = sum(kept.has(problem) for problem in problems)
                where = f"kept in {out}" if out is not None else "finished; out= would keep them"
                raise MechRewardError(f"{fault} {done} of {len(problems)} problems are {where}.")
            shown.update(len(some))
    return plan.gather(problems, kept, identity)


def _check(
    scorer: Scorer | None,
    algorithm: str,
    task: Task,
    problem: Problem,
    identity: ModelId,
    model: Any,
) -> None:
    """Raise MechRewardError for what does not go together."""
    if algorithm in UNSCORED:
        require(
            scorer is None,
            f"{algorithm} looks at no score: leave the scorer out, or take best_of_n or beam.",
        )
    else:
        names = ", ".join(NAMED)
        require(
            scorer is not None,
            f"{algorithm} needs a scorer: neurons, a probe, a function, or one of {names}.",
        )
    if algorithm in VOTES:
        require(
            task.answer(task.solve(problem)) is not None,
            f"{algorithm} counts equal answers, and those of {task.name} cannot be compared: "
            "its `answer` reads none.",
        )
    if isinstance(scorer, Oracle):
        require(task.verifies, f"the oracle asks the verifier, and {task.name} has none.")
    if scorer is not None and scorer.whole:
        require(
            algorithm in WHOLE,
            f"{scorer.name} knows whole answers only: {algorithm} asks about steps.",
        )
    if isinstance(scorer, readouts.Readout):
        readouts.check_place(scorer, identity, model)


@dataclass(frozen=True, eq=False)
class _Plan:
    """One search, whatever the problems."""

    model: Any
    task: Task
    scorer: Scorer | None
    algorithm: str
    k: int
    width: int
    budget: int | None
    combine: str
    block: int | None
    seed: int
    policy: Policy

    def decides(self, identity: ModelId) -> tuple[str, ...]:
        """All that decides an answer, but for the problem, as text."""
        numbers = (self.k, self.width, self.budget, self.block, self.seed)
        return (
            repr(identity),
            repr(self.policy),
            self.task.name,
            told(self.scorer),
            self.algorithm,
            self.combine,
            repr(numbers),
        )

    def run(self, problems: Sequence[Problem], batch: int, kept: Kept) -> MechRewardError | None:
        """Search these problems and keep what is finished; returns what went wrong, if it did."""
        purses = [Purse() if self.budget is None else Purse(self.budget) for _ in problems]
        sampler = Sampler(
            self.model,
            problems,
            self.task,
            self.scorer,
            policy=self.policy,
            block=self.block,
            seed=self.seed,
            purses=purses,
            batch=batch,
        )
        plans = []
        for number, problem in enumerate(problems):
            options = self.options(sampler, number, problem)
            plans.append(ALGORITHMS[self.algorithm](sampler.root(number), options, purses[number]))

        def keep(number: int, node: Node) -> None:
            if number not in sampler.faults:
                kept.save(problems[number], node, sampler.ledgers[number])

        explore(plans, sampler.expand, keep)
        return next(iter(sampler.faults.values()), None)

    def options(self, sampler: Sampler, number: int, problem: Problem) -> Options:
        """What the algorithm is told about one problem."""

        def answer(node: Node) -> str | None:
            return self.task.answer(sampler.text(node, number))

        def uniform(round_: int) -> float:
            return float(streams.rng("search: resample", self.seed, problem.id, round_).random())

        return Options(
            self.k,
            self.width,
            COMBINE[self.combine],
            bool(self.scorer and self.scorer.bounded),
            answer,
            lambda node: tuple(node.content.tokens.tolist()),
            uniform,
        )

    def gather(self, problems: Sequence[Problem], kept: Kept, identity: ModelId) -> Search:
        """What was kept of all problems, verified."""
        made = [kept.of(problem) for problem in problems]
        verdicts = [UNJUDGED] * len(made)
        texts = ["".join(partial.steps) for partial, _, _ in made]
        ended = [partial.finished for partial, _, _ in made]
        if self.task.verifies:
            verdicts = judge(self.task, problems, texts, ended)
        runs, scores, ledgers = [], [], []
        for problem, verdict, (partial, score, ledger) in zip(
            problems, verdicts, made, strict=True
        ):
            prompt_len = len(partial.tokens) - len(partial.logprobs)
            ends, _ = step_ends(self.model, self.task, partial.tokens, prompt_len)
            run = Trajectory(
                problem_id=problem.id,
                tokens=partial.tokens,
                prompt_len=prompt_len,
                step_ends=ends,
                verdict=verdict,
                logprobs=partial.logprobs,
                ended=partial.finished,
                seed=self.seed,
            )
            runs.append(run)
            scores.append(score)
            ledgers.append(ledger)
        rollouts = Rollouts(tuple(runs), tuple(problems), self.policy, identity, self.seed)
        name = self.scorer.name if self.scorer else ""
        return Search(
            self.algorithm,
            name,
            self.k,
            self.width,
            self.budget,
            self.combine,
            rollouts,
            tuple(scores),
            tuple(ledgers),
            self.scorer.trained if self.scorer else 0,
            self.task.verifies,
        )
