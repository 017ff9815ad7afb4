"""What a run will ask of this machine, and what it could show, before it is begun."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import MechRewardError, of_kind, one_of, require, shown, whole
from mechreward.base.progress import duration
from mechreward.causal.certificate import certify
from mechreward.causal.effect import ABLATIONS, ablate
from mechreward.causal.verdict import LEVEL
from mechreward.experiments.plan import CertifyPlan, Plan, experiment_name
from mechreward.models.policy import Policy
from mechreward.models.site import Site, all_sites
from mechreward.probing.activations import ROWS, record
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.adaptive import AdaptiveK
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts, task_of
from mechreward.rollouts.value import estimate
from mechreward.studies import work
from mechreward.studies.pace import BATCH, Pace, some_problems, trial
from mechreward.studies.study import check_plan
from mechreward.studies.work import Sizes, Span
from mechreward.tasks import Problem, Task

# What verbs take: sizes with their least, and nouns.
SIZES = {"k": 1, "draws": 0, "random_draws": 0, "train": 1, "test": 1, "n": 1, "pairs": 1}
KINDS: dict[str, tuple[Any, str]] = {
    "problems": ((list, tuple), "task.problems('test', 100) gives some"),
    "runs": (Rollouts, "sample makes them of problems"),
    "neurons": (NeuronSet, "select makes one of a probe; NeuronSet.load reads a file"),
    "task": (Task, "tasks.get makes one of a name"),
}
FLOAT = 4  # bytes
ROUNDS = 3  # of an adaptive estimate; few states need more
MAIN = ("R1", "R2", "R4", "R7", "R8")  # of `mechreward demo`; the choice of layers is R3's


@dataclass(frozen=True)
class Forecast:
    """What a run will do and cost on this machine. Nothing but the trial was run.

    Attributes
    ----------
    what : str
        The run.
    parts : mapping of str to (Work, Work)
        Of every stage, the least and the most that it asks for: some stop by themselves.
    pace : Pace
        Of the trial.
    memory : int | float
        Bytes at most, of the weights, the keys and values, and the activations.
    disk : int | float
        Bytes of what is kept, about.
    effect : str
        What could be seen.
    """

    what: str
    parts: Mapping[str, Span] = field(repr=False)
    pace: Pace
    memory: int | float
    disk: int | float
    effect: str

    @property
    def seconds(self) -> tuple[float, float]:
        """At least and at most, of all parts."""
        least, most = work.total(self.parts.values())
        return self.pace.seconds(least), self.pace.seconds(most)

    @property
    def rollouts(self) -> tuple[float, float]:
        """Answers, whole ones and continuations, at least and at most."""
        least, most = work.total(self.parts.values())
        return float(least.answers + least.onward), float(most.answers + most.onward)

    def __str__(self) -> str:
        """The page as text."""
        pace = self.pace
        least, most = work.total(self.parts.values())
        lines = [
            f"forecast: {self.what}",
            f"  rollouts  {_span(*self.rollouts)}, of them whole answers "
            f"{_span(least.answers, most.answers)}",
            f"  tokens    {_span(pace.tokens(least), pace.tokens(most))} written",
            f"  time      {_times(*self.seconds)} here",
            f"  memory    {self.memory / 2**30:.1f} GiB",
            f"  disk      {self.disk / 2**20:.0f} MiB",
            f"  effect    {self.effect}",
            f"  trial     {pace.answers} answers of {pace.length:.0f} tokens, "
            f"accuracy {pace.accuracy:.2f}, {pace.states:.1f} states each; "
            f"{pace.writing:.0f} tokens written a second, {pace.reading:.0f} read",
        ]
        if len(self.parts) > 1:
            lines.append("  of that:")
            for name, (lower, upper) in self.parts.items():
                spent = _times(pace.seconds(lower), pace.seconds(upper))
                lines.append(f"    {name:<24} {spent}")
        return "\n".join(lines)


def forecast(verb: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Forecast:
    """What a verb would do and cost with these arguments, from a short trial; it is not run.

    Parameters
    ----------
    verb : function
        `sample`, `estimate`, `record`, `ablate` or `certify`.
    model : TransformerBridge or HookedTransformer
        Its first argument.
    *args, **kwargs
        Its other arguments, as it takes them.

    Returns
    -------
    Forecast

    Raises
    ------
    MechRewardError
        Another function, arguments that it does not take, or problems that `sample` refuses.

    Notes
    -----
    Speeds are those of the trial, at as many rows as it had: other work on the machine shows in
    them. Stages that stop by themselves have a least and a most.
    """
    possible = ", ".join(known.__name__ for known in VERBS)
    name = getattr(verb, "__name__", shown(verb))
    known = callable(verb) and verb in VERBS
    require(known, f"a forecast is made of {possible}; {name} was given.")
    try:
        bound = inspect.signature(verb).bind(model, *args, **kwargs)
    except TypeError as error:
        raise MechRewardError(f"{name} takes no such arguments: {error}.") from None
    bound.apply_defaults()
    _check(bound.arguments)
    return VERBS[verb](**bound.arguments)


def of_plan(plan: Plan, names: Sequence[str] = MAIN) -> Forecast:
    """What experiments of the paper would do on one model and task.

    Parameters
    ----------
    plan : Plan
        The run.
    names : sequence of str, default those of `mechreward demo`
        Ids of experiments.
    """
    model, task = plan.open(plan.seed)
    check_plan(plan, task)
    pace = trial(model, plan.problems(task, "validation"), plan.policy)
    sites = all_sites(model, work.KINDS, plan.layer_numbers(model))
    sizes = Sizes(
        train=plan.train,
        validation=plan.validation,
        test=plan.test,
        k=plan.k,
        ablated=plan.ablated,
        confidence=plan.confidence,
        searched=plan.searched,
        draws=plan.draws,
        random_draws=plan.random_draws,
        curve_draws=plan.curve_draws,
        states=pace.states,
        sites=len(sites),
        task=task.name,
    )
    parts = {"rollouts, values, choice": work.splits(sizes)}
    for name in names:
        parts[experiment_name(name)] = work.EXPERIMENTS[name](sizes)
    answers = plan.train + plan.validation + plan.test
    kept = answers * (1 + pace.states) * sites[0].width(model) * FLOAT
    rows = answers * (pace.prompt + pace.length)
    return Forecast(
        f"{plan.model} on {task.name}",
        parts,
        pace,
        _memory(
            model,
            task,
            pace,
            plan.policy,
            kept * len(sites) + rows * sites[0].width(model),
        ),
        2 * kept + answers * plan.k,
        _effect(
            plan.ablated,
            pace,
            "drop",
            0.05,
        ),
    )


def of_certificate(plan: CertifyPlan, chosen: bool) -> Forecast:
    """What `mechreward certify` would do; `chosen` says whether a set is given."""
    _check(plan.sizes)
    whole("validation", plan.validation, 1)
    model, task = plan.open(plan.seed)
    pace = trial(model, some_problems(task, plan.seed), plan.policy)
    parts = {}
    if not chosen:
        sites = all_sites(model, (plan.kind,), plan.layer_numbers(model))
        parts["choosing a set"] = work.finding(
            plan.train, plan.validation, plan.k, pace.states, len(sites)
        )
    parts |= work.certificate(plan.sizes, pace.states, not chosen)
    return _certificate(model, task, plan.sizes, parts, pace, plan.policy)


def _check(given: Mapping[str, Any]) -> None:
    """Raise MechRewardError for what the verb itself would refuse after the forecast."""
    adaptive = "runs" in given and isinstance(given.get("k"), AdaptiveK)  # estimate alone takes one
    for name, least in SIZES.items():
        if name in given and not (name == "k" and adaptive):
            whole(name, given[name], least)
    for name, (kind, hint) in KINDS.items():
        if name in given:
            of_kind(name, given[name], kind, hint)
    if "problems" in given:
        task_of(given["problems"])
    if "rows" in given:
        one_of("kind of rows", given["rows"], ROWS)
    if "ops" in given:
        ops = given["ops"]
        for op in [ops] if isinstance(ops, str) else ops:
            one_of("operation", op, ABLATIONS)


def _of_sample(
    model: Any, problems: Sequence[Problem], *, k: int, policy: Policy | None, **_: Any
) -> Forecast:
    pace = trial(model, problems, policy)
    parts = {
        "answers": work.both(
            work.Work(
                answers=len(problems) * k,
                prompts=len(problems),
            )
        )
    }
    task = problems[0].task
    memory = _memory(
        model,
        task,
        pace,
        policy,
    )
    disk = len(problems) * k * (pace.prompt + pace.length) * 2 * FLOAT
    effect = _effect(
        len(problems),
        pace,
        "change",
        0.05,
    )
    return Forecast(
        f"{k} answers to each of {len(problems)} problems", parts, pace, memory, disk, effect
    )


def _of_estimate(model: Any, runs: Rollouts, *, k: int | AdaptiveK, **_: Any) -> Forecast:
    pace = trial(model, _problems_of(runs), runs.policy)
    states = sum(run.steps for run in runs)
    least, most = (k.least, k.most) if isinstance(k, AdaptiveK) else (k, k)
    lower = work.Work(onward=states * least, reads=len(runs))
    rounds = 1 if least == most else ROUNDS
    upper = work.Work(onward=states * most, reads=rounds * len(runs))
    parts = {"values": (lower, upper)}
    memory = _memory(
        model,
        runs.problems[0].task,
        pace,
        runs.policy,
    )
    p = pace.accuracy
    if isinstance(k, AdaptiveK):
        effect = f"V of a state has a 95% interval of up to {k.width:.2f}"
    else:
        error = np.sqrt(max(p * (1 - p), 0.04) / k)
        effect = f"V-hat of a state has a standard error of up to {error:.2f} with k={k}"
    return Forecast(
        f"values of {states} states",
        parts,
        pace,
        memory,
        states * 5 * 8.0,
        effect,
    )


def _of_record(model: Any, runs: Rollouts, sites: Any, *, rows: str, **_: Any) -> Forecast:
    pace = trial(model, _problems_of(runs), runs.policy)
    named = [sites] if isinstance(sites, str | Site) else list(sites)
    width = sum(Site.parse(str(site)).check(model).width(model) for site in named)
    count = sum(run.length if rows == "tokens" else run.steps + 1 for run in runs)
    parts = {"reading": work.both(work.Work(reads=len(runs)))}
    size = float(count * width * FLOAT)
    memory = _memory(
        model,
        runs.problems[0].task,
        pace,
        runs.policy,
        size,
    )
    return Forecast(
        f"activations of {count} {rows} at {len(named)} sites",
        parts,
        pace,
        memory,
        size,
        "nothing is compared",
    )


def _of_ablate(
    model: Any,
    problems: Sequence[Problem],
    neurons: Any,
    *,
    ops: Sequence[str],
    draws: int,
    random_draws: int,
    policy: Policy | None,
    **_: Any,
) -> Forecast:
    pace = trial(model, problems, policy)
    ops = [ops] if isinstance(ops, str) else list(ops)
    parts = {"ablations": work.ablation(len(problems), len(ops), draws, random_draws)}
    size = len(problems) * (pace.prompt + pace.length) * neurons.width * FLOAT
    memory = _memory(
        model,
        problems[0].task,
        pace,
        policy,
        size,
    )
    arms = len(ops) * (1 + draws + 2 * random_draws)
    what = f"{arms} ablations of {len(neurons)} neurons on {len(problems)} problems"
    disk = arms * len(problems) * 3.0
    return Forecast(
        what,
        parts,
        pace,
        memory,
        disk,
        _effect(
            len(problems),
            pace,
            "drop",
            0.05,
        ),
    )


def _of_certify(
    model: Any, task: Task, neurons: Any, *, seed: int, policy: Policy | None, **given: Any
) -> Forecast:
    names = ("train", "test", "k", "n", "draws", "pairs")
    sizes = {name: given[name] for name in names}
    pace = trial(model, some_problems(task, seed), policy)
    parts = work.certificate(sizes, pace.states, neurons.by_recipe)
    return _certificate(model, task, sizes, parts, pace, policy)


def _certificate(
    model: Any,
    task: Task,
    sizes: Mapping[str, int],
    parts: Mapping[str, Span],
    pace: Pace,
    policy: Policy | None,
) -> Forecast:
    width = Site(0, "resid_post").width(model)
    rows = sizes["train"] * (pace.prompt + pace.length)
    memory = _memory(
        model,
        task,
        pace,
        policy,
        rows * width * FLOAT,
    )
    what = f"certificate of a set on {task.name}, n={sizes['n']}, {sizes['draws']} draws"
    effect = _effect(
        sizes["n"],
        pace,
        "contrast",
        LEVEL,
    )
    return Forecast(
        what,
        parts,
        pace,
        memory,
        2.0**20,
        effect,
    )


VERBS: dict[Callable[..., Any], Callable[..., Forecast]] = {
    sample: _of_sample,
    estimate: _of_estimate,
    record: _of_record,
    ablate: _of_ablate,
    certify: _of_certify,
}


def _problems_of(runs: Rollouts) -> list[Problem]:
    """Each once."""
    return list({problem.id: problem for problem in runs.problems}.values())


def _effect(n: int, pace: Pace, noun: str, level: float) -> str:
    see = stats.detectable_effect(n, pace.accuracy, alpha=level)
    return f"{stats.can_see(see, noun)} with n={n} problems, at level {level} and 80% power"


def _memory(
    model: Any, task: Task | None, pace: Pace, policy: Policy | None, acts: float = 0.0
) -> float:
    """Bytes at most: weights, keys and values of the rows that decode, and activations."""
    cfg = model.cfg
    heads = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
    parameters = list(model.parameters())
    weights = sum(part.numel() * part.element_size() for part in parameters)
    limit = (policy or Policy()).limit(task) if task is not None else pace.length
    row = 2 * cfg.n_layers * heads * cfg.d_head * (pace.prompt + limit)
    # Half as many prefixes as rows are run ahead.
    return weights + 1.5 * BATCH * row * parameters[0].element_size() + acts


def _span(least: int | float, most: int | float) -> str:
    lower, upper = _round(least), _round(most)
    return f"{lower:,}" if lower == upper else f"{lower:,} to {upper:,}"


def _round(number: int | float) -> int:
    """Two figures are all that a forecast knows."""
    if number < 100:
        return round(number)
    return int(float(f"{number:.2g}"))


def _times(least: float, most: float) -> str:
    lower, upper = duration(least), duration(most)
    return f"about {lower}" if lower == upper else f"{lower} to {upper}"
