"""From the rows of `mechreward paper` to a page: what holds and what does not, every figure, how to repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mechreward import stats
from mechreward._files import write_atomic
from mechreward.findings import NAMES, curve_rows, findings
from mechreward.findings_causal import kind_of
from mechreward.results import Results, Row
from mechreward.show.figures import ablation_bars, layers_heatmap, pruning_curve
from mechreward.show.matrix import matrix
from mechreward.show.steering import share_curve, steering_curve
from mechreward.show.traces import traces

DATA = ("accuracy", "value_sd", "delta_above_.3", "delta_below_-.3", "reliability_value", "reliability_delta")


def write_page(results: Results, path: Path | str, command: str) -> Path:
    """The page in Markdown, and its figures as SVG files in the folder `pictures` beside it."""
    path = Path(path)
    homes = list(dict.fromkeys((row.model, row.task) for row in results.rows if row.experiment != "R12"))
    versions = ", ".join(f"{name} {number}" for name, number in results.manifest["versions"].items())
    lines = [
        "# Results",
        "",
        f"Written by `{command}` from the rows it left in `results.json`; {versions}.",
        "Layers and shares were chosen on validation problems; all below is measured once, on test problems that",
        "no choice has seen. Brackets are 95% intervals, by bootstrap over problems unless a test is named. Every",
        "sentence follows from a rule in `findings.py`, fixed before the run was looked at; how a layer is chosen",
        "(`paper.choose`) was changed once, after the top 1% alone had picked an unreadable layer by chance. The",
        "command under a heading repeats every number of its section.",
        "",
        *_differences(results, homes),
    ]
    for model, task in homes:
        own = Results(results.manifest, tuple(results.where(model=model, task=task)))
        lines += _home(own, model, task, path)
    lines += _across(results, path)
    return write_atomic(path, "\n".join(lines) + "\n")


def _home(results: Results, model: str, task: str, path: Path) -> list[str]:
    experiments = [e for e in dict.fromkeys(row.experiment for row in results.rows) if e != "R12"]
    found, missed = findings(results)
    lines = [f"## {model} on {task}", ""]
    lines += [f"`mechreward paper {' '.join(experiments)} --model {model} --task {task}`", ""]
    data = [row for row in results.where(experiment="R1", arm="baseline") if row.detail.get("split") == "test"]
    lines += ["| on test | |", "| --- | --- |"]
    lines += [f"| {row.metric.replace('_', ' ')} | {row.interval} |" for row in data if row.metric in DATA]
    lines += ["", "Found:", "", *(f"- {s}" for s in found or ["nothing"]), ""]
    lines += ["Not found:", "", *(f"- {s}" for s in missed or ["nothing is missing"]), ""]
    lines += _certificates(results)
    for title, name, drawing in _figures(results):
        file = f"{model}-{task}-{name}.svg"
        write_atomic(path.parent / "pictures" / file, drawing)
        lines += [f"![{title}](pictures/{file})", f"*{title}*", ""]
    return lines


def _certificates(results: Results) -> list[str]:
    """The five claims about each kind's value set, and in one sentence what they come to."""
    lines = []
    for kind, name in NAMES.items():
        rows = [row for row in results.where(experiment="certificate") if kind_of(row) == kind]
        if not rows:
            continue
        by_verdict = {
            verdict: [row.metric for row in rows if row.detail["verdict"] == verdict]
            for verdict in ("pass", "fail", "inconclusive")
        }
        said = "; ".join(f"{verdict}: {', '.join(claims)}" for verdict, claims in by_verdict.items() if claims)
        if len(by_verdict["pass"]) == len(rows):
            reading = "All five claims hold: these are value neurons as far as this package can tell"
        elif by_verdict["fail"]:
            reading = "These neurons are not certified: a claim is refuted"
        else:
            reading = "These neurons are not certified: what is open says what would settle it"
        lines += [f"Certificate of {rows[0].detail['neurons']} {name} at {rows[0].site}. {reading} ({said}).", ""]
        lines += ["| claim | verdict | reason |", "| --- | --- | --- |"]
        lines += [f"| {row.metric} | {row.detail['verdict']} | {row.detail['reason']} |" for row in rows]
        lines.append("")
    return lines


def _figures(results: Results) -> list[tuple[str, str, str]]:
    """(caption, file name, SVG) of every experiment that has one."""
    drawn = []
    grid = results.where(experiment="R3")
    for share in sorted({row.detail["share"] for row in grid}):
        title = "all neurons" if share == 1 else f"the top {share:.0%}"
        picture = layers_heatmap([row for row in grid if row.detail["share"] == share], "spearman")
        drawn.append((f"R3, validation: Spearman with V-hat from {title}", f"R3-{round(100 * share)}", picture))
    for kind, name in NAMES.items():
        for experiment, what in (("R2", "V-hat"), ("R8", "delta")):
            rows = [row for row in results.where(experiment=experiment) if kind_of(row) == kind]
            for shape, fit in (("mlp", "retrained"), ("linear", "retrained"), ("mlp", "masked")):
                points = curve_rows(rows, shape, fit)
                if points:
                    title = f"{experiment}, {name}: Spearman with {what}, {shape} probe {fit}"
                    drawn.append((title, f"{experiment}-{kind}-{shape}-{fit}", pruning_curve(points, "spearman")))
        seen = [row for row in results.where(experiment="R9", metric="trace") if kind_of(row) == kind]
        if seen:
            title = f"R9, {name}: the neuron chosen on train, over the first answers of the test split"
            drawn.append((title, f"R9-{kind}", traces(seen)))
        bars = [row for row in results.where(experiment="R4") if kind_of(row) == kind]
        if bars:
            drawn.append(
                (f"R4, {name}: accuracy without them, beside every control", f"R4-{kind}", ablation_bars(bars))
            )
        steered = [row for row in results.where(experiment="R14") if kind_of(row) == kind]
        for metric, what in (("accuracy", "accuracy"), ("value", "V-hat of the continuation")) if steered else ():
            title = f"R14, {name} steered both ways at all positions: {what}"
            drawn.append((title, f"R14-{kind}-{metric}", steering_curve(steered, metric)))
        for metric, what in (("accuracy_zeroed", "zeroed: accuracy"), ("contrast_at_share", "steered up minus down")):
            if any(row.metric == metric for row in steered):
                title = f"R14, {name}, more and more of the ranking {what}"
                drawn.append((title, f"R14-{kind}-{metric}", share_curve(steered, metric)))
    return drawn


def _differences(results: Results, homes: Sequence[tuple[str, str]]) -> list[str]:
    """One table over all homes, and whether the RL descendants differ from their base."""
    lines = ["## At a glance", ""]
    lines += ["| | neurons | Spearman, all | Spearman, top 1% | random 1% | sparsity beyond redundancy | reading |"]
    lines += ["|" + " --- |" * 7]
    full: dict[tuple[str, str, str], Row] = {}
    for model, task in homes:
        for kind, name in NAMES.items():
            rows = [row for row in results.where(experiment="R2", model=model, task=task) if kind_of(row) == kind]
            points = [row for row in curve_rows(rows, "linear") if row.metric == "spearman"]
            sparse = [row for row in rows if row.metric == "sparsity"]
            if not points or not sparse:
                continue
            full[model, task, kind] = whole = next(r for r in points if r.arm == "value" and r.detail["ratio"] == 0)
            few = max(row.detail["ratio"] for row in points)
            top = next(row for row in points if row.arm == "value" and row.detail["ratio"] == few)
            random = np.mean([row.estimate for row in points if row.arm == "random" and row.detail["ratio"] == few])
            (one,) = sparse
            lines.append(
                f"| {model} on {task} | {name}, {one.site} | {_short(whole)} | {_short(top)} | {random:.2f} | "
                f"{_short(one)} | {one.detail['reading']} |"
            )
    lines.append("")
    for (model, task, kind), row in full.items():
        base = full.get(("countdown-base", task, kind))
        if base is None or model == "countdown-base":
            continue
        said = (
            f"- {model} on {task}: V-hat is read from {NAMES[kind]} at {row.site} with Spearman {row.interval}, in the "
        )
        said += f"base at {base.site} with {base.interval}; "
        if row.site != base.site:
            lines.append(f"{said}validation chose other layers, so this compares choices and not the models.")
            continue
        apart = row.low > base.high or row.high < base.low
        lines.append(f"{said}the intervals {'do not overlap' if apart else 'overlap, so no difference is shown'}.")
    return [*lines, ""]


def _across(results: Results, path: Path) -> list[str]:
    rows = results.where(experiment="R12")
    if not rows:
        return []
    lines = ["## R12. Transfer over tasks and models", "", "`mechreward paper R12`", ""]
    lines += [
        f"Value sets of {rows[0].detail['neurons']} neurons at {rows[0].site}, chosen in the row's home, used in "
        "the column's: there a linear probe is refitted to these neurons. Ringed: better than every one of the sets of "
        "equal activation magnitude (19 draws: p = .05, not corrected for the number of cells).",
        "",
    ]

    def cell(row: Row) -> tuple[str, str]:
        return f"{row.detail['from_model']} {row.detail['from_task']}", f"{row.model} {row.task}"

    iou = {cell(row): row for row in rows if row.metric == "iou"}
    notes = {place: f"chance {row.detail['expected']:.2f}" for place, row in iou.items()}
    read = {cell(row): row for row in rows if row.metric == "spearman" and row.arm == "value"}
    control = {cell(row): row for row in rows if row.metric == "spearman" and row.arm == "matched"}
    beyond = [place for place, row in read.items() if row.estimate > control[place].high]
    other = {place: f"matched {row.estimate:.2f}" for place, row in control.items()}
    pictures = {
        "overlap": (
            "IoU of the sets",
            matrix({p: r.estimate for p, r in iou.items()}, notes=notes, xlabel="set of", ylabel="set of"),
        ),
        "read": (
            "Spearman with V-hat of what the row's neurons read in the column's home",
            matrix(
                {p: r.estimate for p, r in read.items()},
                notes=other,
                ring=beyond,
                xlabel="used in",
                ylabel="chosen in",
            ),
        ),
    }
    for name, (title, drawing) in pictures.items():
        write_atomic(path.parent / "pictures" / f"R12-{name}.svg", drawing)
        lines += [f"![R12: {title}](pictures/R12-{name}.svg)", f"*{title}*", ""]
    away = [place for place in read if place[0] != place[1]]
    p = stats.holm([iou[place].detail["p"] for place in away if place[0] < place[1]])
    lines += [
        f"Of {len(p)} pairs of homes, {int((p < 0.05).sum())} share more neurons than chance (hypergeometric, Holm at "
        f".05). Of {len(away)} transfers, {sum(place in beyond for place in away)} read V-hat better than every "
        "magnitude-matched set.",
    ]
    return lines


def _short(row: Row) -> str:
    if np.isnan(row.estimate):
        return "none"
    bounds = "no interval" if np.isnan(row.low) else f"[{row.low:.2f}, {row.high:.2f}]"
    return f"{row.estimate:.2f} {bounds}"
