"""What a run depends on, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from mechreward.base.errors import require
from mechreward.experiments.rows import Results
from mechreward.tasks import Problem, Task


def plan_of(results: Results, model: str, task: str) -> Plan:
    """The plan of a home, as its run left it; the command's own where it left none."""
    run = results.manifest.get("runs", {}).get(f"{model}.{task}")
    return replace(PAPER, model=model, task=task) if run is None else Plan(**run["plan"])


def again(results: Results, *names: str) -> str:
    """The command that repeats `names` on all homes of the page, for a line of its own."""
    homes = list(dict.fromkeys((row.model, row.task) for row in results.rows))
    return f"`{repeat(names, homes, plan_of(results, *homes[0]))}`"


HOME = ("model", "task")
DEALT = ("test", "ablated", "confidence")  # what test problems serve, in the order they are dealt


@dataclass(frozen=True)
class Plan:
    """Everything a run depends on. Counts are problems; `k` continuations estimate each state's
    value."""

    model: str = "countdown-rl"
    task: str = "countdown"
    seed: int = 0
    train: int = 80
    validation: int = 30
    test: int = 40
    k: int = 16
    ablated: int = 60
    confidence: int = 200
    draws: int = 19
    random_draws: int = 2
    curve_draws: int = 2

    def problems(self, task: Task, name: str) -> list[Problem]:
        """The problems of a split, or of the `ablated` or `confidence` ones: test problems that no
        choice has seen.

        All test problems of a seed are dealt out once, so that none serves two purposes.
        """
        if name not in DEALT:
            return task.problems(name, getattr(self, name), self.seed)
        sizes = [getattr(self, purpose) for purpose in DEALT]
        for purpose, size in zip(DEALT, sizes, strict=True):
            require(
                size >= 1, f"{purpose} counts problems and must be at least 1; {size} was given."
            )
        start = sum(sizes[: DEALT.index(name)])
        return task.problems("test", sum(sizes), self.seed)[start : start + getattr(self, name)]


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


def command(plan: Plan, names: Sequence[str] = ()) -> str:
    """The shell command that repeats a run: of the paper's experiments `names` on one home, or of
    the main job."""
    if names:
        return " ".join(
            [
                "mechreward paper",
                *names,
                f"--model {plan.model} --task {plan.task}",
                *sizes(plan, PAPER),
            ]
        )
    home = [
        f"--{key} {getattr(plan, key)}"
        for key in HOME
        if getattr(plan, key) != getattr(Plan(), key)
    ]
    return " ".join(["mechreward demo --out DIR", *home, *sizes(plan, Plan())])


def sizes(plan: Plan, default: Plan) -> list[str]:
    """Options for what differs from `default`, but for the model and the task."""
    given = [(key, value) for key, value in asdict(plan).items() if key not in HOME]
    return [
        f"--{key.replace('_', '-')} {value}"
        for key, value in given
        if value != getattr(default, key)
    ]


# What `paper all` runs on: every bundled model on the task all were trained on, and the mixed one
# on its other tasks.
BUNDLED = (
    ("countdown-base", "countdown"),
    ("countdown-rl", "countdown"),
    ("mixed-rl", "countdown"),
    ("mixed-rl", "chain"),
    ("mixed-rl", "paths"),
)


def repeat(names: Sequence[str], homes: Sequence[tuple[str, str]], plan: Plan) -> str:
    """The shell command that repeats `names` on `homes` with the sizes of `plan`: those of
    `BUNDLED` with a model, a task or both, or one home. No command names other homes: then the call
    in Python."""
    models, tasks = (list(dict.fromkeys(home[i] for home in homes)) for i in (0, 1))
    for model in (None, models[0]):
        for task in (None, tasks[0]):
            if asked(model, task) == list(homes) or (model and task and len(homes) == 1):
                named = [
                    f"--{key} {value}" for key, value in (("model", model), ("task", task)) if value
                ]
                return " ".join(["mechreward paper", *names, *named, *sizes(plan, PAPER)])
    return f"mechreward.studies.paper.reproduce({list(names)}, 'DIR', {list(homes)}, {plan})"


def asked(model: str | None, task: str | None) -> list[tuple[str, str]]:
    """The homes of `BUNDLED` with this model and this task; None stands for any."""
    return [home for home in BUNDLED if model in (None, home[0]) and task in (None, home[1])]
