"""From rows to words: what was found, what was not, and the report of a study. Every sentence follows from a rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mechreward import stats
from mechreward._files import write_atomic
from mechreward.models.adapter import pieces
from mechreward.paper import Split
from mechreward.results import Results, Row
from mechreward.show.figures import ablation_bars, histogram, layers_heatmap, pruning_curve
from mechreward.show.report import Section, report
from mechreward.show.tokens import token_strip
from mechreward.study import Study, command

NAMES = {"resid_post": "residual-stream coordinates", "mlp": "MLP units"}
STRIPS = 4
WORDS = {
    "nothing": "absent",
    "sparse": "sparse",
    "redundant": "redundant (any neurons will do)",
    "distributed": "distributed (no basis holds it in few coordinates)",
    "unclear": "neither clearly sparse nor clearly not",
}


def findings(results: Results) -> tuple[list[str], list[str]]:
    """Sentences for what holds and for what does not, by rules that were fixed before any run was looked at.

    Readable: the 95% interval lies above chance (.5 for AUROC, 0 for Spearman). Beyond the surface: the value
    read-out's interval lies above the best surface baseline's estimate. Sparse: at the smallest share, the interval
    lies above every random subset and basis; and `evidence` reads "sparse". Causal: exact McNemar at .05 after Holm
    over all ablations, below every matched draw, and the draws really match.
    """
    told: list[tuple[bool, str]] = []
    for kind, name in NAMES.items():
        told += _readable(results, kind, name)
        told += _sparse(results, "R2", kind, name, "value")
    told += _surface(results)
    told += _causal(results)
    for kind, name in NAMES.items():
        told += _dopamine(results, kind, name)
        told += _sparse(results, "R8", kind, name, "dopamine")
    return [s for good, s in told if good], [s for good, s in told if not good]


def write(study: Study, results: Results) -> Path:
    """`report.html` beside `results.json`, and each of its figures as a file of its own."""
    found, missed = findings(results)
    manifest = results.manifest | {"found": found, "not_found": missed}
    whole = Results(manifest, results.rows)
    whole.save(study.out / "results.json")
    parts = sections(study, whole, study.splits["test"])
    for number, (_, drawing) in enumerate((pair for part in parts for pair in part.svg), start=1):
        write_atomic(study.out / f"figure-{number:02d}.svg", drawing)
    return report(whole, parts, study.out / "report.html")


def sections(study: Study, results: Results, test: Split) -> list[Section]:
    """The report's sections in the order of the method."""
    again = command(study.plan)
    values = test.values
    data = [row for row in results.where(experiment="R1", arm="baseline") if "k" in row.detail]
    parts = [
        Section(
            "The data",
            f"Rollouts of {study.plan.model} on {study.plan.task} at temperature 1; V-hat of every step boundary from "
            f"{study.plan.k} continuations under the same policy; delta is the change of V-hat over one step. "
            "Splits are disjoint by problem.",
            data,
            [
                ("V-hat over the states of the test split", histogram(values.mean[values.live], "V-hat")),
                ("delta over its steps", histogram(values.delta[values.is_step], "delta")),
            ],
            command=again,
        )
    ]
    grid = results.where(experiment="R3")
    parts.append(
        Section(
            "R3. Where value can be read, and what was chosen",
            "Spearman of the probe's read-out with V-hat on the validation split, for every layer and kind of neuron; "
            "every cell is shown. The ringed cell of each row was chosen here, on validation, with its share of "
            "neurons, and everything below is reported once on the test split.",
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
        curve = [row for row in results.where(experiment="R8") if _kind(row) == kind]
        parts.append(
            Section(
                f"R8. Dopamine neurons among {name}",
                "Spearman of the read-out (mean activation over a step) with delta. With the paper's cut, noise that "
                "looks large is selected too, so the number without it stands beside; disattenuated values divide by "
                "the square root of delta's split-half reliability.",
                curve,
                [
                    (
                        "Read-out against the share of neurons kept, with its nulls",
                        pruning_curve(_curve(curve, "mlp"), "spearman"),
                    )
                ],
                command=again,
            )
        )
    strips = [_strip(study, test, i) for i in range(min(STRIPS, len(test.runs)))]
    note = f"The first {len(strips)} of the test split, chosen blind. Colour is V-hat of the state each step leads to; "
    parts.append(Section("Token strips", note + "the badge is delta of the step.", html=strips, command=again))
    return parts


def _probe_section(results: Results, kind: str, name: str, again: str) -> Section:
    table = [row for row in results.where(experiment="R1") if _kind(row) == kind]
    curve = [row for row in results.where(experiment="R2") if _kind(row) == kind]
    return Section(
        f"R1 and R2. A value probe on {name}, and how few neurons it needs",
        'Each target under both shapes, on test; "shuffled" is the same probe fitted to targets moved between '
        "problems. In the curve the probe is refitted to each subset, or masked (all other inputs at their mean). "
        '"random" are subsets nobody chose, "rotated" the best coordinates of random bases, "magnitude" the most '
        "active neurons. A flat curve means sparsity only where it leaves all of these behind.",
        [*table, *curve],
        [
            ("Spearman with V-hat, the paper's net, refitted", pruning_curve(_curve(curve, "mlp"), "spearman")),
            ("The same with a linear probe", pruning_curve(_curve(curve, "linear"), "spearman")),
            ("The paper's net, masked", pruning_curve(_curve(curve, "mlp", "masked"), "spearman")),
            ("AUROC of the final verdict at s_0, refitted", pruning_curve(_curve(curve, "mlp"), "auroc_s0")),
        ],
        command=again,
    )


def _ablation_section(results: Results, kind: str, name: str, again: str) -> Section:
    rows = [row for row in results.where(experiment="R4") if _kind(row) == kind]
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


def _strip(study: Study, test: Split, i: int) -> str:
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
    return token_strip(_shown(study, run.tokens), colour, marks, title=title)


def _shown(study: Study, tokens: torch.Tensor) -> list[str]:
    """Word-level pieces get their space back."""
    return [piece if "\n" in piece else f"{piece} " for piece in pieces(study.model, tokens)]


def _readable(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    told = []
    rows = [row for row in results.where(experiment="R1", arm="value") if _kind(row) == kind]
    paper_like = [row for row in rows if row.detail.get("target") == "mc" and row.detail.get("shape") == "mlp"]
    for metric, words, chance in (
        ("spearman", "V-hat is readable: Spearman", 0.0),
        ("auroc_s0", "The final verdict is readable at s_0: AUROC", 0.5),
        ("auroc_last", "The final verdict is readable at the last state: AUROC", 0.5),
    ):
        row = next(row for row in paper_like if row.metric == metric)
        good = row.low > chance
        phrase = words if good else words.replace("is readable", "is not shown to be readable")
        told.append((good, f"{phrase} {row.interval}, from {name} at {row.site} (R1)."))
    return told


def _sparse(results: Results, experiment: str, kind: str, name: str, arm: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment=experiment, metric="spearman") if _kind(row) == kind]
    rows = _curve(rows, "mlp")
    few = max(row.detail["ratio"] for row in rows)
    here = [row for row in rows if row.detail["ratio"] == few]
    own = next(row for row in here if row.arm == arm)
    nobody = max(row.estimate for row in here if row.arm in ("random", "rotated"))
    full = next(row for row in rows if row.arm == arm and row.detail["ratio"] == 0.0)
    good = own.low > nobody
    text = (
        f"{own.detail['neurons']} of the {name} at {own.site} read {'delta' if arm == 'dopamine' else 'V-hat'} with "
        f"Spearman {own.interval}; all together {full.estimate:.3f}, the best random subset or basis of that size "
        f"{nobody:.3f}"
    )
    told = [(good, f"{'Sparser than chance' if good else 'No sparser than chance'}: {text} ({experiment}).")]
    for row in results.where(experiment=experiment, metric="sparsity"):
        if _kind(row) == kind:
            told.append(_evidence(row, name))
    return told


def _evidence(row: Row, name: str) -> tuple[bool, str]:
    d = row.detail
    return d["reading"] == "sparse", (
        f"A linear probe calls V-hat in {name} at {row.site} {WORDS[d['reading']]}: all read it with Spearman "
        f"{d['full']:.3f} (p={d['p']:.2g} among shuffles), {d['neurons']} with {d['few']:.3f}, as many random ones "
        f"{d['random']:.3f}, the best of random bases {d['rotated']:.3f}; sparsity beyond redundancy {row.interval} "
        "(R2)."
    )


def _surface(results: Results) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R7") if row.detail["known"] == "before"]
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


def _causal(results: Results) -> list[tuple[bool, str]]:
    rows = results.where(experiment="R4", arm="value", metric="accuracy")
    adjusted = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
    told = []
    for row, p in zip(rows, adjusted, strict=True):
        d = row.detail
        change = next(
            r
            for r in results.where(experiment="R4", arm="value", metric="change", site=row.site)
            if r.detail["op"] == d["op"]
        )
        good = p < 0.05 and d["rank"] == 1 and d["matched"]
        match = "" if d["matched"] else f"; the controls do not match (error {d['match_error']:.2f})"
        told.append(
            (
                bool(good),
                f"{d['op'].capitalize()} ablation of {d['neurons']} value neurons at {row.site} changes accuracy by "
                f"{change.interval}; McNemar p={p:.3g} after Holm over {len(rows)} ablations; rank {d['rank']} of "
                f"{d['draws'] + 1} among matched sets (p={d['p_rank']:.2g}, not corrected){match} (R4).",
            )
        )
    return told


def _dopamine(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    row = next(
        row
        for row in results.where(experiment="R8", arm="dopamine", metric="spearman")
        if _kind(row) == kind and row.detail.get("fitted") == "all steps" and row.detail.get("tested") == "all steps"
    )
    good = row.low > 0
    words = "is readable" if good else "is not shown to be readable"
    return [(good, f"The TD error {words} from {name} at {row.site}: Spearman {row.interval} over all steps (R8).")]


def _kind(row: Row) -> str:
    return row.site.partition(".")[2]


def _curve(rows: Sequence[Row], shape: str, fit: str = "retrained") -> list[Row]:
    wanted = {"shape": shape, "fit": fit}
    return [row for row in rows if "ratio" in row.detail and wanted.items() <= row.detail.items()]


def _share(rows: Sequence[Row], share: float) -> list[Row]:
    return [row for row in rows if row.detail["share"] == share]
