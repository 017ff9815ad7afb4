"""What a run depends on, what its experiments are called, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from shlex import quote
from typing import Any

from mechreward.base.errors import MechRewardError, require, unknown_name
from mechreward.base.options import option
from mechreward.experiments.rows import Results
from mechreward.experiments.subject import Subject
from mechreward.tasks import Problem, Task

HOME = ("model", "task")
DEALT = ("test", "ablated", "confidence", "searched")  # what test problems serve, as they are dealt

# Every experiment and its id. Rows, files of stages and printed commands have the id; the command
# line takes either. The ids are ours: the paper does not number its experiments.
EXPERIMENT_IDS = {
    "value_probe": "R1",
    "pruning": "R2",
    "layers": "R3",
    "ablation": "R4",
    "targets": "R5",
    "next_token": "R6",
    "confidence": "R7",
    "td_error": "R8",
    "single_neuron": "R9",
    "dependence": "R10",
    "search": "R11",
    "transfer": "R12",
    "mlp_units": "R13",
    "steering": "R14",
    "early_exit": "early_exit",
    "ablation_by_layer": "ablation_by_layer",
    "certificate": "certificate",
}
ALL = "all"  # every experiment of the paper but those apart
APART = ("R11", "early_exit", "ablation_by_layer", "certificate")  # long, and asked for by name


@dataclass(frozen=True)
class Plan(Subject):
    """Everything a run depends on. Counts are problems; every field but the model and the task is
    an option of `mechreward demo` and `mechreward paper` with the help it carries."""

    seed: int = option(0)
    train: int = option(80, "Problems to fit probes on.")
    validation: int = option(30, "Problems to choose layer and share on.")
    test: int = option(40, "Problems to report on.")
    k: int = option(16, "Continuations for each state's value.")
    ablated: int = option(60, "Test problems for each ablation.")
    confidence: int = option(200, "Test problems for confidence.")
    searched: int = option(150, "Test problems for guided search.")
    draws: int = option(19, "Matched control sets: 19 can reach p = .05, 99 p = .01.")
    random_draws: int = option(2, "Random control sets of each kind.")
    curve_draws: int = option(2, "Random subsets, bases and shuffles at each pruning ratio.")

    def problems(self, task: Task, name: str) -> list[Problem]:
        """Problems of one purpose.

        Parameters
        ----------
        task
            Where the problems come from.
        name
            A split, or `ablated`, `confidence` or `searched`: test problems that no choice has
            seen. The test problems of a seed are dealt out once, so that none serves two purposes.
        """
        size = getattr(self, name)
        if name not in DEALT:
            return task.problems(name, size, self.seed)
        require(size >= 1, f"a task needs at least one problem: n={size} was given.")
        start = 0
        for purpose in DEALT[: DEALT.index(name)]:
            start += getattr(self, purpose)
        # Search is asked for by name: whoever does not needs none of its problems.
        purposes = DEALT if name == DEALT[-1] else DEALT[:-1]
        dealt = sum(getattr(self, purpose) for purpose in purposes)
        try:
            problems = task.problems("test", dealt, self.seed)
        except MechRewardError as error:
            sizes = " + ".join(f"{purpose} {getattr(self, purpose)}" for purpose in purposes)
            raise MechRewardError(f"{error} (These are {sizes}.)") from None
        return problems[start : start + size]


@dataclass(frozen=True)
class CertifyPlan(Subject):
    """Everything that `mechreward certify` depends on, but for the set; each an option with the
    help it carries."""

    model: str = option("countdown-rl", "As for demo.")
    task: str = option("countdown", "As for demo.")
    kind: str = option("resid_post", "What to choose among: resid_post or mlp.")
    seed: int = option(0, "Of problems, answers and draws.")
    train: int = option(80, "Problems to fit on.")
    validation: int = option(30, "Problems to choose layer and share on, if a set is chosen.")
    test: int = option(80, "Problems whose states are read and patched.")
    k: int = option(16, "Continuations for each state's value.")
    n: int = option(200, "Test problems for steering.")
    draws: int = option(99, "Matched sets and other nulls; fewer than 99 cannot pass.")
    pairs: int = option(60, "Pairs of states for patching.")

    @property
    def subject(self) -> dict[str, Any]:
        """What of it is the subject."""
        return {field.name: getattr(self, field.name) for field in fields(Subject)}

    @property
    def sizes(self) -> dict[str, int]:
        """Keywords of `certify`."""
        names = ("seed", "train", "test", "k", "n", "draws", "pairs")
        return {name: getattr(self, name) for name in names}


CERTIFY = CertifyPlan()


@dataclass(frozen=True)
class ConfidencePlan(Subject):
    """Everything that confidence in the answers of a model depends on, but for the set; each an
    option with the help it carries."""

    model: str = option("countdown-rl", "As for demo.")
    task: str = option("countdown", "As for demo.")
    kind: str = option("resid_post", "What to choose among: resid_post or mlp.")
    seed: int = option(0, "Of problems, answers and draws.")
    train: int = option(80, "Problems to fit read-outs and baselines on.")
    validation: int = option(30, "Problems to choose layer and share on, if a set is chosen.")
    k: int = option(16, "Continuations for each state's value.")
    calibration: int = option(100, "Test problems to calibrate and to choose baselines on.")
    test: int = option(200, "Test problems to measure on.")
    answers: int = option(1, "Answers to each problem; from 2 on their agreement is a baseline.")
    draws: int = option(19, "Matched sets, and random ones: 19 can reach p = .05.")

    @property
    def sizes(self) -> dict[str, int]:
        """Keywords of `studies.confident.confident_in`."""
        names = ("seed", "train", "k", "calibration", "test", "answers", "draws")
        return {name: getattr(self, name) for name in names}


CONFIDENCE = ConfidencePlan()


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

# What `mechreward paper` runs where it is not told otherwise; `demo` runs `Plan()`.
PAPER = Plan(
    train=80,
    validation=30,
    test=50,
    k=32,
    ablated=150,
    confidence=300,
    random_draws=2,
    curve_draws=3,
)

# What `paper all` runs on: every bundled model on the task all were trained on, and the mixed one
# on its other tasks.
BUNDLED = (
    ("countdown-base", "countdown"),
    ("countdown-rl", "countdown"),
    ("mixed-rl", "countdown"),
    ("mixed-rl", "chain"),
    ("mixed-rl", "paths"),
)


def experiment_list() -> str:
    """All experiments by name, each with its id, for messages and help."""
    return ", ".join(experiment_name(number) for number in EXPERIMENT_IDS.values())


def experiment_ids(names: Sequence[str]) -> list[str]:
    """Ids of experiments that go by name or by id; `all` stays as it is.

    Raises
    ------
    MechRewardError
        An unknown name; the message has the nearest one, and lists names and ids.
    """
    ids = []
    for name in names:
        # Options of the command line have hyphens, and so may names.
        plain = name.replace("-", "_")
        number = EXPERIMENT_IDS.get(plain, plain)
        if plain.upper() in EXPERIMENT_IDS.values():
            number = plain.upper()
        if number != ALL and number not in EXPERIMENT_IDS.values():
            possible = [*EXPERIMENT_IDS, *EXPERIMENT_IDS.values(), ALL]
            message = unknown_name("experiment", name, possible, f"{experiment_list()}, {ALL}")
            raise MechRewardError(message)
        if number not in ids:
            ids.append(number)
    return ids


def experiment_name(number: str) -> str:
    """The name of an experiment, with the id `number` that it goes by."""
    name = next(name for name, known in EXPERIMENT_IDS.items() if known == number)
    return name if name == number else f"{name} ({number})"


def plan_of(results: Results, model: str, task: str) -> Plan:
    """The plan of a home, as its run left it; the command's own where it left none."""
    run = results.manifest.get("runs", {}).get(f"{model}.{task}")
    if run is None:
        return replace(PAPER, model=model, task=task)
    return Plan(**run["plan"])


def again(results: Results, *names: str) -> str:
    """The command that repeats `names` on all homes of the page."""
    homes = list(dict.fromkeys((row.model, row.task) for row in results.rows))
    return repeat(names, homes, plan_of(results, *homes[0]))


def command(plan: Plan, names: Sequence[str] = ()) -> str:
    """The shell command that repeats a run.

    Parameters
    ----------
    plan
        What the run depends on.
    names
        Ids of the paper's experiments, on the home of the plan; the main job if there are none.
    """
    if names:
        home = [f"--model {quote(plan.model)} --task {quote(plan.task)}"]
        return " ".join(["mechreward paper", *names, *home, *sizes(plan, PAPER)])
    words = ["mechreward demo --out DIR"]
    default = Plan()
    for key in HOME:
        if getattr(plan, key) != getattr(default, key):
            words.append(f"--{key} {quote(getattr(plan, key))}")
    return " ".join(words + sizes(plan, default))


def sizes(plan: Plan, default: Plan) -> list[str]:
    """Options for what differs from `default`, but for the model and the task."""
    words = []
    for key, value in asdict(plan).items():
        if key in HOME or value == getattr(default, key):
            continue
        name = f"--{key.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            words.append(name if one is True else f"{name} {quote(str(one))}")
    return words


def repeat(names: Sequence[str], homes: Sequence[tuple[str, str]], plan: Plan) -> str:
    """The shell command that repeats experiments on several homes.

    Parameters
    ----------
    names
        Ids of experiments.
    homes
        Models and tasks: those of `BUNDLED` with a model, a task or both, or a single home. No
        command names other homes: then the call in Python.
    plan
        Its sizes count, not its model and task.
    """
    model, task = homes[0]
    for only in ((None, None), (None, task), (model, None), (model, task)):
        single = None not in only and len(homes) == 1
        if single or asked(*only) == list(homes):
            words = ["mechreward paper", *names]
            for key, value in zip(HOME, only, strict=True):
                if value is not None:
                    words.append(f"--{key} {quote(value)}")
            return " ".join(words + sizes(plan, PAPER))
    return f"mechreward.studies.paper.reproduce({list(names)}, 'DIR', {list(homes)}, {plan})"


def asked(model: str | None, task: str | None) -> list[tuple[str, str]]:
    """The homes of `BUNDLED` with this model and this task; None stands for any."""
    return [home for home in BUNDLED if model in (None, home[0]) and task in (None, home[1])]
