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
from jaxtyping import Float
from scipy.stats import norm

from mechreward import stats
from mechreward.base.errors import one_of
from mechreward.causal.controls import MATCHED
from mechreward.causal.trials import (
    FACTORS,
    MEASURES,
    Patched,
    Steered,
    contrast,
    differs,
    measured,
)
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


def decodable(evidence: Evidence) -> Claim:
    """The set, read by a refitted linear probe on held-out problems, tells more of V-hat than step,
    position and prompt length do.

    Both are rid of what those tell (`stats.beyond.left_over`). Pass: the interval of their partial
    Spearman above 0, and p <= .01 when the sign of each problem's contribution is flipped. Fail:
    the interval excludes `READ`. A set of which nothing is shown beyond the difficulty of the
    problem, the log-probability so far or the length to come (p > .05) is not told apart from that:
    these lie in the future or may be the value itself, so it neither passes nor fails (our choice).
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
    reason += f"position and prompt length alone read {evidence.known:.2f}, and beyond them the "
    reason += f"set reads {_of(few)}, p={p:.2g} by signs of problems"
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
    Fewer than 19 random sets and bases settle nothing.
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
    if evidence.reading == "nothing":
        reason += ": nothing is read, so nothing is sparse; settle decodable."
        return Claim("sparse", "inconclusive", reason, numbers)
    if evidence.reading == "redundant":
        reason += ": random neurons do half as well as all, which is redundancy."
        return Claim("sparse", "fail", reason, numbers)
    reason += f"; the set closes {_of(gap)} of the gap"
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


def causal(
    trial: Steered, seed: int = 0, error: float = float("nan"), p_reads: float = 0.0
) -> Claim:
    """Steering the set one standard deviation toward high V and toward low V makes a difference in
    how many answers are right or, where the task has it, in how many turn back, that damage and
    neutral sets do not make.

    The direction is reported and does not decide: a set that is read only to turn back may do harm
    by it. A change of the same sign under both steerings is damage, whatever their difference. Zero
    and mean ablation stand beside it and do not decide, as they need not move V.

    Pass: exact McNemar of up against down p <= .01 after Holm over both measures, and the
    difference is larger, either way, than that of at least 99 matched sets that do not read V-hat.
    Where it is the turning back alone, that is said, and the set has to read V-hat on the training
    split too (`p_reads` <= .01): neurons may well decide to turn back by something else. Sets that
    read V-hat, matched ones and the best readers of all others, are no neutral controls: where one
    is not shown to move less, the set is causal and shares that with others. Fail: damage, neutral
    sets that move as much, or a difference of `MOVE` excluded either way.

    Sets are matched exactly on what the intervention does, the displacement; on rms as nearly as
    the site allows, and `error` (`causal.controls.Control`) says how nearly. Small sites have no 99
    sets of equal rms, so that is said and does not decide (our choice).
    """
    measures = [m for m in MEASURES if m == "reward" or measured(trial.own, m).any()]
    p = {measure: differs(trial.own, measure) for measure in measures}
    holm = dict(zip(p, stats.holm(np.array(list(p.values()))).tolist(), strict=True))
    moves = []
    for measure in measures:
        reads = measure == "reward" or p_reads <= LEVEL
        moves.append(_move(trial, measure, holm[measure], reads, seed))
    base = float(trial.base.reward.mean())
    down, up = measured(trial.own, "reward").mean(-1).tolist()
    numbers: dict[str, Any] = spread("contrast", moves[0].contrast)
    for move in moves[1:]:
        numbers |= spread(f"{move.measure}_contrast", move.contrast)
    numbers |= {
        "p_mcnemar": p,
        "p_holm": holm,
        "p_rank": {move.measure: move.p_rank for move in moves},
        "largest_matched": {move.measure: move.largest for move in moves},
        "readers_that_move_as_far": {move.measure: move.shared for move in moves},
        "readers_run": trial.readers.shape[1],
        "p_reads": p_reads,
        "detectable": seen(moves[0].contrast),
        "draws_run": trial.draws.shape[1],
        "draws": trial.planned,
        "rms_match_error": error,
        "accuracy": base,
        "accuracy_down": down,
        "accuracy_up": up,
    }
    for op, answers in trial.ablated.items():
        numbers[f"accuracy_{op}"] = float(answers.reward.mean())
    reason = f"accuracy {up:.2f} steered up, {down:.2f} down, {base:.2f} as it is"
    # The first measure that settles it, in this order: what passes, what is open, what fails.
    order = ("pass", "few", "unread", "open", "damage", "others", "excluded")
    first = min(moves, key=lambda move: order.index(move.reading))
    numbers["measure"] = first.measure
    reason += f": {WORDS[first.measure]} differs by {_of(first.contrast)}, n={first.contrast.n}, "
    reason += f"McNemar p={holm[first.measure]:.2g} after Holm"
    return _causal_claim(first, trial, reason, error, numbers)


WORDS = {"reward": "accuracy", "back": "turning back"}  # what the measures are called


@dataclass(frozen=True)
class _Move:
    """How far a set moves one measure, beside its controls, and what that comes to."""

    measure: str
    contrast: Interval
    p_rank: float
    as_far: int
    largest: float
    shared: int
    reading: str


def _move(trial: Steered, measure: str, p: float, reads: bool, seed: int) -> _Move:
    ids = np.array(trial.problems)
    base = measured(trial.base, measure)
    down, up = measured(trial.own, measure)
    moved = stats.paired_difference(up, down, ids, seed=seed)
    row = MEASURES.index(measure)
    draws, readers = np.abs(trial.draws[row]), np.abs(trial.readers[row])
    as_far = int((draws >= abs(moved.estimate)).sum())
    rank = (1 + as_far) / (1 + trial.planned)
    changes = [stats.paired_difference(side, base, ids, seed=seed) for side in (down, up)]
    if p > LEVEL:
        excluded = max(-moved.low, moved.high) < MOVE
        reading = "excluded" if excluded else "open"
    elif all(c.low > 0 for c in changes) or all(c.high < 0 for c in changes):
        reading = "damage"
    elif as_far and rank > LEVEL:
        reading = "others"
    elif rank > LEVEL:
        reading = "few"
    else:
        reading = "pass" if reads else "unread"
    least = max(moved.low, -moved.high)  # of what it moves, either way
    return _Move(
        measure,
        moved,
        rank,
        as_far,
        float(max(draws, default=np.nan)),
        int((readers >= least).sum()),
        reading,
    )


def _causal_claim(
    move: _Move, trial: Steered, reason: str, error: float, numbers: dict[str, Any]
) -> Claim:
    """The claim of the measure that decides."""
    run = trial.draws.shape[1]
    if move.reading in ("open", "excluded"):
        see = seen(move.contrast)
        if move.reading == "excluded":
            reason += f"; a difference of {MOVE} is excluded either way."
            return Claim("causal", "fail", reason, numbers)
        reason += f"; {_more(see, move.contrast.n, MOVE, 'a difference', 'n')}"
        return Claim("causal", "inconclusive", reason, numbers)
    if move.reading == "damage":
        reason += ": both steerings change it the same way, which is damage."
        return Claim("causal", "fail", reason, numbers)
    if move.reading == "others":
        reason += f"; {move.as_far} of {run} matched sets that do not read V-hat move it as far."
        return Claim("causal", "fail", reason, numbers)
    reason += f", beyond {run} sets of equal displacement that do not read V-hat"
    if isfinite(error) and error > MATCHED:
        reason += f", rms not matched (error {error:.2f})"
    reason += f" (largest {move.largest:.2f})"
    if move.reading == "few":
        reason += f", which reach only p={move.p_rank:.2g}: a pass needs 99, so "
        reason += "run draws=99, or certify a set for which this site has as many."
        return Claim("causal", "inconclusive", reason, numbers)
    if move.reading == "unread":
        reason += f"; it is not shown to read V-hat (p={numbers['p_reads']:.2g} on train): settle "
        return Claim("causal", "inconclusive", f"{reason}decodable first.", numbers)
    better = "up" if move.contrast.estimate > 0 else "down"
    reason += f"; more of it steered {better}"
    if move.measure == "back":
        reason = f"causal for turning back; {reason}"
    if move.shared:
        others = f"{move.shared} of {trial.readers.shape[1]} other sets that read V-hat"
        reason = f"causal, shared: {others} are not shown to move it less; {reason}"
    return Claim("causal", "pass", f"{reason}.", numbers)


def specific(trial: Steered, cause: Claim, overlap: Mapping[str, int], seed: int = 0) -> Claim:
    """What the steering moves is not damage, and no other set moves as much.

    Pass: at least half of the contrast is left when every problem counts as unmoved whose answer
    cannot be read (silence is not), does not end, or is wrong and ends before any clean answer
    does; and the contrast exceeds that of the next-token and of the
    magnitude-ranked neurons outside the set, at the same displacement, and that of those and of
    three matched sets strengthened to the same KL on clean text. A control that does not do such
    damage at `FACTORS`' largest displacement has no such arm, and that is said.
    """
    n, ids = len(trial.problems), np.array(trial.problems)
    measure = cause.numbers.get("measure", "reward")
    each = _forward(contrast(trial.own, measure))
    early = trial.own.premature(trial.base)
    sound = (trial.own.sound & ~early).all(0)
    net = stats.cluster_bootstrap(np.mean, each * sound, ids, seed=seed, span=(-1, 1))
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
