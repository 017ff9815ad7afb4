"""What was found and what was not: every sentence follows from a rule."""

from __future__ import annotations

from mechreward.experiments.rows import Results
from mechreward.report.findings import (
    ablation,
    early_exit,
    search,
    steering,
    targets,
    td_error,
    value,
)
from mechreward.report.findings.finding import Finding
from mechreward.report.words import NAMES

# Every rule takes (results, kind of neuron, that kind in words), but for those that speak of all
# kinds at once. Sentences come in the order of the rules.
OF_VALUE = (value.readable, value.learnt, value.sparse_value, value.evidence)
OF_ALL_KINDS = (
    value.surface,
    ablation.ablated,
    search.guided,
    search.sibling_steps,
    early_exit.beyond_chance,
    early_exit.promises,
)
OF_THE_REST = (
    td_error.dopamine,
    td_error.sparse_dopamine,
    value.adds,
    targets.compared,
    td_error.cut,
    td_error.future,
    targets.matters,
    value.next_token,
    td_error.single_neuron,
    ablation.by_layer,
    ablation.rankings,
    ablation.elsewhere,
    ablation.repaired,
    td_error.depends,
    steering.steers,
    steering.at_one_damage,
    steering.by_share,
    steering.patched,
)


def findings(results: Results) -> tuple[list[str], list[str]]:
    """Sentences for what holds and for what does not, by rules that are the same for every model
    and task.

    Parameters
    ----------
    results : Results
        Rows of one model on one task. Experiments that are not there are not spoken of.

    Returns
    -------
    found, not_found : list of str
        Every sentence is in one of the two, in the order of the rules.

    Notes
    -----
    The rules are our choice. Intervals are of 95%, McNemar's test is exact and at .05, and Holm is
    over what the rule names.

    Value (`value.py`)

    - `readable`, R1: the interval lies above chance (.5 for AUROC, 0 for Spearman).
    - `learnt`, R1: the interval for V-hat lies above the whole interval of a model of random
      weights.
    - `sparse_value`, R2: at the smallest share, the interval lies above every random subset and
      basis.
    - `evidence`, R2: its reading is "sparse".
    - `surface`, R7: the interval of the paired difference to the surface baseline that other
      problems chose lies above 0; in older rows, the read-out's interval above the best baseline's
      estimate.
    - `adds`, R1: the interval of the increment to the surface lies above 0.
    - `next_token`, R6: at some share the hypergeometric p of the overlap is at most .05 after Holm
      over shares.

    Ablation (`ablation.py`)

    - `ablated`, R4: McNemar after Holm over all ablations, below every matched draw, and the draws
      really match. The rank is not corrected for how many ablations there are. Where the clean
      probe does not read V-hat, the sentence says that it is not about value.
    - `by_layer`, ablation by layer: at some layer McNemar after Holm over all layers and kinds,
      lower, below every matched draw, and the draws really match.
    - `rankings`, R4: zeroing costs more accuracy than that of every other ranking, McNemar after
      Holm over rankings and operations.
    - `elsewhere`, R4: McNemar after Holm over tasks and ablations, and below every matched draw.
    - `repaired`, R4: what the last layer has undone has its interval above 0 and is first among
      matched sets after Holm over layers, for which 19 are too few where there are several.

    Targets (`targets.py`)

    - `compared`, R1: the intervals of some two targets do not meet.
    - `matters`, R5: accuracy is lower than for the terminal target, McNemar after Holm over
      targets.

    TD error (`td_error.py`)

    - `dopamine`, R8: the interval lies above 0.
    - `sparse_dopamine`, R8: as `sparse_value`.
    - `cut`, R8: the intervals with and without the paper's cut do not meet.
    - `future`, R8, a leak: the interval of the z-score over the response lies above both that see
      no future.
    - `single_neuron`, R9: the neuron chosen on train has on test, with its sign, an interval above
      0 and an estimate above 97.5% of what the largest of all neurons has under shuffles.
    - `depends`, R10: what zeroing takes from the dopamine read-out beyond matched sets has its
      interval below 0, and no matched draw takes as much. Where the clean read-out's interval is
      not above 0 the test cannot tell.

    Search (`search.py`)

    - `guided`, R11: the gain of a step beam over the same beam by chance, or over another method at
      its own tokens, is above 0, sign flips of problems after Holm over beams.
    - `sibling_steps`, R11: the rate of better siblings is above .5, sign flips of states after Holm
      over scorers.

    Early exit (`early_exit.py`)

    - `beyond_chance`, early exit: where a quarter of the tokens is saved, the interval of the
      accuracy over that of stops by chance lies above 0.
    - `promises`, early exit: a kept promise loses as many answers with p >= .05, Holm over rules.

    Steering (`steering.py`)

    - `steers`, R14: up beats down, McNemar after Holm over strengths and places, first among 19
      matched sets there.
    - `at_one_damage`, R14: up beats down, McNemar after Holm over sets, above every control that
      does as much damage.
    - `by_share`, R14: as `steers`, Holm over shares of neurons.
    - `patched`, R14: V-hat rises from high to low and falls from low to high, both intervals beyond
      0 and beyond every matched draw.

    What must stand before or above every draw needs 19 of them: among fewer the first rank has
    p > .05, and what is seen is told among what was not found.
    """
    told: list[Finding] = []
    for kind, name in NAMES.items():
        for rule in OF_VALUE:
            told += rule(results, kind, name)
    for rule in OF_ALL_KINDS:
        told += rule(results)
    for kind, name in NAMES.items():
        for rule in OF_THE_REST:
            told += rule(results, kind, name)
    found = [finding.sentence for finding in told if finding.holds]
    not_found = [finding.sentence for finding in told if not finding.holds]
    return found, not_found
