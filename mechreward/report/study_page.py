"""The report of a study: `report.html` beside `results.json`, and its figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mechreward.base.files import write_atomic
from mechreward.experiments import Split
from mechreward.experiments.plan import Plan, command
from mechreward.experiments.rows import Results
from mechreward.models.text import pieces
from mechreward.report.findings.rules import findings
from mechreward.report.formats import share, signed, two
from mechreward.report.html import Section, report
from mechreward.report.select import curve_rows, grid_rows, having, of
from mechreward.report.words import NAMES
from mechreward.show.charts import ablation_bars, layers_heatmap, pruning_curve
from mechreward.show.histogram import histogram
from mechreward.show.tokens import token_strip
from mechreward.stats import can_see

STRIPS = 4


def write(out: Path, plan: Plan, model: Any, results: Results, test: Split) -> Path:
    """`report.html` beside `results.json`, and each of its figures as a file of its own."""
    found, not_found = findings(results)
    manifest = results.manifest | {"found": found, "not_found": not_found}
    whole = Results(manifest, results.rows)
    whole.save(out / "results.json")
    parts = sections(plan, model, whole, test)
    drawings = [drawing for part in parts for _, drawing in part.svg]
    for figure, drawing in enumerate(drawings, start=1):
        write_atomic(out / f"figure-{figure:02d}.svg", drawing)
    return report(whole, parts, out / "report.html")


def sections(plan: Plan, model: Any, results: Results, test: Split) -> list[Section]:
    """The report's sections in the order of the method."""
    again = command(plan)
    parts = [_data(plan, results, test, again), _layers(results, again)]
    for kind, name in NAMES.items():
        parts.append(_value_probe(results, kind, name, again))
        parts.append(_ablation(results, kind, name, again))
    parts.append(_confidence(results, again))
    for kind, name in NAMES.items():
        parts.append(_td_error(results, kind, name, again))
    parts.append(_strips(model, test, again))
    return parts


def _data(plan: Plan, results: Results, test: Split, again: str) -> Section:
    values = test.values
    of_states = histogram(values.mean[values.live], "V-hat")
    of_steps = histogram(values.delta[values.is_step], "delta")
    return Section(
        "The data",
        f"Rollouts of {plan.model} on {plan.task} at temperature 1; V-hat of every step boundary "
        f"from {plan.k} continuations under the same policy; delta is the change of V-hat over one "
        "step. Splits are disjoint by problem.",
        having(results.where(experiment="R1", arm="baseline"), "k"),
        [
            ("V-hat over the states of the test split", of_states),
            ("delta over its steps", of_steps),
        ],
        command=again,
    )


def _layers(results: Results, again: str) -> Section:
    grid = grid_rows(results, "validation")
    drawings = []
    for part in sorted({row.detail["share"] for row in grid}):
        caption = "all neurons" if part == 1 else f"top {share(part)} of the neurons"
        rows = [row for row in grid if row.detail["share"] == part]
        drawings.append((caption, layers_heatmap(rows, "spearman")))
    return Section(
        "R3. Where value can be read, and what was chosen",
        "Spearman of the probe's read-out with V-hat on the validation split, for every layer and "
        "kind of neuron; every cell is shown. The ringed cell of each row was chosen here, on "
        "validation, with its share of neurons, and everything below is measured on the test "
        "split, "
        "with other problems. Whoever runs this again on the same seed, or changes a rule after a "
        "look, has used these test problems up: take another seed.",
        grid,
        drawings,
        command=again,
    )


def _value_probe(results: Results, kind: str, name: str, again: str) -> Section:
    curve = of(results.where(experiment="R2"), kind)
    refitted = curve_rows(curve, "mlp")
    linear, masked = curve_rows(curve, "linear"), curve_rows(curve, "mlp", "masked")
    return Section(
        f"R1 and R2. A value probe on {name}, and how few neurons it needs",
        'Each target under both shapes, on test; "shuffled" is the same probe fitted to targets '
        'moved between problems, "same length" among answers of equal length: what length and step '
        "tell. In the curve the probe is refitted to each subset, or masked (all other inputs at "
        'their mean). "random" are subsets nobody chose, "rotated" the best coordinates of random '
        'bases, "magnitude" the most active neurons; mean difference, correlation, L1-penalised, '
        "gradient x activation and TD over tokens are other rankings. A flat curve means sparsity "
        "only where it leaves all of these behind. A fit to shuffled targets reads nothing on "
        "average, but widely in one draw, and the more so the fewer neurons it has: as each draw "
        "keeps its sign along the curve, the mean of two or three may slide to -.3 or +.3.",
        [*of(results.where(experiment="R1"), kind), *curve],
        [
            (
                "Spearman with V-hat, the paper's net, refitted",
                pruning_curve(refitted, "spearman"),
            ),
            ("The same with a linear probe", pruning_curve(linear, "spearman")),
            ("The paper's net, masked", pruning_curve(masked, "spearman")),
            (
                "AUROC of the final verdict at s_0, refitted",
                pruning_curve(refitted, "auroc_s0"),
            ),
        ],
        command=again,
    )


def _ablation(results: Results, kind: str, name: str, again: str) -> Section:
    rows = of(results.where(experiment="R4"), kind)
    base = next(row for row in rows if row.arm == "baseline" and row.metric == "accuracy")
    return Section(
        f"R4. Ablating the value set of {name}",
        f"Every arm answers the same {base.n} test problems with the same random numbers; "
        f"{can_see(base.detail['detectable_drop'], 'drop')} (80% power). Matched sets have the "
        "same activation magnitudes one to one; the match error is the mean |log ratio| of root "
        "mean squares. The damage meter says whether the model still works at all.",
        rows,
        [("Accuracy of every arm; dots are single control sets", ablation_bars(rows))],
        command=again,
    )


def _confidence(results: Results, again: str) -> Section:
    return Section(
        "R7. Confidence before the answer",
        "AUROC of the final verdict before the first token, in the middle of an answer, and after "
        "it; arms are compared where they see the same. The best surface baseline of each stage "
        "was chosen on other problems: beside AUROC stands what an arm has beyond it (increment) "
        "and what it adds to it. Read-outs were fitted to the training split.",
        results.where(experiment="R7"),
        command=again,
    )


def _td_error(results: Results, kind: str, name: str, again: str) -> Section:
    rows = of(results.where(experiment="R8"), kind)
    curve = pruning_curve(curve_rows(rows, "mlp"), "spearman")
    return Section(
        f"R8. Dopamine neurons among {name}",
        "Spearman of the read-out (mean activation over a step) with delta. With the paper's cut, "
        "noise that looks large is selected too, so the number without it stands beside; "
        "disattenuated values divide by the square root of delta's split-half reliability, and "
        "their intervals hold its error too.",
        rows,
        [("Read-out against the share of neurons kept, with its nulls", curve)],
        command=again,
    )


def _strips(model: Any, test: Split, again: str) -> Section:
    strips = [_strip(model, test, answer) for answer in range(min(STRIPS, len(test.runs)))]
    return Section(
        "Token strips",
        f"The first {len(strips)} of the test split, chosen blind. Colour is V-hat of the state "
        "each step leads to; the badge is delta of the step.",
        html=strips,
        command=again,
    )


def _strip(model: Any, test: Split, answer: int) -> str:
    """One answer: V-hat as the colour of its tokens, delta at the end of each step."""
    run = test.runs[answer]
    mine = test.values.trajectory == answer
    value, delta = test.values.mean[mine], test.values.delta[mine]
    colour = [math.nan] * len(run.tokens)
    colour[run.step_ends[0]] = float(value[0])
    marks = {}
    for step in range(1, run.steps + 1):
        for position in range(run.span(step).start, run.span(step).stop):
            colour[position] = float(value[step])
        marks[run.step_ends[step]] = signed(delta[step])
    title = f"{run.problem_id}: {run.verdict.outcome}, V-hat at s_0 {two(value[0])}"
    # Word-level pieces get their space back.
    shown = [piece if "\n" in piece else f"{piece} " for piece in pieces(model, run.tokens)]
    return token_strip(shown, colour, marks, title=title)
