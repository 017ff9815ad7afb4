"""The page of the benchmark. Its words are in `templates/performance.md.j2`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mechreward.experiments.rows import Results, Row
from mechreward.report import layout
from mechreward.report.formats import number, share, small, two
from mechreward.report.layout import Table


@dataclass(frozen=True)
class BenchPage:
    """What the page says: the machine, every ratio, how cost grows, what limits a ratio."""

    machine: dict[str, str]
    versions: str
    ratios: Table
    growth: Table
    limits: Sequence[str]


def page(results: Results, path: Path | str) -> Path:
    """Write `performance.md` from the rows of `mechreward bench`."""
    machine = results.manifest["machine"]
    content = BenchPage(
        machine=machine,
        versions=", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        ratios=_ratios(results),
        growth=_growth(results),
        limits=[*_products(results), *_last_tokens(results)],
    )
    return layout.write(path, "performance.md.j2", page=content)


def _ratios(results: Results) -> Table:
    lines = []
    for row in results.where(metric="ratio"):
        detail = row.detail
        parity = _beside(results, row)
        ratio = f"{two(row.estimate)} ({two(row.low)} to {two(row.high)})"
        goal = ""
        if "target" in detail:
            goal = f"{'<=' if detail['times'] else '>='} {detail['target']:g}"
        if detail["times"]:
            ratio += " of the time"
        told = f"{parity.detail['kind']} {small(parity.estimate)}"
        lines.append([row.experiment, detail["work"], row.arm, ratio, goal, told])
    return Table("", ("", "work", "compared to", "ratio", "target", "parity"), lines)


def _beside(results: Results, row: Row) -> Row:
    """The parity of the same two arms at the same work."""
    rows = results.where(experiment=row.experiment, arm=row.arm, metric="parity")
    (parity,) = [other for other in rows if other.detail["work"] == row.detail["work"]]
    return parity


def _growth(results: Results) -> Table:
    lines = []
    for row in results.where(experiment="growth", metric="seconds"):
        (prefill,) = results.where(experiment="growth", arm=row.arm, metric="prefill_tokens")
        lines.append([row.arm, number(row.estimate), number(prefill.estimate, 0)])
    return Table("", ("how cost grows", "seconds", "prefill tokens"), lines)


def _products(results: Results) -> list[str]:
    """How much of our time no better decode loop could save."""
    sentences = []
    for row in results.where(metric="share_elsewhere"):
        (weights,) = results.where(experiment=row.experiment, metric="share_weights")
        (attention,) = results.where(experiment=row.experiment, metric="share_attention")
        (ratio,) = results.where(experiment=row.experiment, metric="ratio", arm="generate")
        best = ratio.estimate / (weights.estimate + attention.estimate)
        sentences.append(
            f"{row.experiment}, {row.detail['work']}: {share(weights.estimate)} of our time goes "
            f"into products with weights, {share(attention.estimate)} into products of attention "
            "(measured under cProfile, which adds to the rest). With these products alone the "
            f"ratio would be {number(best, 1)}."
        )
    return sentences


def _last_tokens(results: Results) -> list[str]:
    """What it costs to run the last token of an answer, where that is caught."""
    sentences = []
    for row in results.where(metric="row_passes", arm="mechreward"):
        (plain,) = results.where(experiment=row.experiment, metric="row_passes", arm="plain_decode")
        sentences.append(
            f"{row.experiment}, {row.detail['work']}: the last token of an answer is run only for "
            f"what is caught there. That makes {row.estimate:,.0f} passes of a row where plain "
            f"decoding takes {plain.estimate:,.0f}: {number(row.estimate / plain.estimate)} of its "
            "work, for answers of this length."
        )
    return sentences
