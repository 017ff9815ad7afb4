"""The certificate: six claims about a neuron set, each passed, failed or inconclusive."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.base.errors import MechRewardError, of_kind, one_of, require, whole
from mechreward.base.files import nulled, read_json, write_json
from mechreward.base.plain import in_cell, in_markdown, visible
from mechreward.base.progress import tell, under
from mechreward.causal import claims as judge
from mechreward.causal.cause import causal
from mechreward.causal.intervene import mean, zero
from mechreward.causal.material import deal, sample_states
from mechreward.causal.stability import found_again
from mechreward.causal.steering import Push, matched_pushes, overlap_with, own_push, rival
from mechreward.causal.trials import patched, steered
from mechreward.causal.verdict import CLAIMS, LEVEL, Claim
from mechreward.models.engine import Policy
from mechreward.models.shards import kept_in
from mechreward.probing.activations import Activations, record
from mechreward.probing.evidence import evidence, follows, reading_p
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.rankings import magnitude, next_token
from mechreward.probing.surface import further
from mechreward.probing.targets import Examples, states
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.tasks import Problem, Task

FIRST = 5  # claims that files of before have
OLDER = "This certificate is older than the claim: certify again."
READERS = 19  # sets that read V-hat, steered beside the neutral ones
NEUTRAL = 0.05  # p of reading V-hat above which a set counts as neutral
MOST_DRAWN = 8  # times as many matched sets as are wanted, to find as many that do not read V-hat
# What decides each claim: the key of its interval in `numbers`, and the size of `certify` that it
# was taken over.
DECIDES = {
    "decodable": ("spearman", "test"),
    "sparse": ("sparsity", "test"),
    "causal": ("contrast", "n"),
    "specific": ("net", "n"),
    "sufficient": ("share", "pairs"),
    "stable": ("iou", "train"),
}


@dataclass(frozen=True)
class Certificate:
    """What may be said about a set of neurons, claim by claim.

    Attributes
    ----------
    claims : tuple of Claim
        Six rows in the order decodable, sparse, causal, specific, sufficient, stable.
    neurons : NeuronSet
        The set.
    task : str
        The task's name.
    sizes : mapping of str to int
        What was run: the keywords of `certify`.
    registered : dict
        Of a registered run (`causal.registration`): `hash` and `made` of the registration, and how
        many problems were `passed_over`; else empty.
    policy : Policy, default Policy()
        How answers were drawn. Files of versions that did not keep it have the default.
    passed : bool
        Whether all claims pass.

    Raises
    ------
    MechRewardError
        Other claims, or another order.
    """

    claims: tuple[Claim, ...]
    neurons: NeuronSet
    task: str
    sizes: dict[str, int] = field(default_factory=dict)
    registered: dict[str, Any] = field(default_factory=dict)
    policy: Policy = field(default=Policy(), repr=False)

    def __post_init__(self) -> None:
        names = [claim.claim for claim in self.claims]
        require(
            names == list(CLAIMS),
            f"a certificate holds the claims {', '.join(CLAIMS)}; these are {names}.",
        )

    def __getitem__(self, claim: str) -> Claim:
        """One claim by name."""
        one_of("claim", claim, CLAIMS)
        return {row.claim: row for row in self.claims}[claim]

    @property
    def passed(self) -> bool:
        """Whether all claims pass."""
        return all(claim.verdict == "pass" for claim in self.claims)

    def __repr__(self) -> str:
        return (
            f"Certificate({', '.join(f'{claim.claim}: {claim.verdict}' for claim in self.claims)})"
        )

    def __str__(self) -> str:
        """The page as text."""
        lines = [*self._head(), ""]
        for claim in self.claims:
            lines.append(f"{claim.claim:<11} {claim.verdict.upper():<13} {claim.reason}")
        return "\n".join(visible(line) for line in lines)

    def _head(self) -> list[str]:
        """What was certified, on which model and task, with which sizes."""
        neurons, identity = self.neurons, self.neurons.model_id
        indices = ", ".join(map(str, neurons.indices[:20]))
        if len(neurons) > 20:
            indices += ", ..."
        return [
            f"Certificate: {len(neurons)} neurons of {neurons.site} ({neurons.how or 'given'})",
            f"model {identity.name} (weights {identity.weights}), task {self.task}; "
            f"neurons {indices}",
            ", ".join(f"{key} {value}" for key, value in self.sizes.items()),
            *([] if self.policy == Policy() else [f"answers drawn by {self.policy}"]),
            *self._mark(),
        ]

    def _mark(self) -> list[str]:
        """Of a registered run."""
        mark = self.registered
        if not mark:
            return []
        return [
            f"registered at {mark['made']}, before anything was measured: hash {mark['hash']}",
            f"problems are new to this folder ({mark['passed_over']} passed over)",
        ]

    def page(self) -> str:
        """The same in Markdown, with what each claim asks and all numbers."""
        lines = [f"# Certificate of {len(self.neurons)} neurons of {self.neurons.site}", ""]
        lines += [f"{in_markdown(line)}  " for line in self._head()]
        lines += ["", "| claim | verdict | reason |", "| --- | --- | --- |"]
        lines += [
            f"| {claim.claim} | **{claim.verdict}** | {in_cell(claim.reason)} |"
            for claim in self.claims
        ]
        for claim in self.claims:
            asked = " ".join((judge.QUESTIONS[claim.claim].__doc__ or "").split())
            lines += ["", f"## {claim.claim}: {claim.verdict}", "", asked, ""]
            lines += [
                f"- {in_markdown(f'{key}: {_short(value)}')}"
                for key, value in claim.numbers.items()
            ]
        return "\n".join(lines) + "\n"

    def save(self, path: Path | str) -> Path:
        """JSON, written atomically; numbers that do not exist become null."""
        about = {
            "kind": "certificate",
            "task": self.task,
            "sizes": self.sizes,
            "registered": self.registered,
            "policy": self.policy.to_json(),
            **self.neurons.to_json(),
            "claims": [nulled(asdict(claim)) for claim in self.claims],
        }
        return write_json(path, about)

    @classmethod
    def load(cls, path: Path | str) -> Certificate:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        data = read_json(path, "certificate")
        require(
            data.get("kind") == "certificate",
            f"{path} holds {data.get('kind')}, not a certificate.",
        )
        neurons = NeuronSet.from_json(data, f"{path} is a damaged certificate")
        try:
            rows = tuple(
                Claim(**(row | {"numbers": _back(row["numbers"])})) for row in data["claims"]
            )
            younger = CLAIMS[len(rows) :] if len(rows) == FIRST else ()
            rows += tuple(Claim(claim, "not run", OLDER) for claim in younger)
            sizes, registered = dict(data["sizes"]), dict(data.get("registered", {}))
            policy = Policy(**data.get("policy", {}))
            return cls(rows, neurons, data["task"], sizes, registered, policy)
        except MechRewardError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MechRewardError(f"{path} is a damaged certificate: {error!r}.") from error


def certify(
    model: Any,
    task: Task,
    neurons: NeuronSet,
    *,
    seed: int = 0,
    train: int = 80,
    test: int = 80,
    k: int = 16,
    n: int = 200,
    draws: int = 99,
    pairs: int = 60,
    policy: Policy | None = None,
    avoid: Collection[str] = (),
    out: Path | str | None = None,
    progress: bool | str = True,
) -> Certificate:
    """Hold a set of value neurons against every control, and say what may be claimed of it.

    A pass is refused where power, a control or a match is missing; the reason then says what to
    run. Controls cannot be left out. Every set is steered at the same displacement, in the sense of
    its own correlation with V-hat.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one the set belongs to.
    task : Task
        Where problems come from.
    neurons : NeuronSet
        The set.
    seed : int, default 0
        Seed of problems, answers and draws.
    train : int, default 80
        Problems of the training split whose states are valued, to fit on.
    test : int, default 80
        Problems of the test split whose states are valued, to read (decodable, sparse, sufficient).
    k : int, default 16
        Continuations for each state's V-hat.
    n : int, default 200
        Test problems for steering (causal, specific); none is among those of `test`.
    draws : int, default 99
        Other bases, random and matched sets; 99 reach p = .01, and fewer cannot pass.
    pairs : int, default 60
        Pairs of high- and low-V states, and of states of equal V.
    policy : Policy or None, default None
        How tokens are drawn; the model's own distribution if None.
    avoid : collection of str, default ()
        Problems not to be taken, by `causal.material.key_of`: such as were measured before.
    out : Path or str or None, default None
        Folder that keeps what is generated, shard by shard: stopped and called again, it goes on.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    Certificate
        Six claims, each with a verdict, a reason and its numbers.

    Raises
    ------
    MechRewardError
        An empty set, one of another model, or constant over the states; numbers too small to begin
        with; or a model that gets every problem right, or none.

    Notes
    -----
    Claims, levels and sizes are our choice, the same for every model; `causal.claims` states what
    each asks.
    """
    of_kind("task", task, Task, "tasks.get makes one of a name")
    sizes = check(
        model, neurons, seed=seed, train=train, test=test, k=k, n=n, draws=draws, pairs=pairs
    )
    problems = deal(task, sizes, neurons.by_recipe, avoid)
    with kept_in(out):
        runs, values, acts = sample_states(
            model, problems.fit, neurons.site, k, seed, policy, under(progress, "train")
        )
        held_runs, held_values, held_acts = sample_states(
            model, problems.read, neurons.site, k, seed, policy, under(progress, "test")
        )
        fit, held = states(acts, values), states(held_acts, held_values)
        chosen = np.array(neurons.indices)
        read = evidence(fit, held, chosen, draws=draws, further=further(held_runs), seed=seed)
        cause, special, others = by_steering(
            model,
            problems.steered,
            neurons,
            runs,
            values,
            acts,
            p_reads=read.few.p,
            draws=draws,
            seed=seed,
            policy=policy,
            progress=progress,
        )
        patching = patched(
            model,
            held_runs,
            held_values,
            held_acts,
            neurons,
            others,
            pairs=pairs,
            k=k,
            seed=seed,
            progress=under(progress, "patching"),
        )
        enough = judge.sufficient(patching, k, seed)
        found = None
        if neurons.by_recipe:
            found = found_again(
                model, neurons, problems.again, k, seed, policy, under(progress, "found again")
            )
    claims = (
        judge.decodable(read),
        judge.sparse(read),
        cause,
        special,
        enough,
        judge.stable(found, seed),
    )
    return Certificate(claims, neurons, task.name, sizes, policy=policy or Policy())


def check(model: Any, neurons: NeuronSet, **sizes: int) -> dict[str, int]:
    """The sizes, as Python's own numbers; nothing is run.

    Raises
    ------
    MechRewardError
        What `certify` cannot begin with: a set that is empty or of another model, a size that is
        too small or no whole number.
    """
    of_kind("neurons", neurons, NeuronSet)
    require(len(neurons) > 0, "there is nothing to certify: the set is empty.")
    zero(neurons).check(model)
    least = {"draws": 3, "k": 1, "seed": None}
    return {name: whole(name, given, least.get(name, 2)) for name, given in sizes.items()}


def by_steering(
    model: Any,
    problems: Sequence[Problem],
    neurons: NeuronSet,
    runs: Rollouts,
    values: Values,
    acts: Activations,
    *,
    p_reads: float,
    draws: int = 99,
    seed: int = 0,
    policy: Policy | None = None,
    progress: bool | str = False,
) -> tuple[Claim, Claim, list[NeuronSet]]:
    """The claims causal and specific, and the first few matched sets that do not read V-hat.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one the set belongs to.
    problems : sequence of Problem
        What is answered under every steering.
    neurons : NeuronSet
        The set.
    runs, values, acts : Rollouts, Values, Activations
        Of the training split, at the states: they say which way V goes, and how far.
    p_reads : float
        Of the set's reading on held-out problems, as `evidence` has it. The training split, on
        which the set may have been chosen, would flatter it.
    draws, seed, policy, progress
        As in `certify`.

    Returns
    -------
    (Claim, Claim, list of NeuronSet)
        Causal, specific, and at most five of those sets.
    """
    tokens = record(model, runs, neurons.site, rows="tokens", progress=False)[neurons.site]
    toward = np.where(values.live, values.mean, np.nan)
    push = own_push(neurons, acts, toward)
    fit = states(acts, values)
    controls, read_too = neutral_pushes(push, tokens, acts, toward, fit, draws, seed)
    best = rival(push, acts, toward, follows(fit), "readers")
    if best is not None and reading_p(fit, [best.neurons.indices], seed)[0] <= NEUTRAL:
        read_too = [best, *read_too]
    scores = {"next_token": next_token(tokens, runs), "magnitude": magnitude(fit)}
    rivals = []
    for arm, score in scores.items():
        other = rival(push, acts, toward, score, arm)
        if other is not None:
            rivals.append(other)
    n = len(problems)
    base = float(np.mean(runs.rewards))
    see = stats.detectable_effect(n, base, alpha=LEVEL)
    tell(
        progress,
        "certificate",
        f"accuracy {base:.2f} on train; "
        f"with n={n} problems {stats.can_see(see, 'contrast')} at {LEVEL}",
    )
    trial = steered(
        model,
        problems,
        push,
        controls,
        read_too[:READERS],
        rivals,
        [zero(neurons), mean(neurons, tokens)],
        runs,
        tokens,
        level=LEVEL,
        seed=seed,
        policy=policy,
        progress=progress,
    )
    error = float(np.mean([control.error for control in controls])) if controls else math.nan
    cause = causal(trial, seed, error, p_reads, draws)
    cause.numbers.update(displacement=push.norm)
    shared = {arm: overlap_with(push, score) for arm, score in scores.items()}
    special = judge.specific(trial, cause, shared, seed)
    return cause, special, [control.neurons for control in controls[:5]]


def neutral_pushes(
    push: Push,
    tokens: Activations,
    acts: Activations,
    toward: np.ndarray,
    fit: Examples,
    draws: int,
    seed: int = 0,
) -> tuple[list[Push], list[Push]]:
    """Matched sets that do not read V-hat, at most `draws`, and those among them that do.

    More sets are drawn, from a wider neighbourhood, until there are enough of the first kind or the
    site has no more.
    """
    asked = draws
    while True:
        pushes = matched_pushes(push, tokens, acts, toward, asked, seed)
        p_values = reading_p(fit, [other.neurons.indices for other in pushes], seed)
        neutral, read_too = [], []
        for other, p in zip(pushes, p_values, strict=True):
            (read_too if p <= NEUTRAL else neutral).append(other)
        if len(neutral) >= draws or len(pushes) < asked or asked >= MOST_DRAWN * draws:
            return neutral[:draws], read_too
        asked *= 2


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_short, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _back(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _back(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_back(item) for item in value]
    return math.nan if value is None else value
