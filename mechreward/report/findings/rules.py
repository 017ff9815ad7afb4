"""What was found and what was not: every sentence follows from a rule."""

from __future__ import annotations

from mechreward.experiments.rows import Results
from mechreward.report.findings.ablation import CAUSAL, ablated
from mechreward.report.findings.steering import STEERED
from mechreward.report.findings.targets import _targets
from mechreward.report.findings.td_error import _cut, _dopamine, _future, _single
from mechreward.report.findings.value import _adds, _readable, _sparse, _surface, _target, _token
from mechreward.report.words import NAMES


def findings(results: Results) -> tuple[list[str], list[str]]:
    """Sentences for what holds and for what does not, by rules that are the same for every model
    and task.

    Readable: the 95% interval lies above chance (.5 for AUROC, 0 for Spearman). Learnt: that for
    V-hat lies above the whole interval of a model of random weights. Beyond the surface: the value
    read-out's interval lies above the best surface baseline's estimate. Adds to the surface: the
    interval of the increment lies above 0. Told apart (targets, the paper's cut): the intervals do
    not meet; a leak, where the z-score over the response lies above both that see no future. The
    target matters: McNemar at .05 after Holm over targets. At one damage: up beats down, McNemar at
    .05 after Holm over sets, above every control that does as much damage. Sparse: at the smallest
    share, the interval lies above every random subset and basis; and `evidence` reads "sparse".
    Causal: exact McNemar at .05 after Holm over all ablations, below every matched draw, and the
    draws really match; the rank is not corrected for how many ablations there are. Dependent: what
    zeroing takes from the dopamine read-out beyond matched sets has its interval below 0, and no
    matched draw takes as much; where the clean read-out's interval is not above 0 the test cannot
    tell. Steerable: up beats down, McNemar at .05 after Holm over strengths and places, first among
    19 matched sets there; by share of neurons, alike, over shares. Patched: V-hat rises from high
    to low and falls from low to high, both intervals beyond 0 and beyond every matched draw.
    Repaired: what the last layer has undone has its interval above 0 and is first among matched
    sets after Holm over layers, for which 19 are too few where there are several. More than other
    rankings: zeroing costs more accuracy than that of every one of them, McNemar at .05 after Holm.
    Felt elsewhere: McNemar at .05 after Holm over tasks and ablations, and below every matched
    draw. Like next-token sets: at some share the hypergeometric p of the overlap is at most .05
    after Holm over shares. A single neuron: the one chosen on train has on test, with its sign, an
    interval above 0 and an estimate above 97.5% of what the largest of all neurons has under
    shuffles. What must stand before or above every draw needs 19 of them: among fewer the first
    rank has p > .05, and what is seen is told among what was not found. Experiments that are not
    there are not spoken of.
    """
    told: list[tuple[bool, str]] = []
    for kind, name in NAMES.items():
        told += _readable(results, kind, name)
        told += _sparse(results, "R2", kind, name, "value")
    told += _surface(results)
    told += ablated(results)
    for kind, name in NAMES.items():
        told += _dopamine(results, kind, name)
        told += _sparse(results, "R8", kind, name, "dopamine")
        for rule in (_adds, *COMPARED, _target, _token, _single, *CAUSAL, *STEERED):
            told += rule(results, kind, name)
    return [s for good, s in told if good], [s for good, s in told if not good]


COMPARED = (_targets, _cut, _future)
