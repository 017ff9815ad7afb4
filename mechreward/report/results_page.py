"""From the rows of `mechreward paper` to a page: what holds and what does not, every figure, how to
repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mechreward.base.files import write_atomic
from mechreward.experiments.plan import again, command, plan_of
from mechreward.experiments.rows import Results
from mechreward.report.between import across, against_base
from mechreward.report.figures import _figures
from mechreward.report.findings.rules import findings
from mechreward.report.select import held, kind_of
from mechreward.report.tables import numbers
from mechreward.report.words import NAMES, NONE, short

DATA = (
    "accuracy",
    "value_sd",
    "delta_above_.3",
    "delta_below_-.3",
    "reliability_value",
    "reliability_delta",
)


def write_page(results: Results, path: Path | str, by: str) -> Path:
    """The page in Markdown, and its figures as SVG files in the folder `pictures` beside it; `by`
    is the command that made the rows."""
    path = Path(path)
    homes = list(
        dict.fromkeys((row.model, row.task) for row in results.rows if row.experiment != "R12")
    )
    versions = ", ".join(
        f"{name} {number}" for name, number in results.manifest["versions"].items()
    )
    lines = [
        "# Results",
        "",
        f"Written by `{by}` from the rows it left in `results.json`; {versions}.",
        "Layers and shares were chosen on validation problems; R3's grid over layers is shown on test, every cell,",
        "and once as it was seen on validation, marked so; all else is measured on test problems. Brackets are 95%",
        "intervals, by bootstrap over problems unless a test is named; those of AUROC, but within a problem, have the",
        "variance of clustered rows (Obuchowski). Every sentence follows from a rule in",
        "`findings.py`. The rules are code and the same for every model and task, but they were not all fixed in",
        "advance: earlier versions of this page came from the same test problems (the same seed), and it was made",
        "again whenever a rule, a size or an experiment was added or changed. How a layer is chosen (`paper.choose`)",
        "was changed after the top 1% alone had picked an unreadable layer by chance. So take the page as",
        "exploratory beyond its corrected p-values. More numbers are folded under Numbers; every one is a",
        "row of `results.json`. The command under a heading repeats every number of its section; it names what",
        "differs from the command's own sizes. Value sets (but for the other arms of R5) come from the mc probe over",
        "states; the paper's TD over tokens is a target in R1, and wherever a row says `td over tokens`.",
        "R13 is R2 and R4 on MLP units: what is said of MLP units under R2 and R4 are its rows.",
        "",
        *_differences(results, homes),
    ]
    for model, task in homes:
        own = Results(results.manifest, tuple(results.where(model=model, task=task)))
        lines += _home(own, model, task, path)
    lines += across(results, path)
    return write_atomic(path, "\n".join(lines) + "\n")


def _home(results: Results, model: str, task: str, path: Path) -> list[str]:
    experiments = [e for e in dict.fromkeys(row.experiment for row in results.rows) if e != "R12"]
    found, missed = findings(results)
    lines = [f"## {model} on {task}", ""]
    lines += [f"`{command(plan_of(results, model, task), experiments)}`", ""]
    data = [
        row
        for row in results.where(experiment="R1", arm="baseline")
        if row.detail.get("split") == "test"
    ]
    lines += ["| on test | |", "| --- | --- |"]
    lines += [
        f"| {row.metric.replace('_', ' ')} | {row.interval} |" for row in data if row.metric in DATA
    ]
    lines += ["", "Found:", "", *(f"- {s}" for s in found or ["nothing"]), ""]
    lines += ["Not found:", "", *(f"- {s}" for s in missed or ["nothing is missing"]), ""]
    lines += numbers(results)
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
        said = "; ".join(
            f"{verdict}: {', '.join(claims)}" for verdict, claims in by_verdict.items() if claims
        )
        if len(by_verdict["pass"]) == len(rows):
            reading = (
                "All five claims hold: these are value neurons as far as this package can tell"
            )
        elif by_verdict["fail"]:
            reading = "These neurons are not certified: a claim is refuted"
        else:
            reading = "These neurons are not certified: what is open says what would settle it"
        lines += [
            f"Certificate of {rows[0].detail['neurons']} {name} at {rows[0].site}. {reading} ({said}).",
            "",
        ]
        lines += ["| claim | verdict | reason |", "| --- | --- | --- |"]
        lines += [
            f"| {row.metric} | {row.detail['verdict']} | {row.detail['reason']} |" for row in rows
        ]
        lines.append("")
    return lines


def _differences(results: Results, homes: Sequence[tuple[str, str]]) -> list[str]:
    """One table over all homes, and whether the RL descendants differ from their base."""
    if not any(row.metric == "sparsity" for row in results.where(experiment="R2")):
        return against_base(results, homes)
    lines = [
        "## At a glance",
        "",
        f"Repeated by {again(results, 'R2')}. A linear probe on test: Spearman with V-hat from all neurons, from the "
        "top 1% by correlation, from as many random ones and from the best 1% of random bases (means of 19 draws, "
        "which have no interval here). Sparsity is the part of the way from the better of the last two to all neurons "
        "that the top 1% goes (a way much shorter than a sixth of all neurons' Spearman counts as that sixth); above 1 "
        "the few read better than all; below 0, the part of all neurons' Spearman that they fall short by. A dash: "
        "what all neurons read is not shown to be above shuffled targets.",
        "",
        "| | neurons | all | top 1% | random 1% | best of random bases | sparsity beyond redundancy | reading |",
        "|" + " --- |" * 8,
    ]
    for model, task in homes:
        for kind, name in NAMES.items():
            rows = [
                row
                for row in results.where(experiment="R2", model=model, task=task)
                if kind_of(row) == kind
            ]
            for one in (row for row in rows if row.metric == "sparsity"):
                d = one.detail
                beyond = NONE if d["reading"] == "nothing" else short(one.interval)
                same = {key: held(results, one, d[key]) for key in ("full", "few")}
                ends = " | ".join(
                    short(row.interval) if row else f"{d[key]:.2f}" for key, row in same.items()
                )
                lines.append(
                    f"| {model} on {task} | {name}, {one.site} | {ends} | {d['random']:.2f} | {d['rotated']:.2f} | "
                    f"{beyond} | {d['reading']} |"
                )
    lines.append("")
    return [*lines, *against_base(results, homes)]
