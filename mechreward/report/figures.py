"""Which pictures a page of results has: rows selected, captions written, SVG drawn by `charts` and
`show`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward import show
from mechreward.experiments.rows import Results, Row
from mechreward.models.site import Site
from mechreward.report.select import LEVEL, curve_rows, grid_rows, kind_of, of
from mechreward.report.words import ARMS, NAMES, cite, of_share, words
from mechreward.show.charts import (
    ablation_bars,
    layers_heatmap,
    pruning_curve,
    share_curve,
    steering_curve,
    traces,
)
from mechreward.show.forest import Estimate, forest
from mechreward.show.heatmap import matrix
from mechreward.show.style import Reference
from mechreward.stats import Interval

Picture = tuple[str, str, str]  # caption, file name, SVG
Groups = dict[str, list[Estimate]]  # heading -> lines of a forest plot

NULLS = ("shuffled", "same_length", "random_weights")
KNOWN = {
    "before": "known before the first token",
    "meanwhile": "known in the middle of an answer",
    "after": "known after the answer",
    "several": "known after several answers",
}
CURVES = (("R2", "V-hat"), ("R8", "delta"))  # experiment, what is read
FITS = (("mlp", "retrained"), ("linear", "retrained"), ("mlp", "masked"))  # shape, fit
STEERED = (("accuracy", "accuracy"), ("value", "V-hat of the continuation"))
DOSES = (
    ("accuracy_zeroed", "zeroed: accuracy"),
    ("contrast_at_share", "steered up minus down"),
)


def pictures(results: Results) -> list[Picture]:
    """Forest plots of the experiments that have no curve (R1, R5, R6, R7, R10).

    Parameters
    ----------
    results
        Rows of one home.

    Returns
    -------
    list of (caption, file name, SVG)
        One for each of these experiments that has rows; for R1 one for each kind of neuron.
    """
    return [
        *_probes(results),
        *_targets(results),
        *_next_tokens(results),
        *_confidence(results),
        *_dependence(results),
        *_search(results),
        *_siblings(results),
    ]


def grids(results: Results) -> list[Picture]:
    """Heatmaps of R3: the test grid of every share, ringed where a cell holds after Holm, and the
    validation grid of all neurons, which served to choose.

    Parameters
    ----------
    results
        Rows of one home.

    Returns
    -------
    list of (caption, file name, SVG)
        A split without rows has no picture.
    """
    test = grid_rows(results, "test")
    by_share: dict[float, list[Row]] = {}
    for row in test:
        by_share.setdefault(row.detail["share"], []).append(row)
    held = len({(row.site, row.detail["share"]) for row in test if _holds(row)})
    found = []
    for share in sorted(by_share):
        rows = by_share[share]
        ring = [_place(row) for row in rows if _holds(row)]
        caption = (
            f"R3, test, every cell: Spearman with V-hat from {of_share(share)}; {len(ring)} of "
            f"{len(rows)} cells hold, of the whole grid {held} of {len(test)} (targets moved "
            f"between answers of equal length, one-sided, Holm over the grid at {LEVEL})"
        )
        found.append((caption, f"R3-test-{round(100 * share)}", _test_grid(rows, ring)))
    validation = [row for row in grid_rows(results, "validation") if row.detail["share"] == 1]
    if validation:
        caption = (
            "R3, validation: Spearman with V-hat from all neurons; this grid, with its shares, "
            "only served to choose"
        )
        found.append((caption, "R3-validation", layers_heatmap(validation, "spearman")))
    return found


def figures(results: Results) -> list[Picture]:
    """Every picture of one home's results."""
    found = [*pictures(results), *grids(results)]
    for kind in NAMES:
        found += _curves(results, kind)
        found += _confidence_curve(results, kind)
        found += _traces(results, kind)
        found += _ablation(results, kind)
        found += _steering(results, kind)
    return found


def _probes(results: Results) -> list[Picture]:
    """R1: one picture for each kind of neuron, as every target under both shapes is many lines."""
    found = []
    for kind, name in NAMES.items():
        rows = of(results.where(experiment="R1", metric="spearman"), kind)
        groups: Groups = {}
        # The read-outs of trained probes first.
        for row in sorted(rows, key=lambda row: row.arm != "value"):
            groups.setdefault(f"{row.detail['shape']} probe", []).append(_probe(row))
        if groups:
            caption = (
                f"R1, {name} at {rows[0].site}: Spearman of the read-out with V-hat on test, "
                "by target"
            )
            svg = forest(groups, "Spearman with V-hat", reference=Reference(0.0, "chance"))
            found.append((caption, f"R1-{kind}", svg))
    return found


def _probe(row: Row) -> Estimate:
    target = row.detail["target"]
    label = target if row.arm == "value" else f"{target}, {words(row.arm)}"
    if row.arm not in NULLS:
        return Estimate(label, row.interval)
    return Estimate(label, row.interval, "shuffled" if row.arm == "shuffled" else "random")


def _targets(results: Results) -> list[Picture]:
    groups: Groups = {}
    for row in results.where(experiment="R5", metric="gap"):
        groups.setdefault(_place_name(row), []).append(Estimate(words(row.arm), row.interval))
    if not groups:
        return []
    caption = (
        "R5: accuracy without the set of the terminal target minus accuracy without that of another"
    )
    no_difference = Reference(0.0, "no difference")
    svg = forest(groups, "above 0 the other target's set matters more", reference=no_difference)
    return [(caption, "R5", svg)]


def _next_tokens(results: Results) -> list[Picture]:
    groups: Groups = {}
    for row in results.where(experiment="R6", metric="iou"):
        label = f"top {row.detail['share']:.0%}"
        estimate = Estimate(label, row.interval, mark=row.detail["expected"])
        groups.setdefault(_place_name(row), []).append(estimate)
    if not groups:
        return []
    caption = (
        "R6: overlap of value sets with next-token sets, by share of neurons; a count, without an "
        "interval"
    )
    return [(caption, "R6", forest(groups, "IoU"))]


def _confidence(results: Results) -> list[Picture]:
    groups: Groups = {}
    for row in results.where(experiment="R7"):
        if not row.metric.startswith("auroc"):
            continue
        if row.arm == "value":
            at_start = " at s_0" if row.metric == "auroc_s0" else ""
            estimate = Estimate(f"value read-out{at_start}", row.interval)
        else:
            estimate = Estimate(words(row.arm), row.interval, "baseline")
        groups.setdefault(KNOWN[row.detail["known"]], []).append(estimate)
    if not groups:
        return []
    caption = "R7: AUROC of the final verdict, by what it is read from"
    return [(caption, "R7", forest(groups, "AUROC", reference=Reference(0.5, "chance")))]


def _dependence(results: Results) -> list[Picture]:
    """R10: all draws of the matched sets of a site are one line, where the first of them stands."""
    rows = results.where(experiment="R10", metric="spearman")
    matched: dict[str, list[Row]] = {}
    for row in rows:
        if row.arm == "matched":
            matched.setdefault(row.site, []).append(row)
    groups: Groups = {}
    for row in rows:
        lines = groups.setdefault(_place_name(row), [])
        label = f"zeroed: {ARMS.get(row.arm, words(row.arm))}"
        if row.arm != "matched":
            arm = "baseline" if row.arm == "baseline" else "value"
            lines.append(Estimate(label, row.interval, arm))
        elif row is matched[row.site][0]:
            lines.append(_matched_draws(label, matched[row.site]))
    if not groups:
        return []
    caption = (
        "R10: Spearman of the dopamine read-out with delta while neurons of earlier layers are "
        "zeroed; matched: mean of draws, lowest to highest"
    )
    svg = forest(groups, "Spearman with delta", reference=Reference(0.0, "chance"))
    return [(caption, "R10", svg)]


def _search(results: Results) -> list[Picture]:
    """R11: accuracy against tokens, and what every beam gains."""
    if not results.where(experiment="R11", metric="accuracy"):
        return []
    drawn = show.search(results)
    return [(f"R11. {drawn.caption}", "R11-search", drawn.svg())]


def _siblings(results: Results) -> list[Picture]:
    """R11: how often each scorer prefers the better of two sibling steps."""
    groups: Groups = {}
    for metric, heading in (("sibling_rate", "all pairs"), ("sibling_clear", "clear pairs")):
        for row in results.where(experiment="R11", metric=metric):
            arm = "matched" if row.arm == "matched neurons" else "value"
            groups.setdefault(heading, []).append(Estimate(words(row.arm), row.interval, arm))
    if not groups:
        return []
    caption = (
        "R11: share of pairs of sibling steps in which a scorer prefers the better one, judged by "
        "other continuations; 95% intervals by problem"
    )
    svg = forest(groups, "share of pairs", reference=Reference(0.5, "chance"))
    return [(caption, "R11-siblings", svg)]


def _matched_draws(label: str, rows: Sequence[Row]) -> Estimate:
    draws = tuple(row.estimate for row in rows)
    spread = Interval(float(np.mean(draws)), min(draws), max(draws), len(draws))
    return Estimate(f"{label}, {len(draws)} draws", spread, "matched", draws)


def _place_name(row: Row) -> str:
    """Kind of neuron and site of a row, in words."""
    return f"{NAMES[kind_of(row)]}, {row.site}"


def _holds(row: Row) -> bool:
    return row.detail["p_holm"] < LEVEL


def _place(row: Row) -> tuple[str, str]:
    """Row and column of a grid of sites."""
    site = Site.parse(row.site)
    return site.kind, str(site.layer)


def _test_grid(rows: Sequence[Row], ring: Sequence[tuple[str, str]]) -> str:
    cells = {_place(row): row.estimate for row in rows}
    kinds = {kind for kind, _ in cells}
    layers = {int(layer) for _, layer in cells}
    return matrix(
        cells,
        rows=[kind for kind in reversed(NAMES) if kind in kinds],
        columns=[str(layer) for layer in sorted(layers)],
        ring=ring,
        xlabel="layer (ring: holds after Holm)" if ring else "layer (no cell holds after Holm)",
    )


def _curves(results: Results, kind: str) -> list[Picture]:
    """R2 and R8: Spearman while neurons are pruned."""
    found = []
    for experiment, target in CURVES:
        rows = of(results.where(experiment=experiment), kind)
        home = f"{cite(results, experiment, kind)}, {NAMES[kind]}"
        for shape, fit in FITS:
            points = curve_rows(rows, shape, fit)
            if points:
                caption = (
                    f"{home}: Spearman with {target}, {shape} probe {fit} (shuffled: the same few "
                    "draws all along, each wide around 0)"
                )
                name = f"{experiment}-{kind}-{shape}-{fit}"
                found.append((caption, name, pruning_curve(points, "spearman")))
    return found


def _confidence_curve(results: Results, kind: str) -> list[Picture]:
    """R2: AUROC at s_0 while neurons are pruned."""
    rows = of(results.where(experiment="R2", metric="auroc_s0"), kind)
    if not rows:
        return []
    caption = (
        f"{cite(results, 'R2', kind)}, {NAMES[kind]}: AUROC of the final verdict at s_0, "
        "mlp probe retrained"
    )
    svg = pruning_curve(curve_rows(rows, "mlp"), "auroc_s0")
    return [(caption, f"R2-{kind}-auroc_s0", svg)]


def _traces(results: Results, kind: str) -> list[Picture]:
    """R9: single answers, step by step."""
    rows = of(results.where(experiment="R9", metric="trace"), kind)
    if not rows:
        return []
    caption = (
        f"R9, {NAMES[kind]}: the neuron chosen on train, over the first answers of the test split"
    )
    return [(caption, f"R9-{kind}", traces(rows))]


def _ablation(results: Results, kind: str) -> list[Picture]:
    """R4: every set beside its controls."""
    rows = of(results.where(experiment="R4"), kind)
    if not rows:
        return []
    caption = (
        f"{cite(results, 'R4', kind)}, {NAMES[kind]}: accuracy without them, beside every control"
    )
    return [(caption, f"R4-{kind}", ablation_bars(rows))]


def _steering(results: Results, kind: str) -> list[Picture]:
    """R14: by strength, and by the share of neurons that is changed."""
    rows = of(results.where(experiment="R14"), kind)
    found = []
    if rows:
        for metric, shown in STEERED:
            caption = f"R14, {NAMES[kind]} steered both ways at all positions: {shown}"
            found.append((caption, f"R14-{kind}-{metric}", steering_curve(rows, metric)))
    for metric, shown in DOSES:
        if any(row.metric == metric for row in rows):
            caption = f"R14, {NAMES[kind]}, more and more of the ranking {shown}"
            found.append((caption, f"R14-{kind}-{metric}", share_curve(rows, metric)))
    return found
