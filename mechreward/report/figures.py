"""Pictures of the experiments that have no curve (R1, R5, R6, R7, R10): estimates with their
intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mechreward.experiments.rows import Results, Row
from mechreward.models.site import Site
from mechreward.report.charts import (
    ablation_bars,
    layers_heatmap,
    pruning_curve,
    share_curve,
    steering_curve,
    traces,
)
from mechreward.report.select import LEVEL, curve_rows, grid_rows, kind_of
from mechreward.report.words import ARMS, NAMES, cite, of_share, words
from mechreward.show.forest import Line, estimates
from mechreward.show.heatmap import matrix
from mechreward.stats import Interval

Picture = tuple[str, str, str]  # caption, file name, SVG
NULLS = ("shuffled", "same_length", "random_weights")
KNOWN = {"before": "known before the first token", "after": "known after the answer"}


def pictures(results: Results) -> list[Picture]:
    """(caption, file name, SVG) of each of these experiments that has rows."""
    return [picture for make in PICTURES for picture in make(results)]


def _probes(results: Results) -> list[Picture]:
    """R1: one picture for each kind of neuron, as every target under both shapes is many lines."""
    drawn = []
    for kind, name in NAMES.items():
        rows = [
            row for row in results.where(experiment="R1", metric="spearman") if kind_of(row) == kind
        ]
        groups: dict[str, list[Line]] = {}
        for row in rows:
            label = (
                row.detail["target"]
                if row.arm == "value"
                else f"{row.detail['target']}, {words(row.arm)}"
            )
            null = row.arm in NULLS
            groups.setdefault(f"{row.detail['shape']} probe", []).append(
                Line(
                    label,
                    row.interval,
                    "shuffled" if row.arm == "shuffled" else "random" if null else "value",
                )
            )
        if groups:
            groups = {
                shape: sorted(lines, key=lambda line: line.arm != "value")
                for shape, lines in groups.items()
            }
            title = f"R1, {name} at {rows[0].site}: Spearman of the read-out with V-hat on test, by target"
            drawing = estimates(groups, "Spearman with V-hat", chance=0.0)
            drawn.append((title, f"R1-{kind}", drawing))
    return drawn


def _targets(results: Results) -> list[Picture]:
    rows = results.where(experiment="R5", metric="gap")
    title = (
        "R5: accuracy without the set of the terminal target minus accuracy without that of another"
    )
    groups = _by_site(rows, lambda row: Line(words(row.arm), row.interval))
    return _drawn(
        groups, title, "R5", "above 0 the other target's set matters more", 0.0, "no difference"
    )


def _tokens(results: Results) -> list[Picture]:
    rows = results.where(experiment="R6", metric="iou")
    title = "R6: overlap of value sets with next-token sets, by share of neurons; a count, without an interval"
    groups = _by_site(
        rows,
        lambda row: Line(
            f"top {row.detail['share']:.0%}", row.interval, mark=row.detail["expected"]
        ),
    )
    return _drawn(groups, title, "R6", "IoU", None)


def _confidence(results: Results) -> list[Picture]:
    groups: dict[str, list[Line]] = {}
    for row in results.where(experiment="R7", metric="auroc_s0"):
        value = row.arm == "value"
        line = Line(
            "value read-out at s_0" if value else words(row.arm),
            row.interval,
            "value" if value else "baseline",
        )
        groups.setdefault(KNOWN[row.detail["known"]], []).append(line)
    return _drawn(
        groups, "R7: AUROC of the final verdict, by what it is read from", "R7", "AUROC", 0.5
    )


def _below(results: Results) -> list[Picture]:
    rows = results.where(experiment="R10", metric="spearman")
    drawn = {
        site: [row for row in rows if (row.site, row.arm) == (site, "matched")]
        for site in {r.site for r in rows}
    }
    first = [row for row in rows if row.arm != "matched" or row is drawn[row.site][0]]

    def line(row: Row) -> Line:
        label = f"zeroed: {ARMS.get(row.arm, words(row.arm))}"
        if row.arm != "matched":
            return Line(label, row.interval, "baseline" if row.arm == "baseline" else "value")
        each = [one.estimate for one in drawn[row.site]]
        spread = Interval(float(np.mean(each)), min(each), max(each), len(each))
        return Line(f"{label}, {len(each)} draws", spread, "matched", tuple(each))

    title = "R10: Spearman of the dopamine read-out with delta while neurons of earlier layers are zeroed; matched: "
    return _drawn(
        _by_site(first, line),
        title + "mean of draws, lowest to highest",
        "R10",
        "Spearman with delta",
        0.0,
    )


def _by_site(rows: Sequence[Row], line: Callable[[Row], Line]) -> dict[str, list[Line]]:
    groups: dict[str, list[Line]] = {}
    for row in rows:
        groups.setdefault(f"{NAMES[kind_of(row)]}, {row.site}", []).append(line(row))
    return groups


def _drawn(
    groups: dict[str, list[Line]],
    title: str,
    name: str,
    xlabel: str,
    chance: float | None,
    named: str = "chance",
) -> list[Picture]:
    return [(title, name, estimates(groups, xlabel, chance=chance, named=named))] if groups else []


PICTURES = (_probes, _targets, _tokens, _confidence, _below)


def grids(results: Results) -> list[tuple[str, str, str]]:
    """(caption, file name, SVG) of one home's R3: the test grid of every share, ringed where a cell
    holds after Holm, and the validation grid of all neurons, which served to choose. A split
    without rows has no picture."""
    drawn = []
    test = grid_rows(results, "test")
    held = {(row.site, row.detail["share"]) for row in test if row.detail["p_holm"] < LEVEL}
    for share in sorted({row.detail["share"] for row in test}):
        rows = [row for row in test if row.detail["share"] == share]
        sites = [Site.parse(row.site) for row in rows]
        ring = [
            (site.kind, str(site.layer))
            for site, row in zip(sites, rows, strict=True)
            if (row.site, share) in held
        ]
        picture = matrix(
            {
                (site.kind, str(site.layer)): row.estimate
                for site, row in zip(sites, rows, strict=True)
            },
            rows=[kind for kind in reversed(NAMES) if any(site.kind == kind for site in sites)],
            columns=[str(layer) for layer in sorted({site.layer for site in sites})],
            ring=ring,
            xlabel="layer (ring: holds after Holm)" if ring else "layer (no cell holds after Holm)",
        )
        title = (
            f"R3, test, every cell: Spearman with V-hat from {of_share(share)}; {len(ring)} of {len(rows)} cells hold, "
            f"of the whole grid {len(held)} of {len(test)} (targets moved between answers of equal length, one-sided, "
            f"Holm over the grid at {LEVEL})"
        )
        drawn.append((title, f"R3-test-{round(100 * share)}", picture))
    rows = [row for row in grid_rows(results, "validation") if row.detail["share"] == 1]
    if rows:
        title = "R3, validation: Spearman with V-hat from all neurons; this grid, with its shares, only served to choose"
        drawn.append((title, "R3-validation", layers_heatmap(rows, "spearman")))
    return drawn


def figures(results: Results) -> list[tuple[str, str, str]]:
    """(caption, file name, SVG) of every experiment that has one."""
    drawn = [*pictures(results), *grids(results)]
    for kind, name in NAMES.items():
        for experiment, what in (("R2", "V-hat"), ("R8", "delta")):
            rows = [row for row in results.where(experiment=experiment) if kind_of(row) == kind]
            cited = cite(results, experiment, kind)
            for shape, fit in (("mlp", "retrained"), ("linear", "retrained"), ("mlp", "masked")):
                points = curve_rows(rows, shape, fit)
                if points:
                    title = f"{cited}, {name}: Spearman with {what}, {shape} probe {fit}"
                    drawn.append(
                        (
                            title,
                            f"{experiment}-{kind}-{shape}-{fit}",
                            pruning_curve(points, "spearman"),
                        )
                    )
        points = [
            row for row in results.where(experiment="R2", metric="auroc_s0") if kind_of(row) == kind
        ]
        if points:
            title = f"{cite(results, 'R2', kind)}, {name}: AUROC of the final verdict at s_0, mlp probe retrained"
            drawn.append(
                (title, f"R2-{kind}-auroc_s0", pruning_curve(curve_rows(points, "mlp"), "auroc_s0"))
            )
        seen = [
            row for row in results.where(experiment="R9", metric="trace") if kind_of(row) == kind
        ]
        if seen:
            title = (
                f"R9, {name}: the neuron chosen on train, over the first answers of the test split"
            )
            drawn.append((title, f"R9-{kind}", traces(seen)))
        bars = [row for row in results.where(experiment="R4") if kind_of(row) == kind]
        if bars:
            drawn.append(
                (
                    f"{cite(results, 'R4', kind)}, {name}: accuracy without them, beside every control",
                    f"R4-{kind}",
                    ablation_bars(bars),
                )
            )
        steered = [row for row in results.where(experiment="R14") if kind_of(row) == kind]
        for metric, what in (
            (("accuracy", "accuracy"), ("value", "V-hat of the continuation")) if steered else ()
        ):
            title = f"R14, {name} steered both ways at all positions: {what}"
            drawn.append((title, f"R14-{kind}-{metric}", steering_curve(steered, metric)))
        for metric, what in (
            ("accuracy_zeroed", "zeroed: accuracy"),
            ("contrast_at_share", "steered up minus down"),
        ):
            if any(row.metric == metric for row in steered):
                title = f"R14, {name}, more and more of the ranking {what}"
                drawn.append((title, f"R14-{kind}-{metric}", share_curve(steered, metric)))
    return drawn
