"""Rules about early exit: what a signal is worth beside stops by chance, and whether a promised
rate was kept."""

from __future__ import annotations

from mechreward.experiments.rows import Results
from mechreward.report.findings.finding import Finding, with_detail, with_holm
from mechreward.report.formats import share
from mechreward.report.select import LEVEL
from mechreward.report.words import words

SAVED = 0.25  # of the tokens, at which signals are spoken of


def beyond_chance(results: Results) -> list[Finding]:
    """Accuracy where a quarter of the tokens is saved, over stops by chance."""
    rows = results.where(experiment="early_exit", metric="gap")
    findings = []
    for row in with_detail(rows, saved=SAVED):
        if row.arm == "random":
            continue
        holds = row.low > 0
        verb = "keeps more answers right" if holds else "is not shown to keep more answers right"
        sentence = (
            f"Where {share(SAVED)} of the tokens are saved, stopping by {words(row.arm)} {verb} "
            f"than stopping by chance: gap {row.interval} (early exit)."
        )
        findings.append(Finding(holds, sentence))
    return findings


def promises(results: Results) -> list[Finding]:
    """The rate of lost answers beside the promised one, by what so many calibration rollouts leave
    to luck."""
    findings = []
    rows = results.where(experiment="early_exit", metric="lost")
    for row, p in with_holm(rows, "p"):
        promised = row.detail["promised"]
        holds = p >= LEVEL
        kept = "is not shown to break" if holds else "breaks"
        sentence = (
            f"The conformal rule by {words(row.arm)} {kept} its promise to lose at most "
            f"{share(promised)} of the answers that would end correct: {row.interval}, p={p:.2g} "
            "after Holm over rules (early exit)."
        )
        findings.append(Finding(holds, sentence))
    return findings
