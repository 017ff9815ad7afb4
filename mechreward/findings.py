"""From rows to sentences: what was found and what was not. Every sentence follows from a rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward import stats
from mechreward.findings_causal import CAUSAL, RANKED, ablated, bounds, cite, kind_of
from mechreward.findings_compared import COMPARED
from mechreward.findings_steered import STEERED
from mechreward.results import Results, Row

RANKINGS = ("magnitude", "mean_difference", "correlation", "l1_penalised", "gradient_x_activation", "td_over_tokens")
NAMES = {"resid_post": "residual-stream coordinates", "mlp": "MLP units"}
WORDS = {
    "nothing": "not shown to be there",
    "sparse": "sparse",
    "redundant": "redundant (any neurons will do)",
    "distributed": "distributed (few coordinates of neither this basis nor random ones hold it)",
    "unclear": "neither clearly sparse nor clearly not",
}


def findings(results: Results) -> tuple[list[str], list[str]]:
    """Sentences for what holds and for what does not, by rules that are the same for every model and task.

    Readable: the 95% interval lies above chance (.5 for AUROC, 0 for Spearman). Learnt: that for V-hat lies above
    the whole interval of a model of random weights. Beyond the surface: the value read-out's interval lies above
    the best surface baseline's estimate. Adds to the surface: the interval of the increment lies above 0. Told
    apart (targets, the paper's cut): the intervals do not meet; a leak, where the z-score over the response lies
    above both that see no future. The target matters: McNemar at .05 after Holm over targets. At one damage: up
    beats down, McNemar at .05 after Holm over sets, above every control that does as much damage. Sparse: at the
    smallest share, the interval lies above every random subset and basis; and `evidence` reads "sparse". Causal:
    exact McNemar at .05 after Holm over all ablations, below every matched draw, and the draws really match; the
    rank is not corrected for how many ablations there are. Dependent: what zeroing takes from the dopamine read-out
    beyond matched sets has its interval below 0, and no matched draw takes as much; where the clean read-out's
    interval is not above 0 the test cannot tell. Steerable: up beats down, McNemar at .05 after Holm over strengths
    and places, first among 19 matched sets there; by share of neurons, alike, over shares. Patched: V-hat rises
    from high to low and falls from low to high, both intervals beyond 0 and beyond every matched draw. Repaired:
    what the last layer has undone has its interval above 0 and is first among matched sets after Holm over layers,
    for which 19 are too few where there are several. More than other rankings: zeroing costs more accuracy than
    that of every one of them, McNemar at .05 after Holm. Felt elsewhere: McNemar at .05 after Holm over tasks and
    ablations, and below every matched draw. Like next-token sets: at some share the hypergeometric p of the overlap
    is at most .05 after Holm over shares. A single neuron: the one chosen on train has on test, with its sign, an
    interval above 0 and an estimate above 97.5% of what the largest of all neurons has under shuffles. What must
    stand before or above every draw needs 19 of them: among fewer the first rank has p > .05, and what is seen is
    told among what was not found. Experiments that are not there are not spoken of.
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


def _readable(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    told = []
    rows = [row for row in results.where(experiment="R1", arm="value") if kind_of(row) == kind]
    if not rows:
        return []
    paper_like = [row for row in rows if row.detail.get("target") == "mc" and row.detail.get("shape") == "mlp"]
    for metric, words, chance in (
        ("spearman", "V-hat is readable: Spearman", 0.0),
        ("auroc_s0", "The final verdict is readable at s_0: AUROC", 0.5),
        ("auroc_last", "The final verdict is readable at the last state: AUROC", 0.5),
        ("auroc_within", "The final verdict is readable among answers to one problem: AUROC", 0.5),
    ):
        row = next((row for row in paper_like if row.metric == metric), None)
        if row is None or np.isnan(row.estimate):
            continue
        good = row.low > chance
        phrase = words if good else words.replace("is readable", "is not shown to be readable")
        told.append((good, f"{phrase} {row.interval}, from {name} at {row.site} (R1)."))
    return told + _learnt(results, paper_like, name)


def _learnt(results: Results, trained: Sequence[Row], name: str) -> list[tuple[bool, str]]:
    """Does a model of random weights show as much of V-hat?"""
    told = []
    for row in (row for row in trained if row.metric == "spearman"):
        others = results.where(experiment="R1", arm="random_weights", metric="spearman", site=row.site)
        for other in (other for other in others if other.detail["shape"] == row.detail["shape"]):
            good = row.low > other.high
            words = "more" if good else "not shown to be more"
            told.append(
                (
                    good,
                    f"What {name} at {row.site} show of V-hat (Spearman {row.interval}) is {words} than a model of "
                    f"random weights shows when it reads the same answers ({other.interval}; R1).",
                )
            )
    return told


def _sparse(results: Results, experiment: str, kind: str, name: str, arm: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment=experiment, metric="spearman") if kind_of(row) == kind]
    rows = curve_rows(rows, "mlp")
    if not rows:
        return []
    few = max(row.detail["ratio"] for row in rows)
    here = [row for row in rows if row.detail["ratio"] == few]
    own = next(row for row in here if row.arm == arm)
    nulls = [row for row in here if row.arm in ("random", "rotated")]
    nobody = max(nulls, key=lambda row: row.estimate)
    draws = min([sum(row.arm == null for row in nulls) for null in {row.arm for row in nulls}])
    full = next(row for row in rows if row.arm == arm and row.detail["ratio"] == 0.0)
    above = own.low > nobody.estimate
    words = "Sparser than chance" if above else "No sparser than chance"
    if above and draws < RANKED:
        words = f"Above {draws} draws of every null, too few to call it sparser than chance ({RANKED} are needed)"
    text = (
        f"{own.detail['neurons']} of the {name} at {own.site} read {'delta' if arm == 'dopamine' else 'V-hat'} with "
        f"Spearman {own.interval}; all together {bounds(full)}, the best random subset or basis of that size "
        f"{bounds(nobody)}"
    )
    other = ", ".join(f"{row.arm.replace('_', ' ')} {bounds(row)}" for row in here if row.arm in RANKINGS)
    text += f"; the best by other rankings: {other}" if other else ""
    told = [(above and draws >= RANKED, f"{words}: {text} ({cite(results, experiment, kind)}).")]
    for row in results.where(experiment=experiment, metric="sparsity"):
        if kind_of(row) == kind:
            told.append(_evidence(results, row, name))
    return told


def _evidence(results: Results, row: Row, name: str) -> tuple[bool, str]:
    d = row.detail
    beyond = "is not defined" if np.isnan(row.estimate) else str(row.interval)
    full, few = (bounds(same) if (same := held(results, row, d[key])) else f"{d[key]:.3f}" for key in ("full", "few"))
    return d["reading"] == "sparse", (
        f"A linear probe calls V-hat in {name} at {row.site} {WORDS[d['reading']]}: all read it with Spearman "
        f"{full} (p={d['p']:.2g} among shuffles), the {d['neurons']} that correlate best with {few}, as many random "
        f"ones on average {d['random']:.3f}, the best {d['neurons']} coordinates of random bases on average "
        f"{d['rotated']:.3f}; sparsity beyond redundancy {beyond} ({cite(results, 'R2', kind_of(row))})."
    )


def held(results: Results, evidence: Row, score: float) -> Row | None:
    """The point of the linear curve that is this score of a `sparsity` row, whose detail has no intervals."""
    here = {"experiment": "R2", "model": evidence.model, "task": evidence.task, "site": evidence.site}
    points = curve_rows(results.where(**here, metric="spearman"), "linear")
    ours = (row for row in points if row.arm in ("value", "correlation") and abs(row.estimate - score) < 1e-9)
    return next(ours, None)


def _surface(results: Results) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R7") if row.detail["known"] == "before"]
    if not rows:
        return []
    own = next(row for row in rows if row.arm == "value")
    best = max((row for row in rows if row.arm != "value"), key=lambda row: row.estimate)
    good = own.low > best.estimate
    words = "knows more than" if good else "is not shown to know more than"
    return [
        (
            good,
            f"Before the first token the value read-out (AUROC {own.interval}) {words} "
            f"{best.arm.replace('_', ' ')} ({best.interval}) (R7).",
        )
    ]


def _dopamine(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [
        row
        for row in results.where(experiment="R8", arm="dopamine", metric="spearman")
        if kind_of(row) == kind and row.detail.get("fitted") == "all steps" and row.detail.get("tested") == "all steps"
    ]
    if not rows:
        return []
    (row,) = rows
    good = row.low > 0
    words = "is readable" if good else "is not shown to be readable"
    return [(good, f"The TD error {words} from {name} at {row.site}: Spearman {row.interval} over all steps (R8).")]


def curve_rows(rows: Sequence[Row], shape: str, fit: str = "retrained") -> list[Row]:
    """The points of one pruning curve."""
    wanted = {"shape": shape, "fit": fit}
    return [row for row in rows if "ratio" in row.detail and wanted.items() <= row.detail.items()]


def _adds(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R1", metric="increment") if kind_of(row) == kind]
    return [
        (
            row.low > 0,
            f"The read-out of {name} at {row.site} adds {row.interval} to the AUROC that the surface of the answer so "
            f"far (length, difficulty, position, entropy, log-probability) gives at every state (R1).",
        )
        for row in rows
    ]


def _target(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R5", metric="gap") if kind_of(row) == kind]
    if not rows:
        return []
    p = stats.holm([row.detail["p_mcnemar"] for row in rows])
    told = []
    for row, value in zip(rows, p, strict=True):
        good = bool(value < 0.05 and row.estimate > 0)
        words, target = "is lower" if good else "is not shown to be lower", row.arm.replace("_", " ")
        text = (
            f"Accuracy without the {name} of the {target} target {words} than without those of the terminal target: "
            f"difference {row.interval}, McNemar p={value:.2g} after Holm (R5)."
        )
        told += [(good, text)] if target in ("td", "td over tokens") else []
    return told


def _token(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R6") if kind_of(row) == kind]
    if not rows:
        return []
    p = stats.holm([row.detail["p"] for row in rows])
    said = "; ".join(
        f"top {row.detail['share']:.0%}: IoU {row.estimate:.2f}, chance {row.detail['expected']:.2f}, p={value:.2g}"
        for row, value in zip(rows, p, strict=True)
    )
    good = bool((p <= 0.05).any())
    words = "overlap" if good else "are not shown to overlap"
    return [(good, f"Value sets of {name} {words} more than chance with next-token sets ({said}; Holm; R6).")]


def _single(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R9") if kind_of(row) == kind]
    if not rows:
        return []
    own = next(row for row in rows if row.metric == "spearman")
    most, null = (
        next(row for row in rows if row.metric == "max_spearman" and row.arm == arm) for arm in ("dopamine", "shuffled")
    )
    beyond = own.estimate > null.high
    good = bool(own.low > 0 and beyond)
    words = "follows delta on test" if good else "is not shown to follow delta on test"
    return [
        (
            good,
            f"Neuron {own.detail['neuron']} of the {name} at {own.site}, chosen on train, {words}: Spearman "
            f"{own.interval}, {'above' if beyond else 'not above'} {null.high:.3f}, the 97.5% quantile of the largest "
            f"of all {most.n} neurons under shuffles. The largest on test, whichever neuron that is, has "
            f"{most.estimate:.3f} (p={most.detail['p']:.2g} against the same shuffles; R9).",
        )
    ]
