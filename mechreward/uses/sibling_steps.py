"""Sibling steps: drawn at states of rollouts, scored by several scorers, and their V-hat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mechreward.base.errors import of_kind, require
from mechreward.base.streams import rng
from mechreward.models.identity import model_id
from mechreward.models.policy import Policy
from mechreward.models.text import decode, joined_pieces
from mechreward.rollouts.continuations import State, answer
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts, check_distinct, task_of
from mechreward.tasks import Problem, Task
from mechreward.tasks.judge import check_problems, judge
from mechreward.uses.search import readouts
from mechreward.uses.search.pool import Several
from mechreward.uses.search.sampler import Partial, Sampler
from mechreward.uses.search.scorers import LogProbability, Scorer
from mechreward.uses.search.search import Given, scorer_of
from mechreward.uses.search.tree import Ask, Node, Purse

TAKEN = ("chance", "other half")  # lines of their own in a table of rates
# Columns of their own in the table of steps.
COLUMNS = ("state", "problem_id", "step", "candidate", "text", "first", "second", "n")


def panel_of(scorers: Mapping[str, Scorer], model: Any) -> Several:
    """Scorers of the same steps.

    Raises
    ------
    MechRewardError
        One that knows whole answers only, or reads another model.
    """
    identity = model_id(model)
    for name, scorer in scorers.items():
        require(not scorer.whole, f"{name} knows whole answers only, and siblings are steps.")
        if isinstance(scorer, readouts.Readout):
            readouts.check_place(scorer, identity, model)
    return Several(scorers)


def by_name(given: Mapping[str, Given] | Sequence[Given] | Given) -> dict[str, Scorer]:
    """The scorers, log-probability among them.

    Raises
    ------
    MechRewardError
        What `search` would not take for a scorer, or two of one name.
    """
    scorers: dict[str, Scorer] = {}
    pairs: list[tuple[str, Any]] = []
    if isinstance(given, Mapping):
        pairs += given.items()
    else:
        listed = given if isinstance(given, list | tuple) else [given]
        pairs += [("", scorer) for scorer in listed]
    for name, some in pairs:
        scorer = scorer_of(some)
        require(scorer is not None, "None is no scorer.")
        if scorer is not None:
            name = name or scorer.name
            of_kind("the name of a scorer", name, str)
            taken = name in scorers or name in (*TAKEN, *COLUMNS)
            require(
                not taken,
                f"the name {name!r} is taken: give scorers as a mapping, each under its own name.",
            )
            scorers[name] = scorer
    if not any(isinstance(scorer, LogProbability) for scorer in scorers.values()):
        scorers.setdefault(LogProbability.name, LogProbability())
    return scorers


def answered(
    model: Any,
    given: Rollouts | Sequence[Problem],
    states: int,
    seed: int,
    policy: Policy | None,
    batch: int,
    progress: bool | str,
) -> Rollouts:
    """Rollouts that states can be drawn from: those given, or answers to some of the problems.

    Parameters
    ----------
    given : Rollouts or sequence of Problem
        Of the model; or of one task.
    states : int
        How many problems are answered at most, drawn by name.

    Raises
    ------
    MechRewardError
        Rollouts of another model, no problems, or a task without a verifier.
    """
    problems = given.problems if isinstance(given, Rollouts) else given
    task = task_of(problems)
    require(task.verifies, f"what a step is worth is verified, and {task.name} has no verifier.")
    check_problems(task, problems)
    if isinstance(given, Rollouts):
        given.model_id.check(model_id(model), "set of rollouts")
        return given
    check_distinct(problems)
    some = rng("siblings: problems", seed).permutation(len(problems))[:states]
    chosen = [problems[number] for number in sorted(some)]
    return sample(model, chosen, seed=seed, policy=policy, batch=batch, progress=progress)


def places_of(runs: Rollouts, states: int, seed: int, limit: int) -> list[tuple[int, int]]:
    """(trajectory, step) of the states: one a problem, where the answer goes on and has room.

    Parameters
    ----------
    runs : Rollouts
        Several answers to a problem are one problem.
    states : int
        How many at most.
    seed : int
        Of the draw.
    limit : int
        Tokens of an answer.
    """
    live: dict[int, list[tuple[int, int]]] = {}
    for number, (run, group) in enumerate(zip(runs, runs.groups, strict=True)):
        for step, end in enumerate(run.step_ends[:-1]):
            if end + 1 - run.prompt_len < limit:
                live.setdefault(group, []).append((number, step))
    groups = list(live)
    order = rng("siblings: groups", seed).permutation(len(groups))[:states]
    places = []
    for number in sorted(order):
        some = live[groups[number]]
        problem = runs.problems[some[0][0]]
        pick = rng("siblings: state", seed, problem.id).integers(len(some))
        places.append(some[pick])
    return places


class Step(NamedTuple):
    """A sibling.

    Attributes
    ----------
    state : int
        Number of the state that it follows.
    problem : Problem
        Of the state.
    prompt_len : int
        Tokens of the prompt.
    node : Node
        What it leads to; the last part of its path is its number among those drawn.
    text : str
        The step alone.
    scores : list of float
        [scorer] in the order of the panel.
    """

    state: int
    problem: Problem
    prompt_len: int
    node: Node
    text: str
    scores: list[float]


def drawn_at(
    model: Any,
    runs: Rollouts,
    places: Sequence[tuple[int, int]],
    panel: Several,
    k: int,
    seed: int,
    policy: Policy,
    batch: int,
) -> list[Step]:
    """The siblings of every state, scored: `k` drawn at each, without copies and empty steps.

    Raises
    ------
    MechRewardError
        A scorer that fails, or nothing but empty steps.
    """
    problems = [runs.problems[run] for run, _ in places]
    task = task_of(problems)
    sampler = Sampler(
        model,
        problems,
        task,
        panel,
        policy=policy,
        block=None,
        seed=seed,
        purses=[Purse() for _ in problems],
        batch=batch,
        purpose="siblings",
    )
    # As the rollouts have them, whoever wrote those.
    sampler.prompts = [runs[run].tokens[: runs[run].prompt_len] for run, _ in places]
    asks = []
    for state, (number, step) in enumerate(places):
        run = runs[number]
        end = run.step_ends[step] + 1
        pieces = joined_pieces(model, run.tokens)
        said = ["".join(pieces[run.span(i)]) for i in range(1, step + 1)]
        content = Partial(run.tokens[:end], run.logprobs[: end - run.prompt_len], tuple(said))
        room = policy.limit(task) - (end - run.prompt_len)
        node = Node((run.sample, step), room, False, content=content)
        asks.append((state, Ask(node, k)))
    steps = []
    for state, children in enumerate(sampler.expand(asks)):
        if state in sampler.faults:
            raise sampler.faults[state]
        known = set()
        for node in children:
            tokens = tuple(node.content.tokens.tolist())
            given = panel.given.get((problems[state].id, node.path))
            if given is None or tokens in known:
                continue
            known.add(tokens)
            prompt_len = len(sampler.prompts[state])
            text = node.content.steps[-1]
            scores = [score for (score,) in given.values()]
            steps.append(Step(state, problems[state], prompt_len, node, text, scores))
    require(len(steps) > 0, "no step was drawn that says anything.")
    return steps


def worth_of(
    model: Any,
    task: Task,
    steps: Sequence[Step],
    continuations: int,
    seed: int,
    policy: Policy,
    batch: int,
    progress: bool | str,
) -> tuple[
    Float[np.ndarray, " row"],
    Float[np.ndarray, " row"],
    Int[np.ndarray, " row"],
]:
    """V-hat after every step from either half, and the number of continuations.

    Where the step ended the answer it is the verified reward, and their number is 0.
    """
    over = np.array([step.node.ended for step in steps])
    first = np.zeros(len(steps))
    ended = [step for step in steps if step.node.ended]
    if ended:
        problems = [step.problem for step in ended]
        texts = [decode(model, step.node.content.tokens[step.prompt_len :]) for step in ended]
        finished = [step.node.content.finished for step in ended]
        verdicts = judge(task, problems, texts, finished)
        first[over] = [verdict.reward for verdict in verdicts]
    second = first.copy()
    jobs = []
    for step in steps:
        if step.node.ended:
            continue
        state = State(step.problem, step.node.content.tokens, step.prompt_len)
        for j in range(continuations):
            key = ("siblings: value", seed, step.problem.id, *step.node.path, j)
            jobs.append((state, (), key))
    if jobs:
        made = answer(model, jobs, policy=policy, batch=batch, progress=progress)
        rewards = made.reward.reshape(-1, continuations)
        half = continuations - continuations // 2
        first[~over] = rewards[:, :half].mean(1)
        second[~over] = rewards[:, half:].mean(1)
    return first, second, np.where(over, 0, continuations)
