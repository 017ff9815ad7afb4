"""What the numbers of an experiment say about each claim: pass, fail, or what to run.

A pass needs the effect, its controls and the power to have missed neither. A fail needs the power
to have seen an effect worth having. All else is inconclusive. Levels and sizes below are our
choice, the same for every model. The docstring of a claim is what a certificate's page says of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.causal.cause import causal
from mechreward.causal.stability import FoundAgain
from mechreward.causal.trials import FACTORS, Patched, Steered, contrast
from mechreward.causal.verdict import (
    LEVEL,
    MOVE,
    SHARE,
    Claim,
    bounded,
    seen,
    spread,
    what_to_run,
)
from mechreward.probing.evidence import Evidence
from mechreward.stats import Interval

FEWEST = 19  # draws that a rank of .05 needs
PROBLEMS = 20  # to read: with 15, p <= .01 comes in 4 to 7% of nulls (our choice)
READ = 0.2  # Spearman with V-hat that is worth having


def decodable(evidence: Evidence) -> Claim:
    """The set, read by a refitted linear probe on held-out problems, tells more of V-hat than step,
    position and prompt length do.

    Both are rid of what those tell (`stats.beyond.Known`). Pass: the interval of their partial
    Spearman above 0, and p <= .01 when the sign of each problem's contribution is flipped. Fail:
    the interval excludes `READ`. A set of which nothing is shown beyond the difficulty of the
    problem, the log-probability so far or the length to come (p > .01) is not told apart from that:
    these lie in the future or may be the value itself, so it neither passes nor fails (our choice).
    Fewer than 20 problems settle nothing. What is taken off is smooth in position and prompt
    length, and adds up: neurons that know a jump of prompt length, steps of long prompts alone, or
    a counter that begins again, such as position modulo 4, can pass where V-hat follows the same.
    """
    few, p = evidence.few.score, evidence.few.p
    see = seen(few)
    numbers: dict[str, Any] = spread("spearman", few) | {
        "p": p,
        "detectable": see,
        "plain": evidence.plain.estimate,
        "known": evidence.known,
        "all_neurons": evidence.full.score.estimate,
        "p_all": evidence.full.p,
    }
    for name, beyond in evidence.further.items():
        score = beyond.score
        numbers[f"beyond {name}"] = [score.estimate, score.low, score.high, beyond.p]
    reason = f"Spearman with V-hat {evidence.plain.estimate:.2f} on held-out problems; step, "
    known = "nothing" if np.isnan(evidence.known) else f"{evidence.known:.2f}"
    reason += f"position and prompt length alone read {known}, and beyond them the "
    reason += f"set reads {bounded(few)}, p={p:.2g} by signs of problems"
    if few.n < PROBLEMS:
        reason += f"; {few.n} problems are too few to tell: run test={PROBLEMS} or more."
        return Claim("decodable", "inconclusive", reason, numbers)
    if not (few.low > 0 and p <= LEVEL):
        return _unseen("decodable", reason, few, see, READ, "a Spearman", "test", numbers)
    if evidence.lost_to:
        reason += f"; not told apart from {' and '.join(evidence.lost_to)}: "
        reason += f"run test={4 * few.n}, or take problems that are alike in it."
        return Claim("decodable", "inconclusive", reason, numbers)
    return Claim("decodable", "pass", f"{reason}.", numbers)


def sparse(evidence: Evidence) -> Claim:
    """Few neurons do what other few, and other bases, do not (`probing.evidence`): sparsity above
    or below .5, all scores being what is read beyond step, position and prompt length.

    A set that is not told apart from another fact (`decodable`) is not called sparse. As many
    random neurons that read half as well as all of them are redundancy: that fails too.
    Fewer than 19 random sets and bases, or 20 problems, settle nothing.
    """
    gap, n = evidence.sparsity, evidence.few.score.n
    random, rotated = float(np.mean(evidence.random)), float(np.mean(evidence.rotated))
    few, full = evidence.few.score.estimate, evidence.full.score.estimate
    numbers = spread("sparsity", gap) | {
        "reading": evidence.reading,
        "random": random,
        "neurons": evidence.neurons,
        "rotated": rotated,
        "full": full,
        "few": few,
    }
    reason = "beyond step, position and prompt length "
    reason += f"{evidence.neurons} neurons read {few:.2f}, as many random ones {random:.2f}, "
    reason += f"the best of other bases {rotated:.2f}, all {full:.2f}"
    if len(evidence.random) < FEWEST:
        reason += f"; {len(evidence.random)} random sets are no control: "
        return Claim("sparse", "inconclusive", f"{reason}run draws={FEWEST} or more.", numbers)
    if n < PROBLEMS:
        reason += f"; {n} problems are too few to tell: run test={PROBLEMS} or more."
        return Claim("sparse", "inconclusive", reason, numbers)
    if evidence.reading == "nothing":
        reason += ": nothing is read, so nothing is sparse; settle decodable."
        return Claim("sparse", "inconclusive", reason, numbers)
    if evidence.reading == "redundant":
        reason += ": random neurons do half as well as all, which is redundancy."
        return Claim("sparse", "fail", reason, numbers)
    reason += f"; the set closes {bounded(gap)} of the gap"
    if gap.low > 0.5 and evidence.lost_to:
        reason += f"; not told apart from {' and '.join(evidence.lost_to)}: settle decodable."
        return Claim("sparse", "inconclusive", reason, numbers)
    if gap.low > 0.5:
        return Claim("sparse", "pass", f"{reason}.", numbers)
    if gap.high < 0.5:
        return Claim("sparse", "fail", f"{reason}.", numbers)
    if isfinite(gap.low):
        more = f"run test={4 * n}"
    else:
        more = "there is no gap to close: certify fewer neurons"
    return Claim("sparse", "inconclusive", f"{reason}, and .5 is not settled: {more}.", numbers)


def specific(trial: Steered, cause: Claim, overlap: Mapping[str, int], seed: int = 0) -> Claim:
    """What the steering moves is not damage, and no other set moves as much.

    Pass: at least half of the contrast is left when every problem counts as unmoved of which a
    steered answer cannot be read (silence is not), does not end, or is wrong and ends before a
    twentieth of the clean answers has; and the contrast exceeds that of the next-token and of the
    magnitude-ranked neurons outside the set, at the same displacement, and that of those and of
    three matched sets strengthened to the same KL on clean text. A control that does not do such
    damage at `FACTORS`' largest displacement has no such arm, and that is said.
    """
    n, ids = len(trial.problems), np.array(trial.problems)
    measure = cause.numbers.get("measure", "reward")
    each = _forward(contrast(trial.own, measure))
    net = stats.cluster_bootstrap(np.mean, each * trial.sound, ids, seed=seed, span=(-1, 1))
    kept = net.estimate / each.mean() if each.mean() else float("nan")
    beyond: dict[str, Interval] = {}
    for arm, answers in trial.rivals.items():
        gap = each - _forward(contrast(answers, measure))
        beyond[arm] = stats.cluster_bootstrap(np.mean, gap, ids, seed=seed, span=(-2, 2))
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
    reason += f"; it exceeds its closest control ({least.replace('_', '-')}) by {bounded(closest)}"
    if weak:
        reason += f"; {len(weak)} of {len(trial.factor)} controls do less damage at "
        reason += f"{FACTORS[-1]:g} times the displacement"
    if net.high < SHARE * each.mean():
        return Claim("specific", "fail", f"{reason}: damage explains the larger part.", numbers)
    if any(_excludes_more(more) for more in beyond.values()):
        return Claim("specific", "fail", f"{reason}: others move as much.", numbers)
    if kept < SHARE or net.low <= 0 or closest.low <= 0:
        reason += f"; {what_to_run(seen(closest), n, MOVE, 'a difference', 'n')}"
        return Claim("specific", "inconclusive", reason, numbers)
    return Claim("specific", "pass", f"{reason}.", numbers)


def _forward(each: Float[np.ndarray, " problem"]) -> Float[np.ndarray, " problem"]:
    """A contrast with the sign that makes its mean positive: direction does not decide."""
    return -each if each.mean() < 0 else each


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
    reason += f"V-hat rises by {few.mean():.2f}, by {bounded(all_of)} with all neurons"
    if all_of.high < 0:
        reason += "; a whole state put there lowers V-hat, so this site at one position cannot tell"
        return Claim("sufficient", "inconclusive", f"{reason}: certify another site.", numbers)
    if all_of.low <= 0:
        reason += "; the whole patch itself does not reliably raise V-hat at one position"
        return Claim("sufficient", "inconclusive", f"{reason}: {_pairs(len(few))}.", numbers)
    reason += f": share {bounded(part)}"
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
    reason += f", {bounded(beyond)} more than {len(others)} matched sets"
    if few.mean() <= max(others) or beyond.high <= 0:
        reason += f": others raise it as much (up to {max(others):.2f})."
        return Claim("sufficient", "fail", reason, numbers)
    if beyond.low <= 0:
        reason += f", which is not settled: {_pairs(len(few))}."
        return Claim("sufficient", "inconclusive", reason, numbers)
    if trial.same < len(few) / 2:
        reason += "; most pairs are of two problems, so what is brought may be the problem's"
        return Claim("sufficient", "inconclusive", f"{reason}: {_pairs(len(few))}.", numbers)
    reason += f"; between states of equal V it changes by {bounded(equal)}"
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


def stable(found: FoundAgain | None, seed: int = 0) -> Claim:
    """The set is found again by its own recipe: same site, probe, ranking and share, on half as
    many problems, other answers and continuations, with other seeds, five times.

    Pass: the mean intersection over union with the set has its interval above what chance gives
    (any neurons, or neurons as large, whichever is more), and the median is at least .5. Fail: the
    interval ends below .5. Problems are drawn anew each time; where a task has few, the same ones
    come again. A set that was given by hand has no recipe, which leaves the claim open. To be found
    again shows a recipe that does not follow noise; it does not show what the neurons do.
    """
    if found is None:
        reason = "The set was given by hand: only a set that `select` found can be found again."
        return Claim("stable", "inconclusive", reason, {})
    numbers: dict[str, Any] = {"iou_each": found.iou.tolist(), "problems": found.problems}
    missing = int(np.isnan(found.iou).sum())
    times = len(found.iou)
    if missing:
        reason = f"In {missing} of {times} repeats the recipe found nothing: run "
        reason += f"train={8 * found.problems} if that can help ({found.fault.rstrip('.')})."
        return Claim("stable", "inconclusive", reason, numbers)
    middle, chance = float(np.median(found.iou)), float(found.chance.mean())
    mean = stats.cluster_bootstrap(np.mean, found.iou, np.arange(times), seed=seed, span=(0, 1))
    numbers |= spread("iou", mean) | {"median": middle, "chance": chance}
    reason = f"found again {times} times, on {found.problems} problems each: mean IoU "
    reason += f"{bounded(mean)}, median {middle:.2f}, by chance {chance:.2f}"
    if mean.low > chance and middle >= SHARE:
        return Claim("stable", "pass", f"{reason}.", numbers)
    if mean.high < SHARE:
        return Claim("stable", "fail", f"{reason}: other rollouts find other neurons.", numbers)
    reason += f": not settled; run train={8 * found.problems}."
    return Claim("stable", "inconclusive", reason, numbers)


def _pairs(now: int) -> str:
    """A problem gives one pair at most, so more pairs need more problems."""
    return f"run pairs={4 * now} with test={4 * now} or more"


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
    reason += f"; {what_to_run(see, effect.n, worth, what, option)}"
    return Claim(claim, "inconclusive", reason, numbers)


def _excludes_more(difference: Interval) -> bool:
    """Whether the set moves no more than a control, or no more worth having."""
    return difference.estimate <= 0 or (difference.low <= 0 and difference.high < MOVE)


# Claim -> what it asks: the docstring is what a certificate's page says of it.
QUESTIONS = {
    "decodable": decodable,
    "sparse": sparse,
    "causal": causal,
    "specific": specific,
    "sufficient": sufficient,
    "stable": stable,
}
