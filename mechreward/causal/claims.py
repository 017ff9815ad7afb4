"""What the numbers of an experiment say about each of the five claims: pass, fail, or what to run
to settle it.

A pass needs the effect, its controls and the power to have missed neither. A fail needs the power
to have seen an effect worth having. All else is inconclusive. Levels and sizes below are our
choice, the same for every model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import Any

import numpy as np
from scipy.stats import norm

from mechreward import stats
from mechreward.base.errors import one_of
from mechreward.causal.controls import MATCHED
from mechreward.causal.trials import FACTORS, Patched, Steered, contrast
from mechreward.probing.evidence import Evidence
from mechreward.stats import Interval

CLAIMS = ("decodable", "sparse", "causal", "specific", "sufficient")
VERDICTS = ("pass", "fail", "inconclusive")
LEVEL = 0.01  # of a rank among draws (99 reach it) and of the steering test after Holm
FEWEST = 19  # draws that a rank of .05 needs
READ = 0.2  # Spearman with V-hat that is worth having
MOVE = 0.1  # difference in accuracy between steering down and up that is worth having
SHARE = 0.5  # part of a larger change that has to be the set's own


@dataclass(frozen=True)
class Claim:
    """One row of a certificate. `reason` is one sentence with the figures that decided; `numbers`
    holds all."""

    claim: str
    verdict: str
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        one_of("claim", self.claim, CLAIMS)
        one_of("verdict", self.verdict, VERDICTS)


def decodable(found: Evidence, skill: float, shuffles: Sequence[float]) -> Claim:
    """The set, read by a refitted linear probe on held-out problems, beats the same set on shuffled
    targets.

    Pass: Spearman's interval above 0, and the `skill` of the read-out (1 - squared error / variance
    of V-hat) first among at least 99 of the set refitted to targets of other problems (p <= .01).
    Skill and not Spearman, which a fit to noise shares whenever its slope happens to have the right
    sign: three collinear neurons then tie with themselves (our choice). Fail: the interval excludes
    `READ`.
    """
    few, draws = found.few, len(shuffles)
    p, see = stats.rank_among(skill, np.array(shuffles), tail="high")[1], seen(few)
    numbers = spread("spearman", few) | {
        "p": p,
        "draws": draws,
        "skill": skill,
        "largest_shuffled": max(shuffles),
    }
    numbers |= {"detectable": see, "p_few": found.p_few, "all_neurons": found.full.estimate}
    said = f"Spearman with V-hat {_of(few)} on held-out problems, skill {skill:.2f}, p={p:.3g} among {draws} shuffles"
    if few.low > 0 and p <= LEVEL:
        return Claim("decodable", "pass", f"{said}.", numbers)
    if few.low > 0 and 1 / (1 + draws) > LEVEL:
        return Claim(
            "decodable",
            "inconclusive",
            f"{said}; a pass needs p <= {LEVEL}: run draws=99.",
            numbers,
        )
    return _unseen("decodable", said, few, see, READ, "a Spearman", "test", numbers)


def sparse(found: Evidence) -> Claim:
    """Few neurons do what other few, and other bases, do not (`probing.evidence`): sparsity above
    or below .5.

    As many random neurons that read half as well as all of them are redundancy: that fails too.
    Fewer than 19 random sets and bases settle nothing.
    """
    gap, others, n = found.sparsity, float(np.mean(found.random)), found.few.n
    numbers = spread("sparsity", gap) | {
        "reading": found.reading,
        "random": others,
        "neurons": found.neurons,
    }
    numbers |= {
        "rotated": float(np.mean(found.rotated)),
        "full": found.full.estimate,
        "few": found.few.estimate,
    }
    said = f"{found.neurons} neurons read {found.few.estimate:.2f}, as many random ones {others:.2f}, the best of other "
    said += f"bases {np.mean(found.rotated):.2f}, all {found.full.estimate:.2f}"
    if len(found.random) < FEWEST:
        told = (
            f"{said}; {len(found.random)} random sets are no control: run draws={FEWEST} or more."
        )
        return Claim("sparse", "inconclusive", told, numbers)
    if found.reading == "nothing":
        return Claim(
            "sparse",
            "inconclusive",
            f"{said}: nothing is read, so nothing is sparse; settle decodable.",
            numbers,
        )
    if found.reading == "redundant":
        return Claim(
            "sparse",
            "fail",
            f"{said}: random neurons do half as well as all, which is redundancy.",
            numbers,
        )
    said += f"; the set closes {_of(gap)} of the gap"
    if gap.low > 0.5 or gap.high < 0.5:
        return Claim("sparse", "pass" if gap.low > 0.5 else "fail", f"{said}.", numbers)
    more = (
        "there is no gap to close: certify fewer neurons"
        if not isfinite(gap.low)
        else f"run test={4 * n}"
    )
    return Claim("sparse", "inconclusive", f"{said}, and .5 is not settled: {more}.", numbers)


def causal(trial: Steered, seed: int = 0, error: float = float("nan")) -> Claim:
    """Steering the set toward high V makes answers right more often than steering it toward low V.

    The statistic is accuracy under +1 minus under -1 standard deviations, because it has a
    direction that damage cannot give, and because it is about V: that words change is not enough
    (the planted `null` changes words). Zero and mean ablation stand beside it, as they need not
    move V (a mean is a middling V); Holm is over all three. Pass: exact McNemar of up against down
    p <= .01 after Holm, up being better, and first among at least 99 matched sets.

    The sets are matched exactly on what the intervention does, the displacement; on rms as nearly
    as the site allows, and `error` (`causal.controls.Control`) says how nearly. Small sites have no
    99 sets of equal rms, so that is said and does not decide (our choice).
    """
    each, n = contrast(trial.own), len(trial.problems)
    moved = stats.paired_difference(
        trial.own.reward[1], trial.own.reward[0], np.array(trial.problems), seed=seed
    )
    tests = {"steer": stats.mcnemar(trial.own.reward[0], trial.own.reward[1])}
    tests |= {op: stats.mcnemar(trial.base.reward, one.reward) for op, one in trial.ablated.items()}
    holm = dict(zip(tests, stats.holm(np.array(list(tests.values()))).tolist(), strict=True))
    as_far = sum(draw >= each.mean() for draw in trial.draws)
    rank = (1 + as_far) / (1 + trial.planned)
    see, most = seen(moved), max(trial.draws, default=float("nan"))
    numbers = spread("contrast", moved) | {
        "p_mcnemar": tests,
        "p_holm": holm,
        "p_rank": rank,
        "detectable": see,
    }
    numbers |= {"draws_run": len(trial.draws), "draws": trial.planned, "largest_matched": most}
    numbers |= {"rms_match_error": error}
    numbers |= {
        "accuracy": float(trial.base.reward.mean()),
        "accuracy_down": float(trial.own.reward[0].mean()),
    }
    numbers |= {"accuracy_up": float(trial.own.reward[1].mean())}
    numbers |= {f"accuracy_{op}": float(one.reward.mean()) for op, one in trial.ablated.items()}
    up, down = numbers["accuracy_up"], numbers["accuracy_down"]
    said = f"accuracy {up:.2f} steered up, {down:.2f} down, {numbers['accuracy']:.2f} as it is: contrast {_of(moved)}, "
    said += f"n={n}, McNemar p={holm['steer']:.2g} after Holm"
    if holm["steer"] > LEVEL:
        return _unseen("causal", said, moved, see, MOVE, "a contrast", "n", numbers)
    if each.mean() < 0:
        return Claim("causal", "fail", f"{said}: the wrong way.", numbers)
    if as_far and rank > LEVEL:
        return Claim(
            "causal",
            "fail",
            f"{said}; {as_far} of {len(trial.draws)} matched sets move it as far.",
            numbers,
        )
    near = (
        "" if error <= MATCHED or not isfinite(error) else f", rms not matched (error {error:.2f})"
    )
    said += f", beyond {len(trial.draws)} sets of equal displacement{near} (largest {most:.2f})"
    if rank <= LEVEL:
        return Claim("causal", "pass", f"{said}.", numbers)
    few = f"{said}, which reach only p={rank:.2g}: a pass needs 99 matched sets, so "
    more = (
        "run draws=99, or certify a set for which this site has as many."
        if trial.planned
        else "certify fewer neurons."
    )
    return Claim("causal", "inconclusive", few + more, numbers)


def specific(trial: Steered, cause: Claim, overlap: Mapping[str, int], seed: int = 0) -> Claim:
    """What the steering moves is not damage, and no other set moves as much.

    Pass: at least half of the contrast is left when every problem whose answer cannot be read or
    does not end counts as unmoved; and the contrast exceeds that of the next-token and of the
    magnitude-ranked neurons outside the set, at the same displacement, and that of those and of
    three matched sets strengthened to the same KL on clean text. A control that does not do such
    damage at `FACTORS`' largest displacement has no such arm, and that is said.
    """
    each, n, ids = contrast(trial.own), len(trial.problems), np.array(trial.problems)
    sound = trial.own.sound.all(0)
    net = stats.cluster_bootstrap(np.mean, each * sound, ids, seed=seed)
    kept = net.estimate / each.mean() if each.mean() else float("nan")
    beyond = {
        arm: stats.cluster_bootstrap(np.mean, each - contrast(other), ids, seed=seed)
        for arm, other in trial.rivals.items()
    }
    numbers: dict[str, Any] = spread("net", net) | {"kept": kept, "kl": trial.kl}
    weak = [arm for arm, factor in trial.factor.items() if factor > FACTORS[-1]]
    numbers |= {
        "never_at_kl": weak,
        "factor": {arm: f for arm, f in trial.factor.items() if arm not in weak},
    }
    numbers |= {f"beyond {arm}": [i.estimate, i.low, i.high] for arm, i in beyond.items()} | {
        "shared": dict(overlap)
    }
    numbers |= {"damage_base": trial.base.damage(), "damage_matched": trial.damage}
    numbers |= {"damage_down": trial.own[0].damage(), "damage_up": trial.own[1].damage()}
    if cause.verdict == "fail":
        return Claim(
            "specific",
            "fail",
            "There is no effect of the set's own that could be specific.",
            numbers,
        )
    if cause.verdict == "inconclusive":
        return Claim(
            "specific",
            "inconclusive",
            "Whether there is an effect is open: settle causal first.",
            numbers,
        )
    missing = [arm for arm in ("next_token", "magnitude") if arm not in trial.rivals]
    if missing:
        told = f"The site has too few other neurons for the controls {', '.join(missing)}: certify fewer neurons."
        return Claim("specific", "inconclusive", told, numbers)
    said = f"{kept:.0%} of the contrast is among answers that can be read and end"
    least = min(beyond, key=lambda arm: beyond[arm].low)
    said += f"; it exceeds its closest control ({least.replace('_', '-')}) by {_of(beyond[least])}"
    if weak:
        said += f"; {len(weak)} of {len(trial.factor)} controls do less damage at {FACTORS[-1]:g} times the displacement"
    if net.high < SHARE * each.mean():
        return Claim("specific", "fail", f"{said}: damage explains the larger part.", numbers)
    if any(i.estimate <= 0 or (i.low <= 0 and i.high < MOVE) for i in beyond.values()):
        return Claim("specific", "fail", f"{said}: others move as much.", numbers)
    if kept < SHARE or net.low <= 0 or beyond[least].low <= 0:
        see = seen(beyond[least])
        return Claim(
            "specific",
            "inconclusive",
            f"{said}; {_more(see, n, MOVE, 'a difference', 'n')}",
            numbers,
        )
    return Claim("specific", "pass", f"{said}.", numbers)


def sufficient(trial: Patched | None, k: int, seed: int = 0) -> Claim:
    """The set's activations of a high-V state raise V-hat of a low-V one, by at least half of what
    all neurons do.

    Pass: the share of the whole patch that the set gives has its interval above .5, it gives more
    than matched sets do (interval above 0, and none as much), at least half of the pairs are of one
    problem, and the same patch between states of equal V changes V-hat by less than half of that,
    interval included. A whole patch that does not raise V-hat at one position leaves the question
    open.
    """
    if trial is None:
        told = "There are not two pairs of high- and low-V states, or of states of equal V: run test=400 or more."
        return Claim("sufficient", "inconclusive", told, {})

    def ratio(few: np.ndarray, whole: np.ndarray) -> float:
        return float(few.mean() / whole.mean()) if whole.mean() > 0 else float("nan")

    few, whole = trial.few - trial.low, trial.whole - trial.low
    all_of = stats.cluster_bootstrap(np.mean, whole, trial.group, seed=seed)
    part = stats.cluster_bootstrap(ratio, [few, whole], trial.group, seed=seed)
    equal = stats.cluster_bootstrap(
        np.mean, trial.after - trial.before, trial.like_group, seed=seed
    )
    numbers = spread("share", part) | spread("whole", all_of) | spread("equal", equal)
    numbers |= {
        "set": float(few.mean()),
        "low": float(trial.low.mean()),
        "pairs": len(few),
        "same_problem": trial.same,
    }
    others = (trial.matched - trial.low).mean(1).tolist()
    numbers |= {"matched": others, "equal_pairs": len(trial.before), "k": k}
    said = f"patched from high- to low-V states ({len(few)} pairs, {trial.same} of one problem), V-hat rises by "
    said += f"{few.mean():.2f}, by {_of(all_of)} with all neurons"
    if all_of.high < 0:
        told = "a whole state put there lowers V-hat, so this site at one position cannot tell: certify another site."
        return Claim("sufficient", "inconclusive", f"{said}; {told}", numbers)
    if all_of.low <= 0:
        told = f"the whole patch itself does not reliably raise V-hat at one position: {_pairs(len(few))}."
        return Claim("sufficient", "inconclusive", f"{said}; {told}", numbers)
    said += f": share {_of(part)}"
    if part.high < SHARE:
        return Claim("sufficient", "fail", f"{said}.", numbers)
    if not part.low > SHARE:
        return Claim(
            "sufficient",
            "inconclusive",
            f"{said}, and .5 is not settled: {_pairs(len(few))}.",
            numbers,
        )
    if not others:
        told = "there is no matched set to hold it against: certify fewer neurons."
        return Claim("sufficient", "inconclusive", f"{said}; {told}", numbers)
    beyond = stats.cluster_bootstrap(
        np.mean, trial.few - trial.matched.mean(0), trial.group, seed=seed
    )
    numbers |= spread("beyond_matched", beyond)
    said += f", {_of(beyond)} more than {len(others)} matched sets"
    if few.mean() <= max(others) or beyond.high <= 0:
        return Claim(
            "sufficient",
            "fail",
            f"{said}: others raise it as much (up to {max(others):.2f}).",
            numbers,
        )
    if beyond.low <= 0:
        return Claim(
            "sufficient",
            "inconclusive",
            f"{said}, which is not settled: {_pairs(len(few))}.",
            numbers,
        )
    if trial.same < len(few) / 2:
        told = f"most pairs are of two problems, so what is brought may be the problem's: {_pairs(len(few))}."
        return Claim("sufficient", "inconclusive", f"{said}; {told}", numbers)
    said += f"; between states of equal V it changes by {_of(equal)}"
    bound = SHARE * few.mean()
    if equal.low > bound or equal.high < -bound:
        return Claim(
            "sufficient", "fail", f"{said}: the patch moves V-hat whatever it brings.", numbers
        )
    if not (-bound < equal.low and equal.high < bound):
        return Claim(
            "sufficient", "inconclusive", f"{said}: too wide; {_pairs(len(trial.before))}.", numbers
        )
    return Claim("sufficient", "pass", f"{said}.", numbers)


def _pairs(now: int) -> str:
    """A problem gives one pair at most, so more pairs need more problems."""
    return f"run pairs={4 * now} with test={4 * now} or more"


def seen(interval: Interval, level: float = LEVEL, power: float = 0.8) -> float:
    """Smallest effect seen with `power` at two-sided `level`, from a 95% interval (normal
    approximation)."""
    wide = (interval.high - interval.low) / (2 * norm.isf(0.025))
    return float((norm.isf(level / 2) + norm.ppf(power)) * wide)


def spread(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three numbers."""
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def verdicts(claims: Sequence[Claim]) -> dict[str, str]:
    """Claim -> verdict."""
    return {claim.claim: claim.verdict for claim in claims}


def _unseen(
    claim: str,
    said: str,
    found: Interval,
    see: float,
    worth: float,
    what: str,
    option: str,
    numbers: dict[str, Any],
) -> Claim:
    """No pass: a fail where what is worth having is excluded, and else open."""
    if found.high < worth:
        return Claim(claim, "fail", f"{said}; {what} of {worth} is excluded.", numbers)
    return Claim(
        claim, "inconclusive", f"{said}; {_more(see, found.n, worth, what, option)}", numbers
    )


def _more(see: float, n: int, worth: float, what: str, option: str) -> str:
    """What to run: as many as show `worth`; four times as many where that could have been seen
    already."""
    if not isfinite(see):
        return f"inconclusive: no interval can be given at n={n}; run {option}={max(100, 4 * n)}."
    need = 10 * ceil(n * (see / worth) ** 2 / 10) if see > worth else 4 * n
    return f"inconclusive: with n={n} {what} of {see:.2f} could be seen; run {option}={max(need, n + 10)}."


def _of(interval: Interval) -> str:
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
