"""A guided search in a folder: neurons chosen if none are given, finished problems kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechreward.base.code import run_file
from mechreward.base.errors import MechRewardError, one_of, unknown_name
from mechreward.base.files import held
from mechreward.base.options import option
from mechreward.experiments.choice import KINDS, find
from mechreward.experiments.subject import Subject
from mechreward.models.shards import kept_in
from mechreward.probing.neurons import NeuronSet
from mechreward.studies.folder import PARTS, WORTH
from mechreward.tasks import Problem, Task
from mechreward.uses.search.algorithms import UNSCORED
from mechreward.uses.search.search import NAMED, Given, Search, search

CHOSEN = ("dopamine", "value")  # neurons that are chosen on the task itself


@dataclass(frozen=True)
class SearchPlan(Subject):
    """Everything that `mechreward search` depends on; each an option with the help it carries."""

    scorer: str = option(
        "dopamine",
        "What chooses: dopamine, value (neurons, chosen here or given by --neurons), random, "
        "logprob, self_certainty, length, oracle, or FILE.py:FUNCTION of prompt and steps.",
    )
    algorithm: str = option(
        "beam",
        "greedy, random, best_of_n, weighted, majority, adaptive, beam, diverse, particles.",
    )
    candidates: int = option(4, "Candidates of each step, or answers.")
    width: int = option(1, "Beams that are kept, or trees.")
    budget: int | None = option(None, "Generated tokens a problem, dropped ones included.")
    combine: str = option("last", "Steps' scores become one: last, min, mean, product, sum.")
    block: int | None = option(None, "Tokens of a step; as the task cuts them if not given.")
    split: str = option("test", "Problems to search: train, validation or test.")
    n: int = option(100, "How many.")
    seed: int = option(0, "Of problems and random numbers.")
    kind: str = option("resid_post", "Neurons to choose among: resid_post or mlp.")
    train: int = option(80, "Problems to choose neurons on, if none are given.")
    validation: int = option(30, "Problems to choose layer and share on, likewise.")
    k: int = option(16, "Continuations for each state's value, likewise.")
    timeout: float = option(60.0, "Seconds that one call of a function may take.")

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of `search`."""
        names = ("algorithm", "width", "budget", "combine", "block", "seed", "timeout")
        settings = {name: getattr(self, name) for name in names}
        return {"k": self.candidates, "policy": self.policy, **settings}


SEARCH = SearchPlan()


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
    if plan.algorithm in UNSCORED:
        return None
    name = plan.scorer
    if name in (*CHOSEN, *NAMED):
        return name
    path, _, inside = name.rpartition(":")
    if not path.endswith(".py"):
        every = [*CHOSEN, *NAMED]
        listed = f"{', '.join(every)}, FILE.py:FUNCTION"
        raise MechRewardError(unknown_name("scorer", name, every, listed))
    module = run_file(Path(path).expanduser())
    functions = [key for key, value in vars(module).items() if callable(value)]
    one_of(f"function of {path}", inside, functions)
    return getattr(module, inside)


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
