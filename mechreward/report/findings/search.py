"""Rules about guided search (R11): who gains over chance, and over other uses of the tokens; who
knows the better of sibling steps."""

from __future__ import annotations

from mechreward import stats
from mechreward.experiments.rows import Results, Row
from mechreward.report.findings.finding import Finding
from mechreward.report.select import LEVEL
from mechreward.report.words import words


def guided(results: Results) -> list[Finding]:
    """Every step beam over the same beam by chance, and over each rival at its tokens."""
    findings = []
    for row in results.where(experiment="R11", metric="gain"):
        p = row.detail["p_holm"]
        holds = p < LEVEL and row.estimate > 0
        beyond = row.detail["beyond"].replace("_", "-")
        verb = "answers more right" if holds else "is not shown to answer more right"
        sentence = (
            f"Search by {words(row.arm)} {verb} than {beyond}: gain {row.interval}, p={p:.2g} "
            f"after Holm{_power(results, row, holds)} (R11)."
        )
        findings.append(Finding(holds, sentence))
    return findings


def sibling_steps(results: Results) -> list[Finding]:
    """How often each scorer prefers the better of two steps that follow one state."""
    findings = []
    for row in results.where(experiment="R11", metric="sibling_rate"):
        if "p_holm" not in row.detail:
            continue
        p = row.detail["p_holm"]
        holds = p < LEVEL and row.estimate > 0.5
        verb = "finds" if holds else "is not shown to find"
        (half,) = results.where(
            experiment="R11",
            metric="sibling_rate",
            arm="other half",
            model=row.model,
            task=row.task,
        )
        sentence = (
            f"Choosing by {words(row.arm)} {verb} the better of two sibling steps: right in "
            f"{row.interval} of the pairs, p={p:.2g} after Holm; V-hat of other continuations is "
            f"in {half.estimate:.2f} (R11)."
        )
        findings.append(Finding(holds, sentence))
    return findings


def _power(results: Results, row: Row, holds: bool) -> str:
    """What so many problems could show, where nothing was shown."""
    if holds:
        return ""
    seen = results.where(experiment="R11", metric="detectable", model=row.model, task=row.task)
    return f"; {stats.can_see(seen[0].estimate, 'gain')} with one seed" if seen else ""
