"""What a calibration found, and how it was found. Its verdicts are those of `verdicts`, its words
are in `templates/calibration.md.j2`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechreward.calibration.certificates import SIZES
from mechreward.calibration.pipeline import RECOMMENDED
from mechreward.causal.verdict import CLAIMS
from mechreward.experiments.rows import Results, Row
from mechreward.probing.overlap import GROUP
from mechreward.report import layout
from mechreward.report.formats import number, p_value, signed, small, two
from mechreward.report.layout import Table
from mechreward.report.verdicts import KINDS, counted, covers, over_seeds, verdicts


@dataclass(frozen=True)
class CalibrationPage:
    """What the page says.

    Attributes
    ----------
    command, minutes, sizes, missing
        What made it, in how many CPU-minutes, with which sizes, and the stages not run yet.
    verdicts
        One sentence a target.
    recommended, rankings
        The ranking to use, and how many planted neurons every ranking finds.
    evidence, alarms
        What the printed evidence says of plants, and of plants without value.
    alike, levels
        Neurons in a group of R12's exact law; p-values where there is nothing.
    limits
        Detection limits.
    certificate_sizes, certificates
        How often each claim passes.
    trends
        How often reading passes for neurons that follow what V goes with.
    coverage
        Of 95% intervals.
    """

    command: str
    minutes: str
    sizes: dict[str, int]
    missing: Sequence[str]
    verdicts: Sequence[str]
    recommended: str
    rankings: Sequence[Table]
    evidence: Table
    alarms: Table
    alike: int
    levels: Table
    limits: Sequence[Table]
    certificate_sizes: str
    certificates: Table
    trends: Table
    coverage: Table


def page(results: Results, path: Path | str) -> Path:
    """Write `calibration.md` from the rows of `mechreward calibrate`."""
    manifest = results.manifest
    content = CalibrationPage(
        command=manifest["command"],
        minutes=number(sum(manifest["cpu_seconds"].values()) / 60, 0),
        sizes=manifest["plan"]["sizes"],
        missing=manifest.get("missing", []),
        verdicts=verdicts(results),
        recommended=RECOMMENDED,
        rankings=[_rankings(results, kind) for kind in KINDS],
        evidence=_evidence(results),
        alarms=_alarms(results),
        alike=GROUP,
        levels=_levels(results),
        limits=[_limits(results, kind) for kind in KINDS],
        certificate_sizes=", ".join(f"{key} {value}" for key, value in SIZES.items()),
        certificates=_certificates(results),
        trends=_trends(results),
        coverage=_coverage(results),
    )
    return layout.write(path, "calibration.md.j2", page=content)


def _planted(results: Results, metric: str, kind: str) -> list[Row]:
    return [row for row in results.where(metric=metric) if row.detail["planted"] == kind]


def _rankings(results: Results, kind: str) -> Table:
    """Recall of every ranking in every plant, and the decoys it took."""
    rows = _planted(results, "recall", kind)
    places = list(dict.fromkeys((row.model, row.site) for row in rows))
    by_ranking: dict[str, dict[tuple[str, str], Row]] = {}
    for row in rows:
        by_ranking.setdefault(row.arm, {})[row.model, row.site] = row
    lines = []
    for ranking, by_place in by_ranking.items():
        line = [ranking]
        for place in places:
            line.append(str(by_place[place].interval) if place in by_place else "")
        lines.append([*line, counted(_fooled(by_place.values()))])
    heads = [f"{model.removeprefix('planted-')}, {site}" for model, site in places]
    return Table("", ("ranking", *heads, "fooled by"), lines)


def _fooled(rows: Iterable[Row]) -> dict[str, int]:
    """How often each decoy was taken."""
    fooled: dict[str, int] = {}
    for row in rows:
        for decoy, times in row.detail["fooled_by"].items():
            fooled[decoy] = fooled.get(decoy, 0) + times
    return fooled


def _evidence(results: Results) -> Table:
    lines = []
    for row in results.where(metric="recognition_rate"):
        expected = row.detail["expected"]
        lines.append([row.model, row.arm, expected, str(row.interval), _more(row)])
    return Table("", ("plant", "by", "should say", "share of seeds that do", "more"), lines)


def _more(row: Row) -> str:
    """What evidence said of how many seeds, or what an ablation did."""
    detail = row.detail
    if "readings" in detail:
        sparsity = over_seeds(detail["sparsity"])
        return f"{counted(detail['readings'])}; mean sparsity {sparsity}"
    change = f"accuracy {two(detail['baseline'])}, changed by {signed(detail['change'])}"
    return f"{change}; KL {small(detail['kl'])}"


def _alarms(results: Results) -> Table:
    lines = []
    for row in results.where(metric="false_alarm_rate"):
        lines.append([row.model, str(row.interval), counted(row.detail["readings"])])
    return Table("", ("plant without value", "says anything but nothing", "readings"), lines)


def _levels(results: Results) -> Table:
    lines = []
    for row in results.where(metric="null_rejection_rate"):
        detail = row.detail
        tests = [p_value(detail["ks_too_small"]), p_value(detail["ks_uniform"])]
        lines.append([row.arm, f"{detail['level']:g}", str(row.interval), *tests])
    return Table(
        "",
        ("p-value", "level", "share at or below it", "KS, too small", "KS, uniform"),
        lines,
    )


def _limits(results: Results, kind: str) -> Table:
    """The detection limit of every ranking, by model, problems and trajectories."""
    rows = _planted(results, "detection_limit", kind)
    rankings = list(dict.fromkeys(row.arm for row in rows))
    by_place: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        place = row.model, str(row.detail["problems"]), str(row.detail["trajectories"])
        by_place.setdefault(place, {})[row.arm] = row
    lines = []
    for place, by_ranking in by_place.items():
        limits = [_limit(by_ranking.get(ranking)) for ranking in rankings]
        repeats = dict.fromkeys(str(row.n) for row in by_ranking.values())
        lines.append([*place, *limits, ", ".join(repeats)])
    heads = (f"{kind} planted in", "problems", "trajectories", *rankings, "repeats")
    return Table("", heads, lines)


def _limit(row: Row | None) -> str:
    """The smallest share found, and the next smaller one on the grid."""
    if row is None:
        return ""
    missing = row.estimate != row.estimate
    return "none of the grid" if missing else f"{row.estimate:g} ({row.low:g})"


def _certificates(results: Results) -> Table:
    by_plant: dict[str, dict[str, str]] = {}
    for row in results.where(metric="pass_rate"):
        by_plant.setdefault(row.model, {})[row.arm] = str(row.interval)
    columns = (*CLAIMS, "all")
    lines = []
    for plant, rates in by_plant.items():
        lines.append([plant, *(rates.get(claim, "") for claim in columns)])
    return Table("", ("plant", *CLAIMS, "all"), lines)


def _trends(results: Results) -> Table:
    lines = []
    for row in results.where(metric="trend_pass_rate"):
        detail = row.detail
        verdicts = counted(detail["verdicts"])
        lines.append([row.model, str(detail["neurons"]), row.arm, str(row.interval), verdicts])
    return Table("", ("three neurons follow", "of", "claim", "passes", "verdicts"), lines)


def _coverage(results: Results) -> Table:
    lines = []
    for row in results.where(metric="interval_coverage"):
        detail = row.detail
        if detail.get("exact"):
            rates = [number(row.estimate), "-", "-"]
        else:
            rates = [str(row.interval), str(detail["above"]), str(detail["below"])]
        lines.append([row.arm, str(detail["problems"]), *rates, covers(row)])
    return Table(
        "",
        ("interval", "problems", "coverage", "above", "below", "93 to 97%"),
        lines,
    )
