"""Whether steering a set makes a difference of its own: the claim `causal`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from mechreward import stats
from mechreward.causal.controls import MATCHED
from mechreward.causal.trials import MEASURES, Steered, differs, measured
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
from mechreward.stats import Interval

WORDS = {"reward": "accuracy", "back": "turning back"}  # what the measures are called
# What is asked of the reading of a set that moves turning back alone: many sets do, and few of them
# read V-hat, so that p <= .01 would be chance too often (our choice, made after null twins passed).
READS = 0.001
OUTWEIGHED = (
    ": an effect that damage outweighs, or what damage has left to choose from. More problems do "
    "not settle that; steering that does less damage may."
)


def causal(
    trial: Steered,
    seed: int = 0,
    error: float = float("nan"),
    p_reads: float = 0.0,
    asked: int = 99,
) -> Claim:
    """Steering the set one standard deviation toward high V and toward low V makes a difference in
    how many answers are right or, where the task has it, in how many turn back, that damage and
    neutral sets do not make.

    The direction is reported and does not decide: a set that is read only to turn back may do harm
    by it. A difference is damage, whatever its size, where both steerings are shown to change the
    measure the same way (both 95% intervals on one side of 0); so is one that is shown not to be
    half left (95% interval) when every problem counts as unmoved of which a steered answer cannot
    be read, does not end, or is wrong and ends before a twentieth of the clean answers has. An
    estimate of less than half, where half is not excluded, is open, and so is a difference of the
    other sign that is shown among the others. Zero and mean ablation stand beside it and do not
    decide, as they need not move V. Damage that leaves answers which can be read and are no
    shorter than others cannot be told from an effect: of 200 answers of 9 to 29 tokens, 60 right
    ones that end wrong after 1 to 14 tokens passed in 4 of 40 trials, after 1 to 20 in all. Nor can
    damage that strikes right answers alone where steering draws the others anew: without it right
    and wrong ones are no longer alike. Silence for 60% of the right ones (accuracy .35, n=200)
    passed in 14 of 20 made trials where 30% of the other outcomes were kept as they are; where 80%
    were kept, of silence for 30 to 90% at accuracies of .2 to .5, 3 of 360 trials passed.

    Pass: exact McNemar of up against down p <= .01 after Holm over both measures, with those
    problems and without what they moved, and the difference without it is at least half of the
    whole, and larger, either way, than the whole one of at least 99 matched sets that do not read
    V-hat. Where it is the turning back alone, that is said, and the set has to read V-hat on
    held-out problems too (`p_reads` <= `READS`): neurons may well decide to turn back by something
    else.

    Sets that read V-hat, matched ones and the best readers of all others, are no neutral controls:
    where one is not shown to move less, the set is causal and shares that with others.

    Fail: damage, neutral sets that move as much, or none shown and one of `MOVE` excluded either
    way.

    Sets are matched exactly on what the intervention does, the displacement; on rms as nearly as
    the site allows, and `error` (`causal.controls.Control`) says how nearly. Small sites have no 99
    sets of equal rms, so that is said and does not decide (our choice). `asked` draws (default 99)
    were asked for, of which a site may have fewer.
    """
    measures = [m for m in MEASURES if m == "reward" or measured(trial.own, m).any()]
    p = {measure: differs(trial.own, measure) for measure in measures}
    holm = _holm(p)
    among_sound = {measure: differs(trial.own, measure, trial.sound) for measure in measures}
    sound = _holm(among_sound)
    moves = []
    for measure in measures:
        reads = measure == "reward" or p_reads <= READS
        moves.append(_move(trial, measure, holm[measure], sound[measure], reads, seed))
    base = float(trial.base.reward.mean())
    down, up = measured(trial.own, "reward").mean(-1).tolist()
    numbers: dict[str, Any] = spread("contrast", moves[0].contrast) | spread("net", moves[0].net)
    for move in moves[1:]:
        numbers |= spread(f"{move.measure}_contrast", move.contrast)
        numbers |= spread(f"{move.measure}_net", move.net)
    numbers |= {
        "p_mcnemar": p,
        "p_holm": holm,
        "p_holm_sound": sound,
        "p_rank": {move.measure: move.p_rank for move in moves},
        "largest_matched": {move.measure: move.largest for move in moves},
        "readers_that_move_as_far": {move.measure: move.shared for move in moves},
        "readers_run": trial.readers.shape[1],
        "p_reads": p_reads,
        "detectable": seen(moves[0].contrast),
        "draws_run": trial.draws.shape[1],
        "draws": trial.planned,
        "draws_asked": asked,
        "rms_match_error": error,
        "accuracy": base,
        "accuracy_down": down,
        "accuracy_up": up,
    }
    for op, answers in trial.ablated.items():
        numbers[f"accuracy_{op}"] = float(answers.reward.mean())
    reason = f"accuracy {up:.2f} steered up, {down:.2f} down, {base:.2f} as it is"
    # The first measure that settles it, in this order: what passes, what is open, what fails.
    order = "pass few unread open unsound opposite damage broken others excluded".split()
    first = min(moves, key=lambda move: order.index(move.reading))
    numbers["measure"] = first.measure
    reason += (
        f": {WORDS[first.measure]} differs by {bounded(first.contrast)}, n={first.contrast.n}, "
    )
    reason += f"McNemar p={holm[first.measure]:.2g} after Holm"
    for move in moves:
        other = move is not first and move.reading in ("damage", "broken")
        if other or (move.both and move.reading in ("open", "excluded")):
            reason += f"; what it does to {WORDS[move.measure]} is damage"
    return _causal_claim(first, trial, reason, error, numbers)


@dataclass(frozen=True)
class _Move:
    """How far a set moves one measure, beside its controls, and what that comes to."""

    measure: str
    contrast: Interval
    net: Interval  # among sound answers
    p_sound: float
    both: bool  # whether both steerings change it the same way
    p_rank: float
    as_far: int
    largest: float
    shared: int
    reading: str


def _holm(p: dict[str, float]) -> dict[str, float]:
    return dict(zip(p, stats.holm(np.array(list(p.values()))).tolist(), strict=True))


def _move(trial: Steered, measure: str, p: float, p_sound: float, reads: bool, seed: int) -> _Move:
    ids = np.array(trial.problems)
    base = measured(trial.base, measure)
    down, up = measured(trial.own, measure)
    moved = stats.paired_difference(up, down, ids, seed=seed)
    net = stats.paired_difference(up * trial.sound, down * trial.sound, ids, seed=seed)
    side = 1 if moved.estimate > 0 else -1
    left = max(side * net.low, side * net.high)  # the most that sound answers may differ by
    sound = side * net.estimate
    # Controls count with all that they move, damage included; the set with what is sound of it.
    own = min(side * moved.estimate, sound)
    row = MEASURES.index(measure)
    draws, readers = np.abs(trial.draws[row]), np.abs(trial.readers[row])
    as_far = int((draws >= own).sum())
    rank = (1 + as_far) / (1 + trial.planned)
    changes = [stats.paired_difference(change, base, ids, seed=seed) for change in (down, up)]
    both = all(c.low > 0 for c in changes) or all(c.high < 0 for c in changes)
    if p > LEVEL:
        excluded = max(-moved.low, moved.high, -net.low, net.high) < MOVE
        reading = "excluded" if excluded else "open"
    elif both:
        reading = "damage"
    elif sound < 0 and p_sound <= LEVEL:
        reading = "opposite"
    elif left < SHARE * abs(moved.estimate):
        reading = "broken"
    elif sound < SHARE * abs(moved.estimate) or p_sound > LEVEL:
        reading = "unsound"
    elif as_far and rank > LEVEL:
        reading = "others"
    elif rank > LEVEL:
        reading = "few"
    else:
        reading = "pass" if reads else "unread"
    # Of what it moves, either way, and of what of that is sound.
    least = min(max(moved.low, -moved.high), max(net.low, -net.high))
    return _Move(
        measure,
        moved,
        net,
        p_sound,
        both,
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
    left = "among answers that can be read and end in their time it differs by "
    left += f"{bounded(move.net)}, p={move.p_sound:.2g} after Holm"
    if move.reading in ("open", "excluded"):
        see = max(seen(move.contrast), seen(move.net))
        if move.reading == "excluded":
            reason += f"; a difference of {MOVE} is excluded either way."
            return Claim("causal", "fail", reason, numbers)
        if move.net != move.contrast:
            reason += f"; {left}"
        if move.p_sound <= LEVEL and move.net.estimate * move.contrast.estimate <= 0:
            return Claim("causal", "inconclusive", f"{reason}{OUTWEIGHED}", numbers)
        reason += f"; {what_to_run(see, move.contrast.n, MOVE, 'a difference', 'n')}"
        return Claim("causal", "inconclusive", reason, numbers)
    if move.reading == "damage":
        reason += ": both steerings change it the same way, which is damage."
        return Claim("causal", "fail", reason, numbers)
    if move.reading in ("broken", "unsound"):
        if move.reading == "broken":
            return Claim("causal", "fail", f"{reason}; {left}: damage is the larger part.", numbers)
        reason += f"; {left}, which is not settled: run n={4 * move.net.n}."
        return Claim("causal", "inconclusive", reason, numbers)
    if move.reading == "opposite":
        reason = f"{reason}; {left}, the other way{OUTWEIGHED}"
        return Claim("causal", "inconclusive", reason, numbers)
    if move.reading == "others":
        reason += f"; {move.as_far} of {run} matched sets that do not read V-hat move it as far."
        return Claim("causal", "fail", reason, numbers)
    if move.reading == "few":
        return Claim("causal", "inconclusive", reason + _too_few(trial, numbers), numbers)
    if move.net.estimate != move.contrast.estimate:
        reason += f"; {left}"
    sets = f"all but {move.as_far} of {run}" if move.as_far else f"{run}"
    reason += f", beyond {sets} sets of equal displacement that do not read V-hat"
    if isfinite(error) and error > MATCHED:
        reason += f", rms not matched (error {error:.2f})"
    reason += f" (largest {move.largest:.2f})"
    if move.reading == "unread":
        reason += f"; it is not shown to read V-hat (p={numbers['p_reads']:.2g} on held-out "
        reason += f"problems; {READS} is asked): settle "
        return Claim("causal", "inconclusive", f"{reason}decodable first.", numbers)
    better = "up" if move.contrast.estimate > 0 else "down"
    reason += f"; more of it steered {better}"
    if move.measure == "back":
        reason = f"causal for turning back; {reason}"
    if move.shared:
        others = f"{move.shared} of {trial.readers.shape[1]} other sets that read V-hat"
        reason = f"causal, shared: {others} are not shown to move it less; {reason}"
    return Claim("causal", "pass", f"{reason}.", numbers)


def _too_few(trial: Steered, numbers: dict[str, Any]) -> str:
    """Why there are no 99 sets, and what to do: the first few alone were run."""
    sets, asked = trial.planned, numbers["draws_asked"]
    text = "; a pass needs 99 sets of equal displacement that do not read V-hat, "
    if sets < asked:
        return f"{text}and this site has {sets}: certify another set, or other layers."
    return f"{text}and {asked} were asked for: run draws=99."
