"""The report of a study: `report.html` beside `results.json`, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mechreward.base.files import write_atomic
from mechreward.experiments import Split
from mechreward.experiments.plan import Plan, command
from mechreward.experiments.rows import Results, Row
from mechreward.models.text import pieces
from mechreward.report.charts import ablation_bars, layers_heatmap, pruning_curve
from mechreward.report.findings.rules import findings
from mechreward.report.html import Section, report
from mechreward.report.select import curve_rows, kind_of
from mechreward.report.words import NAMES
from mechreward.show.histogram import histogram
from mechreward.show.tokens import token_strip

STRIPS = 4


def write(out: Path, plan: Plan, model: Any, results: Results, test: Split) -> Path:
    """`report.html` beside `results.json`, and each of its figures as a file of its own."""
    found, missed = findings(results)
    manifest = results.manifest | {"found": found, "not_found": missed}
    whole = Results(manifest, results.rows)
    whole.save(out / "results.json")
    parts = sections(plan, model, whole, test)
    for number, (_, drawing) in enumerate((pair for part in parts for pair in part.svg), start=1):
        write_atomic(out / f"figure-{number:02d}.svg", drawing)
    return report(whole, parts, out / "report.html")


def sections(plan: Plan, model: Any, results: Results, test: Split) -> list[Section]:
    """The report's sections in the order of the method."""
    again = command(plan)
    values = test.values
    data = [row for row in results.where(experiment="R1", arm="baseline") if "k" in row.detail]
    parts = [
        Section(
            "The data",
            f"Rollouts of {plan.model} on {plan.task} at temperature 1; V-hat of every step boundary from "
            f"{plan.k} continuations under the same policy; delta is the change of V-hat over one step. "
            "Splits are disjoint by problem.",
            data,
            [
                (
                    "V-hat over the states of the test split",
                    histogram(values.mean[values.live], "V-hat"),
                ),
                ("delta over its steps", histogram(values.delta[values.is_step], "delta")),
            ],
            command=again,
        )
    ]
    grid = [row for row in results.where(experiment="R3") if row.detail["split"] == "validation"]
    parts.append(
        Section(
            "R3. Where value can be read, and what was chosen",
            "Spearman of the probe's read-out with V-hat on the validation split, for every layer and kind of neuron; "
            "every cell is shown. The ringed cell of each row was chosen here, on validation, with its share of "
            "neurons, and everything below is measured on the test split, with other problems. Whoever runs this again "
            "on the same seed, or changes a rule after a look, has used these test problems up: take another seed.",
            grid,
            [
                (
                    "all neurons" if share == 1 else f"top {share:.0%} of the neurons",
                    layers_heatmap(_share(grid, share), "spearman"),
                )
                for share in sorted({row.detail["share"] for row in grid})
            ],
            command=again,
        )
    )
    for kind, name in NAMES.items():
        parts.append(_probe_section(results, kind, name, again))
        parts.append(_ablation_section(results, kind, name, again))
    surface = results.where(experiment="R7")
    parts.append(
        Section(
            "R7. Confidence before the answer",
            "AUROC of the final verdict. The value read-out sees the last prompt token only; problem length and "
            "difficulty are known before as well; the answer's log-probability and length only afterwards.",
            surface,
            command=again,
        )
    )
    for kind, name in NAMES.items():
        curve = [row for row in results.where(experiment="R8") if kind_of(row) == kind]
        parts.append(
            Section(
                f"R8. Dopamine neurons among {name}",
                "Spearman of the read-out (mean activation over a step) with delta. With the paper's cut, noise that "
                "looks large is selected too, so the number without it stands beside; disattenuated values divide by "
                "the square root of delta's split-half reliability, and their intervals hold its error too.",
                curve,
                [
                    (
                        "Read-out against the share of neurons kept, with its nulls",
                        pruning_curve(curve_rows(curve, "mlp"), "spearman"),
                    )
                ],
                command=again,
            )
        )
    strips = [_strip(model, test, i) for i in range(min(STRIPS, len(test.runs)))]
    note = f"The first {len(strips)} of the test split, chosen blind. Colour is V-hat of the state each step leads to; "
    parts.append(
        Section(
            "Token strips", note + "the badge is delta of the step.", html=strips, command=again
        )
    )
    return parts


def _probe_section(results: Results, kind: str, name: str, again: str) -> Section:
    table = [row for row in results.where(experiment="R1") if kind_of(row) == kind]
    curve = [row for row in results.where(experiment="R2") if kind_of(row) == kind]
    return Section(
        f"R1 and R2. A value probe on {name}, and how few neurons it needs",
        'Each target under both shapes, on test; "shuffled" is the same probe fitted to targets moved between '
        'problems, "same length" among answers of equal length: what length and step tell. In the curve the probe is '
        "refitted to each subset, or masked (all other inputs at their mean). "
        '"random" are subsets nobody chose, "rotated" the best coordinates of random bases, "magnitude" the most '
        "active neurons; mean difference, correlation, L1-penalised, gradient x activation and TD over tokens are "
        "other rankings. A flat curve means sparsity only where it leaves all of these behind.",
        [*table, *curve],
        [
            (
                "Spearman with V-hat, the paper's net, refitted",
                pruning_curve(curve_rows(curve, "mlp"), "spearman"),
            ),
            (
                "The same with a linear probe",
                pruning_curve(curve_rows(curve, "linear"), "spearman"),
            ),
            (
                "The paper's net, masked",
                pruning_curve(curve_rows(curve, "mlp", "masked"), "spearman"),
            ),
            (
                "AUROC of the final verdict at s_0, refitted",
                pruning_curve(curve_rows(curve, "mlp"), "auroc_s0"),
            ),
        ],
        command=again,
    )


def _ablation_section(results: Results, kind: str, name: str, again: str) -> Section:
    rows = [row for row in results.where(experiment="R4") if kind_of(row) == kind]
    base = next(row for row in rows if row.arm == "baseline" and row.metric == "accuracy")
    seen = base.detail["detectable_drop"]
    return Section(
        f"R4. Ablating the value set of {name}",
        f"Every arm answers the same {base.n} test problems with the same random numbers; a drop of {seen:.3f} could "
        "be seen (80% power). Matched sets have the same activation magnitudes one to one; the match error is the mean "
        "|log ratio| of root mean squares. The damage meter says whether the model still works at all.",
        rows,
        [("Accuracy of every arm; dots are single control sets", ablation_bars(rows))],
        command=again,
    )


def _strip(model: Any, test: Split, i: int) -> str:
    run = test.runs[i]
    mine = test.values.trajectory == i
    mean, delta = test.values.mean[mine], test.values.delta[mine]
    colour = [float("nan")] * len(run.tokens)
    colour[run.step_ends[0]] = float(mean[0])
    for step in range(1, run.steps + 1):
        for position in range(run.span(step).start, run.span(step).stop):
            colour[position] = float(mean[step])
    marks = {run.step_ends[step]: f"{delta[step]:+.2f}" for step in range(1, run.steps + 1)}
    title = f"{run.problem_id}: {run.verdict.outcome}, V-hat at s_0 {mean[0]:.2f}"
    return token_strip(_shown(model, run.tokens), colour, marks, title=title)


def _shown(model: Any, tokens: torch.Tensor) -> list[str]:
    """Word-level pieces get their space back."""
    return [piece if "\n" in piece else f"{piece} " for piece in pieces(model, tokens)]


def _share(rows: Sequence[Row], share: float) -> list[Row]:
    return [row for row in rows if row.detail["share"] == share]
