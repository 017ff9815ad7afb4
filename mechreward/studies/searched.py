"""A guided search in a folder: neurons chosen if none are given, finished problems kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechreward.base.code import run_file
from mechreward.base.errors import MechRewardError, one_of, require, unknown_name, whole
from mechreward.base.files import held
from mechreward.experiments.choice import KINDS, find
from mechreward.experiments.plan import SearchPlan
from mechreward.models.shards import kept_in
from mechreward.probing.neurons import NeuronSet
from mechreward.studies.folder import PARTS, WORTH
from mechreward.tasks import Problem, Task
from mechreward.uses.search.algorithms import UNSCORED
from mechreward.uses.search.search import NAMED, Given, Search, search

CHOSEN = ("dopamine", "value")  # neurons that are chosen on the task itself


def search_in(
    out: Path,
    model: Any,
    task: Task,
    plan: SearchPlan,
    neurons: NeuronSet | None = None,
) -> Search:
    """Search problems of a task, and keep what is finished, the neurons and the outcome.

    Parameters
    ----------
    out : Path
        The folder.
    model, task
        As the plan opens them.
    plan : SearchPlan
        Everything else.
    neurons : NeuronSet or None, default None
        The neurons that choose; None: chosen here where the plan's scorer is a kind of them.

    Raises
    ------
    MechRewardError
        As `search`, or neurons beside another scorer.
    """
    given = _scorer(plan)
    whole("candidates", plan.candidates, 1, "candidates of each step or answers")
    require(
        neurons is None or plan.algorithm not in UNSCORED,
        f"--algorithm {plan.algorithm} looks at no score: leave --neurons away.",
    )
    if neurons is not None and given not in CHOSEN:
        raise MechRewardError(
            f"--neurons goes with --scorer {' or '.join(CHOSEN)}; --scorer {plan.scorer} was given."
        )
    with held(out / "search.json", wait=False):
        scorer: Given | None = given
        if given in CHOSEN:
            scorer = neurons or _choose(out, model, task, plan)
        made = search(model, _problems(task, plan), scorer, out=out / "problems", **plan.settings)
        made.save(out)
        made.to_csv(out / "search.csv")
    return made


def _problems(task: Task, plan: SearchPlan) -> Sequence[Problem]:
    return task.problems(plan.split, plan.n, plan.seed)


def _scorer(plan: SearchPlan) -> Given | None:
    """The scorer that the plan names; a kind of neurons stays a name."""
    name = plan.scorer
    if name in (*CHOSEN, *NAMED):
        return None if plan.algorithm in UNSCORED else name
    path, _, inside = name.rpartition(":")
    if not path.endswith(".py"):
        every = [*CHOSEN, *NAMED]
        listed = f"{', '.join(every)}, FILE.py:FUNCTION"
        raise MechRewardError(unknown_name("scorer", name, every, listed))
    module = run_file(Path(path).expanduser())
    functions = [key for key, value in vars(module).items() if callable(value)]
    one_of(f"function of {path}", inside, functions)
    return None if plan.algorithm in UNSCORED else getattr(module, inside)


def _choose(out: Path, model: Any, task: Task, plan: SearchPlan) -> NeuronSet:
    """Neurons chosen on training and validation problems, kept with what they were chosen on."""
    one_of("kind of neuron", plan.kind, KINDS)
    with kept_in(out / f".neurons{PARTS}", WORTH):
        neurons = find(
            model,
            task,
            plan.kind,
            of=plan.scorer,
            seed=plan.seed,
            train=plan.train,
            validation=plan.validation,
            k=plan.k,
            layers=plan.layer_numbers(model),
            policy=plan.policy,
        )
    neurons.save(out / "neurons.json")
    return neurons
