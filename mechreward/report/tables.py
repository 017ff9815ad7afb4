"""The numbers of one setting as tables: what the sentences of `findings` do not say. Nothing is
tested here."""

from __future__ import annotations

from mechreward.experiments.rows import Results, Row
from mechreward.probing.probe import CONSTANT
from mechreward.report.formats import NONE, cell, measured, number, p_of, share
from mechreward.report.layout import Table
from mechreward.report.select import having, pivot
from mechreward.report.tables_causal import TABLES as CAUSAL
from mechreward.report.words import words

CALIBRATED = ("brier", "ece", "perfect_ece", "aurc", "prr")
SCORES = ("spearman", "auroc_s0", "auroc_all", "auroc_last", "auroc_within", "spread")


def numbers(results: Results) -> list[Table]:
    """One table for each experiment that left rows.

    A cell is an estimate with its interval as the row holds it; it says its own n where that
    differs from the line's. Means over draws stand between the lowest and the highest draw.
    P-values are those of the rows: not corrected.
    """
    tables = []
    for make in TABLES:
        table = make(results)
        if table.lines:
            tables.append(table)
    return tables


def value_probes(results: Results) -> Table:
    """R1: every probe on test, a line for each target, shape and null."""
    rows = having(results.where(experiment="R1"), "target")
    lines = []
    for place, cells in pivot(rows, "site", "arm", "detail.target", "detail.shape").items():
        site, arm, target, shape = place
        scores = [cells.get((arm, metric)) for metric in SCORES]
        *texts, n = measured(scores)
        spread = scores[-1]
        if spread is not None and spread.estimate < CONSTANT:
            texts[-1] += ", near constant"
        name = target if arm == "value" else f"{target}, {words(arm)}"
        lines.append([site, name, shape, *texts, n])
    return Table(
        "R1, probes on test. Shuffled: the same probe fitted to targets of other problems; same "
        "length: of other answers of equal length, which shows what length and step tell. Spread: "
        f"standard deviation of the read-out over that of V-hat; below {CONSTANT} a probe says "
        "nearly the same of every state.",
        (
            "at",
            "target",
            "shape",
            "Spearman with V-hat",
            "AUROC of the verdict at s_0",
            "at every state",
            "at the last",
            "within a problem",
            "spread",
            "n",
        ),
        lines,
    )


def surfaces(results: Results) -> Table:
    """R1: what the read-out adds to the surface of the answer."""
    rows = results.where(experiment="R1")
    rows = having(rows, "fitted") + having(rows, "beyond")
    lines = []
    for (site,), cells in pivot(rows, "site").items():
        surface = cells.get(("surface", "auroc_all"))
        both = cells.get(("surface_and_value", "auroc_all"))
        increment = cells.get(("value", "increment"))
        lines.append([site, *measured([surface, both, increment])])
    return Table(
        "R1, AUROC of the verdict at every state from the surface of the answer so far, fitted on "
        "validation.",
        ("at", "surface", "surface and read-out", "increment", "n"),
        lines,
    )


def layers(results: Results) -> Table:
    """R3: every cell of both splits."""
    rows = results.where(experiment="R3", metric="spearman")
    shares = sorted({row.detail["share"] for row in rows}, reverse=True)
    by_share: dict[tuple[str, ...], dict[float, Row]] = {}
    for row in rows:
        place = row.site, row.detail.get("split", "validation")
        by_share.setdefault(place, {})[row.detail["share"]] = row
    lines = []
    for place, cells in by_share.items():
        scores = [cells.get(part) for part in shares]
        *texts, n = measured(scores)
        for column, row in enumerate(scores):
            if row is not None and "p_holm" in row.detail:
                texts[column] += f" p={p_of(row, 'p_holm')}"
        lines.append([*place, *texts, n])
    heads = ["all" if part == 1 else f"top {share(part)}" for part in shares]
    return Table(
        "R3, Spearman with V-hat at every site, by the share of neurons; on test with p after Holm "
        "over the grid.",
        ("at", "split", *heads, "n"),
        lines,
    )


def next_tokens(results: Results) -> Table:
    """R6: overlap with next-token sets."""
    lines = []
    for row in results.where(experiment="R6", metric="iou"):
        detail = row.detail
        sets = [share(detail["share"]), str(detail["neurons"]), str(detail["shared"])]
        overlap = [number(row.estimate), number(detail["expected"]), p_of(row, "p")]
        lines.append([row.site, *sets, *overlap, str(row.n)])
    return Table(
        "R6, overlap of the value set with the next-token set of its size; p: hypergeometric, as "
        "large or larger.",
        ("at", "share", "neurons", "shared", "IoU", "chance", "p", "of neurons"),
        lines,
    )


def confidence(results: Results) -> Table:
    """R7: what the verdict can be read from."""
    lines = []
    for row in results.where(experiment="R7"):
        if row.metric.startswith("auroc"):
            lines.append([_confident(row), row.detail["known"], *measured([row])])
    return Table(
        "R7, AUROC of the verdict: from what is known before the first token, in the middle of an "
        "answer (meanwhile), after it, and after several.",
        ("from", "known", "AUROC", "n"),
        lines,
    )


def calibrated(results: Results) -> Table:
    """R7: what an arm is beyond the best baseline that sees as much, and how well calibrated."""
    lines = []
    rows = [row for row in results.where(experiment="R7") if "stage" in row.detail]
    for (arm, stage), cells in pivot(rows, "arm", "detail.stage").items():
        by_metric = {metric.partition("_")[0]: row for (_, metric), row in cells.items()}
        area = by_metric["auroc"]
        numbers = [number(area.detail[key]) for key in CALIBRATED]  # pyright: ignore
        scores = [by_metric.get("increment"), by_metric.get("added")]
        *texts, n = measured(scores)
        best = "the best baseline" if arm == area.detail["best"] else ""
        lines.append([_confident(area), stage, best, *texts, *numbers, n or str(area.n)])
    return Table(
        "R7, beside the surface baseline of its stage that other problems chose: AUROC beyond it, "
        "and AUROC that the arm adds to it. Brier score and expected calibration error are of "
        "calibrated scores, the latter beside that of perfect calibration at this n. Area under "
        "risk and coverage, and prediction-rejection ratio.",
        (
            "from",
            "stage",
            "",
            "beyond the best baseline",
            "added to it",
            "Brier",
            "ECE",
            "if perfect",
            "AURC",
            "PRR",
            "n",
        ),
        lines,
    )


def _confident(row: Row) -> str:
    """What confidence is read from."""
    if row.arm != "value":
        return words(row.arm)
    at_start = ", s_0" if row.metric == "auroc_s0" else ""
    return f"value read-out at {row.site}{at_start}"


def searches(results: Results) -> Table:
    """R11: accuracy of every method beside the tokens it generated."""
    lines = []
    for row in results.where(experiment="R11", metric="accuracy"):
        detail = row.detail
        cost = f"{detail['tokens']:.0f}"
        trained = f"{detail['trained']:,}" if "trained" in detail else NONE
        method = detail["algorithm"].replace("_", "-")
        lines.append(
            [words(row.arm), method, str(detail["k"]), *measured([row])[:1], cost, trained]
        )
    return Table(
        "R11, accuracy by method, over seeds, and generated tokens a problem, those of dropped "
        "candidates included. Best-of-n scorers choose among the same answers.",
        ("scorer", "method", "k", "accuracy", "tokens", "tokens to make the scorer"),
        lines,
    )


def search_gains(results: Results) -> Table:
    """R11: every beam over chance and over other uses of as many tokens."""
    lines = []
    for row in results.where(experiment="R11", metric="gain"):
        detail = row.detail
        gain, n = measured([row])
        p = [p_of(row, "p"), p_of(row, "p_holm"), p_of(row, "p_mcnemar")]
        lines.append([words(row.arm), detail["beyond"].replace("_", "-"), gain, *p, n])
    return Table(
        "R11, gain of each step beam over the same beam by chance, and over other methods at its "
        "own tokens (within 5%), on the same problems. p: flips of the signs of problems, then "
        "after Holm over the beams; McNemar: the median over seeds.",
        ("beam by", "over", "gain", "p", "p, Holm", "p, McNemar", "n"),
        lines,
    )


def sibling_steps(results: Results) -> Table:
    """R11: how often a scorer knows the better of two steps that follow one state."""
    lines = []
    rows = results.where(experiment="R11")
    for (arm,), cells in pivot([row for row in rows if "sibling" in row.metric], "arm").items():
        rate, clear, gain = (cells[arm, f"sibling_{name}"] for name in ("rate", "clear", "gain"))
        pairs = [str(row.detail["pairs"]) for row in (rate, clear)]
        texts = [measured([row])[0] for row in (rate, clear, gain)]
        p = p_of(rate, "p_holm")
        lines.append([words(arm), texts[0], p, pairs[0], texts[1], pairs[1], texts[2], str(rate.n)])
    return Table(
        "R11, how often a scorer prefers the better of two steps that follow one state, where "
        "chance is right in half of the pairs; p: flips of the signs of states, after Holm. One "
        "half of the continuations says which pairs differ (clearly: by 1.96 standard errors), "
        "the other which is better, both ways. Gain: V-hat of its choice less that of the mean.",
        ("scorer", "rate", "p, Holm", "pairs", "clear pairs", "pairs", "gain", "states"),
        lines,
    )


def early_exits(results: Results) -> Table:
    """Early exit: accuracy where all save the same, and what the conformal rule loses and saves."""
    rows = results.where(experiment="early_exit")
    shares = sorted({row.detail["saved"] for row in rows if row.metric == "gap"})
    lines = []
    for arm in dict.fromkeys(row.arm for row in rows):
        own = [row for row in rows if row.arm == arm]
        cells = {(row.metric, row.detail.get("saved")): row for row in own}
        if arm == "baseline":
            continue
        scores = [cells.get(("accuracy", part)) for part in shares]
        *texts, n = measured(scores)
        lost, _ = measured([cells.get(("lost", None))])
        saved = cells.get(("saved", None))
        lines.append(
            [words(arm), *texts, lost, NONE if saved is None else share(saved.estimate), n]
        )
    heads = [f"accuracy, {share(part)} saved" for part in shares]
    return Table(
        "Early exit: accuracy where every signal saves the same share of the tokens, answers that "
        "are given up counted as wrong; and of the conformal rule, which promises to lose at most "
        "10% of the answers that would end correct, what it lost and what it saved.",
        ("stopped by", *heads, "lost by the rule", "saved by the rule", "n"),
        lines,
    )


def td_errors(results: Results) -> Table:
    """R8: the dopamine read-out, with and without cut and z-score."""
    rows = having(results.where(experiment="R8", arm="dopamine"), "fitted")
    lines = []
    for place, cells in pivot(rows, "site", "detail.fitted", "detail.tested", "detail.z").items():
        *where, standardised = place
        plain = cells.get(("dopamine", "spearman")) or cells.get(("dopamine", "spearman_z"))
        fixed = cells.get(("dopamine", "spearman_disattenuated"))
        *texts, n = measured([plain, fixed])
        reliability = NONE if fixed is None else number(fixed.detail["reliability"])
        lines.append([*where, standardised or "the training split", *texts, reliability, n])
    return Table(
        "R8, Spearman of the dopamine read-out with delta. Disattenuated: over the square root of "
        "delta's reliability. Standardised over the response, a neuron sees the future; running, "
        "only what has been said so far.",
        (
            "at",
            "fitted on",
            "tested on",
            "standardised over",
            "Spearman",
            "disattenuated",
            "reliability of delta",
            "n",
        ),
        lines,
    )


def single_neurons(results: Results) -> Table:
    """R9: the chosen neuron, and the largest of all."""
    rows = [row for row in results.where(experiment="R9") if row.metric != "trace"]
    lines = []
    for (site,), cells in pivot(rows, "site").items():
        chosen = cells.get(("dopamine", "spearman"))
        largest = cells.get(("dopamine", "max_spearman"))
        shuffled = cells.get(("shuffled", "max_spearman"))
        neuron = train = width = shuffles = NONE
        if chosen is not None:
            neuron, train = str(chosen.detail["neuron"]), number(chosen.detail["train"])
        if largest is not None:
            width = f"{number(largest.estimate)} of {largest.n}"
        if shuffled is not None:
            shuffles = cell(shuffled, shuffled.n)
        score, n = measured([chosen])
        lines.append([site, neuron, train, score, width, shuffles, p_of(largest, "p"), n])
    return Table(
        "R9, one neuron chosen on train; and the largest |Spearman| of all on test, with its rank "
        "p among the largest under shuffles among answers of equal length (mean, 2.5% to 97.5% of "
        "shuffles).",
        (
            "at",
            "neuron",
            "train, absolute",
            "its Spearman on test",
            "largest on test",
            "largest under shuffles",
            "p of the largest",
            "n",
        ),
        lines,
    )


TABLES = (
    value_probes,
    surfaces,
    layers,
    next_tokens,
    confidence,
    calibrated,
    searches,
    search_gains,
    sibling_steps,
    early_exits,
    td_errors,
    single_neurons,
    *CAUSAL,
)
