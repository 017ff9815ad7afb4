"""What the numbers of an experiment say about each claim: pass, fail, or what to run.

A pass needs the effect, its controls and the power to have missed neither. A fail needs the power
to have seen an effect worth having. All else is inconclusive. Levels and sizes below are our
choice, the same for every model. The docstring of a claim is what a certificate's page says of it.
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
    """One row of a certificate.

    Attributes
    ----------
    claim : str
        Which of the five.
    verdict : str
        "pass", "fail" or "inconclusive".
    reason : str
        One sentence with the figures that decided.
    numbers : dict
        All figures by name.

    Raises
    ------
    MechRewardError
        An unknown claim or verdict.
    """

    claim: str
    verdict: str
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        one_of("claim", self.claim, CLAIMS)
        one_of("verdict", self.verdict, VERDICTS)


def decodable(evidence: Evidence, skill: float, shuffles: Sequence[float]) -> Claim:
    """The set, read by a refitted linear probe on held-out problems, beats the same set on shuffled
    targets.

    Pass: Spearman's interval above 0, and the `skill` of the read-out (1 - squared error / variance
    of V-hat) first among at least 99 of the set refitted to targets of other problems (p <= .01).
    Skill and not Spearman, which a fit to noise shares whenever its slope happens to have the right
    sign: three collinear neurons then tie with themselves (our choice). Fail: the interval excludes
    `READ`.
    """
    few, draws = evidence.few, len(shuffles)
    _, p = stats.rank_among(skill, np.array(shuffles), tail="high")
    see = seen(few)
    numbers = spread("spearman", few) | {
        "p": p,
        "draws": draws,
        "skill": skill,
        "largest_shuffled": max(shuffles),
        "detectable": see,
        "p_few": evidence.p_few,
        "all_neurons": evidence.full.estimate,
    }
    reason = f"Spearman with V-hat {_of(few)} on held-out problems, skill {skill:.2f}, "
    reason += f"p={p:.3g} among {draws} shuffles"
    if few.low > 0 and p <= LEVEL:
        return Claim("decodable", "pass", f"{reason}.", numbers)
    if few.low > 0 and 1 / (1 + draws) > LEVEL:
        reason += f"; a pass needs p <= {LEVEL}: run draws=99."
        return Claim("decodable", "inconclusive", reason, numbers)
    return _unseen("decodable", reason, few, see, READ, "a Spearman", "test", numbers)


def sparse(evidence: Evidence) -> Claim:
    """Few neurons do what other few, and other bases, do not (`probing.evidence`): sparsity above
    or below .5.

    As many random neurons that read half as well as all of them are redundancy: that fails too.
    Fewer than 19 random sets and bases settle nothing.
    """
    gap, n = evidence.sparsity, evidence.few.n
    random, rotated = float(np.mean(evidence.random)), float(np.mean(evidence.rotated))
    few, full = evidence.few.estimate, evidence.full.estimate
    numbers = spread("sparsity", gap) | {
        "reading": evidence.reading,
        "random": random,
        "neurons": evidence.neurons,
        "rotated": rotated,
        "full": full,
        "few": few,
    }
    reason = f"{evidence.neurons} neurons read {few:.2f}, as many random ones {random:.2f}, "
    reason += f"the best of other bases {rotated:.2f}, all {full:.2f}"
    if len(evidence.random) < FEWEST:
        reason += f"; {len(evidence.random)} random sets are no control: "
        return Claim("sparse", "inconclusive", f"{reason}run draws={FEWEST} or more.", numbers)
    if evidence.reading == "nothing":
        reason += ": nothing is read, so nothing is sparse; settle decodable."
        return Claim("sparse", "inconclusive", reason, numbers)
    if evidence.reading == "redundant":
        reason += ": random neurons do half as well as all, which is redundancy."
        return Claim("sparse", "fail", reason, numbers)
    reason += f"; the set closes {_of(gap)} of the gap"
    if gap.low > 0.5:
        return Claim("sparse", "pass", f"{reason}.", numbers)
    if gap.high < 0.5:
        return Claim("sparse", "fail", f"{reason}.", numbers)
    if isfinite(gap.low):
        more = f"run test={4 * n}"
    else:
        more = "there is no gap to close: certify fewer neurons"
    return Claim("sparse", "inconclusive", f"{reason}, and .5 is not settled: {more}.", numbers)


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
    for op, answers in trial.ablated.items():
        tests[op] = stats.mcnemar(trial.base.reward, answers.reward)
    holm = dict(zip(tests, stats.holm(np.array(list(tests.values()))).tolist(), strict=True))
    as_far = sum(draw >= each.mean() for draw in trial.draws)
    rank = (1 + as_far) / (1 + trial.planned)
    see, most = seen(moved), max(trial.draws, default=float("nan"))
    base = float(trial.base.reward.mean())
    down, up = float(trial.own.reward[0].mean()), float(trial.own.reward[1].mean())
    numbers = spread("contrast", moved) | {
        "p_mcnemar": tests,
        "p_holm": holm,
        "p_rank": rank,
        "detectable": see,
        "draws_run": len(trial.draws),
        "draws": trial.planned,
        "largest_matched": most,
        "rms_match_error": error,
        "accuracy": base,
        "accuracy_down": down,
        "accuracy_up": up,
    }
    for op, answers in trial.ablated.items():
        numbers[f"accuracy_{op}"] = float(answers.reward.mean())
    reason = f"accuracy {up:.2f} steered up, {down:.2f} down, {base:.2f} as it is: "
    reason += f"contrast {_of(moved)}, n={n}, McNemar p={holm['steer']:.2g} after Holm"
    if holm["steer"] > LEVEL:
        return _unseen("causal", reason, moved, see, MOVE, "a contrast", "n", numbers)
    if each.mean() < 0:
        return Claim("causal", "fail", f"{reason}: the wrong way.", numbers)
    if as_far and rank > LEVEL:
        reason += f"; {as_far} of {len(trial.draws)} matched sets move it as far."
        return Claim("causal", "fail", reason, numbers)
    reason += f", beyond {len(trial.draws)} sets of equal displacement"
    if isfinite(error) and error > MATCHED:
        reason += f", rms not matched (error {error:.2f})"
    reason += f" (largest {most:.2f})"
    if rank <= LEVEL:
        return Claim("causal", "pass", f"{reason}.", numbers)
    reason += f", which reach only p={rank:.2g}: a pass needs 99 matched sets, so "
    if trial.planned:
        reason += "run draws=99, or certify a set for which this site has as many."
    else:
        reason += "certify fewer neurons."
    return Claim("causal", "inconclusive", reason, numbers)


def specific(trial: Steered, cause: Claim, overlap: Mapping[str, int], seed: int = 0) -> Claim:
    """What the steering moves is not damage, and no other set moves as much.

    Pass: at least half of the contrast is left when every problem counts as unmoved whose answer
    cannot be read (silence is not), does not end, or is wrong and ends before any clean answer
    does; and the contrast exceeds that of the next-token and of the
    magnitude-ranked neurons outside the set, at the same displacement, and that of those and of
    three matched sets strengthened to the same KL on clean text. A control that does not do such
    damage at `FACTORS`' largest displacement has no such arm, and that is said.
    """
    each, n, ids = contrast(trial.own), len(trial.problems), np.array(trial.problems)
    early = trial.own.premature(trial.base)
    sound = (trial.own.sound & ~early).all(0)
    net = stats.cluster_bootstrap(np.mean, each * sound, ids, seed=seed, span=(-1, 1))
    kept = net.estimate / each.mean() if each.mean() else float("nan")
    beyond: dict[str, Interval] = {}
    for arm, other in trial.rivals.items():
        beyond[arm] = stats.cluster_bootstrap(
            np.mean, each - contrast(other), ids, seed=seed, span=(-2, 2)
        )
    weak = [arm for arm, factor in trial.factor.items() if factor > FACTORS[-1]]
    numbers: dict[str, Any] = spread("net", net) | {
        "kept": kept,
        "kl": trial.kl,
        "never_at_kl": weak,
        "factor": {arm: f for arm, f in trial.factor.items() if arm not in weak},
    }
    for arm, more in beyond.items():
        numbers[f"beyond {arm}"] = [more.estimate, more.low, more.high]
    numbers |= {
        "shared": dict(overlap),
        "damage_base": trial.base.damage(trial.base),
        "damage_matched": trial.damage,
        "damage_down": trial.own[0].damage(trial.base),
        "damage_up": trial.own[1].damage(trial.base),
    }
    if cause.verdict == "fail":
        reason = "There is no effect of the set's own that could be specific."
        return Claim("specific", "fail", reason, numbers)
    if cause.verdict == "inconclusive":
        reason = "Whether there is an effect is open: settle causal first."
        return Claim("specific", "inconclusive", reason, numbers)
    missing = [arm for arm in ("next_token", "magnitude") if arm not in trial.rivals]
    if missing:
        reason = "The site has too few other neurons for the controls "
        reason += f"{', '.join(missing)}: certify fewer neurons."
        return Claim("specific", "inconclusive", reason, numbers)
    reason = f"{kept:.0%} of the contrast is among answers that can be read and end in their time"
    least = min(beyond, key=lambda arm: beyond[arm].low)
    closest = beyond[least]
    reason += f"; it exceeds its closest control ({least.replace('_', '-')}) by {_of(closest)}"
    if weak:
        reason += f"; {len(weak)} of {len(trial.factor)} controls do less damage at "
        reason += f"{FACTORS[-1]:g} times the displacement"
    if net.high < SHARE * each.mean():
        return Claim("specific", "fail", f"{reason}: damage explains the larger part.", numbers)
    if any(_excludes_more(more) for more in beyond.values()):
        return Claim("specific", "fail", f"{reason}: others move as much.", numbers)
    if kept < SHARE or net.low <= 0 or closest.low <= 0:
        reason += f"; {_more(seen(closest), n, MOVE, 'a difference', 'n')}"
        return Claim("specific", "inconclusive", reason, numbers)
    return Claim("specific", "pass", f"{reason}.", numbers)


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
        reason = "There are not two pairs of high- and low-V states, or of states of equal V: "
        return Claim("sufficient", "inconclusive", f"{reason}run test=400 or more.", {})

    few, whole = trial.few - trial.low, trial.whole - trial.low
    all_of = stats.cluster_bootstrap(np.mean, whole, trial.group, seed=seed, span=(-1, 1))
    part = stats.cluster_bootstrap(patched_share, [few, whole], trial.group, seed=seed, span=(0, 1))
    equal = stats.cluster_bootstrap(
        np.mean, trial.after - trial.before, trial.like_group, seed=seed, span=(-1, 1)
    )
    others = (trial.matched - trial.low).mean(1).tolist()
    numbers = spread("share", part) | spread("whole", all_of) | spread("equal", equal)
    numbers |= {
        "set": float(few.mean()),
        "low": float(trial.low.mean()),
        "pairs": len(few),
        "same_problem": trial.same,
        "matched": others,
        "equal_pairs": len(trial.before),
        "k": k,
    }
    reason = f"patched from high- to low-V states ({len(few)} pairs, {trial.same} of one problem), "
    reason += f"V-hat rises by {few.mean():.2f}, by {_of(all_of)} with all neurons"
    if all_of.high < 0:
        reason += "; a whole state put there lowers V-hat, so this site at one position cannot tell"
        return Claim("sufficient", "inconclusive", f"{reason}: certify another site.", numbers)
    if all_of.low <= 0:
        reason += "; the whole patch itself does not reliably raise V-hat at one position"
        return Claim("sufficient", "inconclusive", f"{reason}: {_pairs(len(few))}.", numbers)
    reason += f": share {_of(part)}"
    if part.high < SHARE:
        return Claim("sufficient", "fail", f"{reason}.", numbers)
    if not part.low > SHARE:
        reason += f", and .5 is not settled: {_pairs(len(few))}."
        return Claim("sufficient", "inconclusive", reason, numbers)
    if not others:
        reason += "; there is no matched set to hold it against: certify fewer neurons."
        return Claim("sufficient", "inconclusive", reason, numbers)
    beyond = stats.cluster_bootstrap(
        np.mean, trial.few - trial.matched.mean(0), trial.group, seed=seed, span=(-1, 1)
    )
    numbers |= spread("beyond_matched", beyond)
    reason += f", {_of(beyond)} more than {len(others)} matched sets"
    if few.mean() <= max(others) or beyond.high <= 0:
        reason += f": others raise it as much (up to {max(others):.2f})."
        return Claim("sufficient", "fail", reason, numbers)
    if beyond.low <= 0:
        reason += f", which is not settled: {_pairs(len(few))}."
        return Claim("sufficient", "inconclusive", reason, numbers)
    if trial.same < len(few) / 2:
        reason += "; most pairs are of two problems, so what is brought may be the problem's"
        return Claim("sufficient", "inconclusive", f"{reason}: {_pairs(len(few))}.", numbers)
    reason += f"; between states of equal V it changes by {_of(equal)}"
    bound = SHARE * few.mean()
    if equal.low > bound or equal.high < -bound:
        reason += ": the patch moves V-hat whatever it brings."
        return Claim("sufficient", "fail", reason, numbers)
    if not (-bound < equal.low and equal.high < bound):
        reason += f": too wide; {_pairs(len(trial.before))}."
        return Claim("sufficient", "inconclusive", reason, numbers)
    return Claim("sufficient", "pass", f"{reason}.", numbers)


def patched_share(few: np.ndarray, whole: np.ndarray) -> float:
    """What a patch of few neurons does, as a share of a patch of all; NaN where that does
    nothing."""
    return float(few.mean() / whole.mean()) if whole.mean() > 0 else float("nan")


def _pairs(now: int) -> str:
    """A problem gives one pair at most, so more pairs need more problems."""
    return f"run pairs={4 * now} with test={4 * now} or more"


def seen(interval: Interval, level: float = LEVEL, power: float = 0.8) -> float:
    """Smallest effect seen with `power` at two-sided `level`, from a 95% interval.

    A normal approximation.
    """
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
    reason: str,
    effect: Interval,
    see: float,
    worth: float,
    what: str,
    option: str,
    numbers: dict[str, Any],
) -> Claim:
    """No pass: a fail where what is worth having is excluded, and else open."""
    if effect.high < worth:
        return Claim(claim, "fail", f"{reason}; {what} of {worth} is excluded.", numbers)
    reason += f"; {_more(see, effect.n, worth, what, option)}"
    return Claim(claim, "inconclusive", reason, numbers)


def _excludes_more(difference: Interval) -> bool:
    """Whether the set moves no more than a control, or no more worth having."""
    return difference.estimate <= 0 or (difference.low <= 0 and difference.high < MOVE)


def _more(see: float, n: int, worth: float, what: str, option: str) -> str:
    """What to run: as many as show `worth`.

    Four times as many where that could have been seen already.
    """
    if not isfinite(see):
        return f"inconclusive: no interval can be given at n={n}; run {option}={max(100, 4 * n)}."
    need = 10 * ceil(n * (see / worth) ** 2 / 10) if see > worth else 4 * n
    need = max(need, n + 10)
    return f"inconclusive: with n={n} {what} of {see:.2f} could be seen; run {option}={need}."


def _of(interval: Interval) -> str:
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
