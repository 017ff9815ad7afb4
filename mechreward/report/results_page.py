"""From the rows of `mechreward paper` to a page: what holds and what does not, every figure, how to
repeat it. Its words are in `templates/results.md.j2`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mechreward.base.files import safe_name
from mechreward.experiments.plan import EXPERIMENT_IDS, again, command, plan_of
from mechreward.experiments.rows import Results, Row
from mechreward.report import layout
from mechreward.report.figures import figures as drawn
from mechreward.report.findings.rules import findings
from mechreward.report.glance import Descendants, descendants, glance
from mechreward.report.layout import Figure, Table, file_name
from mechreward.report.select import of, settings
from mechreward.report.tables import numbers
from mechreward.report.transfer import Transfer, transfer
from mechreward.report.words import NAMES, words

# What is told of the data of a setting.
DATA = (
    "accuracy",
    "value_sd",
    "delta_above_.3",
    "delta_below_-.3",
    "reliability_value",
    "reliability_delta",
)
VERDICTS = ("pass", "fail", "inconclusive")


@dataclass(frozen=True)
class CertificateText:
    """The claims about a value set, and in one sentence what they come to."""

    sentence: str
    claims: Table


@dataclass(frozen=True)
class Setting:
    """What the page says of one model on one task.

    Attributes
    ----------
    title, command
        Its heading, and what repeats every number of it.
    data
        What its test split is like.
    found, not_found
        Sentences by rule.
    tables, certificates, figures
        Every number, the claims about its value sets, its pictures.
    """

    title: str
    command: str
    data: Table
    found: Sequence[str]
    not_found: Sequence[str]
    tables: Sequence[Table]
    certificates: Sequence[CertificateText]
    figures: Sequence[Figure]


@dataclass(frozen=True)
class ResultsPage:
    """All that the page says.

    Attributes
    ----------
    command
        What made the rows.
    versions, experiments
        Of packages; ids of the experiments and their names.
    glance, repeats_glance
        All settings in one table, and the command that repeats it.
    descendants, settings, transfer
        Base and descendants; each setting by itself; R12.
    """

    command: str
    versions: str
    experiments: str
    glance: Table
    repeats_glance: str
    descendants: Descendants
    settings: Sequence[Setting]
    transfer: Transfer


def write_page(results: Results, path: Path | str, by: str) -> Path:
    """Write the page in Markdown, and its figures as SVG files in the folder `pictures` beside it.

    Parameters
    ----------
    results
        Rows of `mechreward paper`.
    path
        The file of the page.
    by
        The command that made the rows.
    """
    content = content_of(results, by)
    folder = Path(path).parent / "pictures"
    for setting in content.settings:
        layout.save_figures(setting.figures, folder)
    for site in content.transfer.sites:
        layout.save_figures(site.figures, folder)
    return layout.write(path, "results.md.j2", page=content)


def content_of(results: Results, by: str) -> ResultsPage:
    """What the page says of these rows, as data."""
    rows = [row for row in results.rows if row.experiment != "R12"]
    places = settings(rows)
    at_a_glance = glance(results, places)
    versions = results.manifest["versions"]
    return ResultsPage(
        command=by,
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        experiments=_experiment_list(),
        glance=at_a_glance,
        repeats_glance=again(results, "R2") if at_a_glance.lines else "",
        descendants=descendants(results, places),
        settings=[_setting(results, model, task) for model, task in places],
        transfer=transfer(results),
    )


def _setting(results: Results, model: str, task: str) -> Setting:
    own = Results(results.manifest, tuple(results.where(model=model, task=task)))
    names = dict.fromkeys(row.experiment for row in own.rows)
    found, not_found = findings(own)
    return Setting(
        title=f"{model} on {task}",
        command=command(plan_of(own, model, task), [name for name in names if name != "R12"]),
        data=_data(own),
        found=found,
        not_found=not_found,
        tables=numbers(own),
        certificates=_certificates(own),
        figures=_figures(own, safe_name(f"{model}-{task}")),
    )


def _data(results: Results) -> Table:
    lines = []
    for row in results.where(experiment="R1", arm="baseline"):
        if row.detail.get("split") == "test" and row.metric in DATA:
            lines.append([words(row.metric), str(row.interval)])
    return Table("", ("on test", ""), lines)


def _certificates(results: Results) -> list[CertificateText]:
    """One for each kind of neuron that has one."""
    certificates = []
    for kind, name in NAMES.items():
        rows = of(results.where(experiment="certificate"), kind)
        if rows:
            lines = [[row.metric, row.detail["verdict"], row.detail["reason"]] for row in rows]
            claims = Table("", ("claim", "verdict", "reason"), lines)
            certificates.append(CertificateText(_come_to(rows, name), claims))
    return certificates


def _come_to(rows: Sequence[Row], name: str) -> str:
    """What the claims of a certificate come to, in a sentence."""
    parts = []
    verdicts = {row.detail["verdict"] for row in rows}
    for verdict in VERDICTS:
        claims = [row.metric for row in rows if row.detail["verdict"] == verdict]
        if claims:
            parts.append(f"{verdict}: {', '.join(claims)}")
    if verdicts == {"pass"}:
        reading = "All claims hold: these are value neurons as far as this package can tell"
    elif "fail" in verdicts:
        reading = "These neurons are not certified: a claim is refuted"
    else:
        reading = "These neurons are not certified: what is open says what would settle it"
    neurons = f"{rows[0].detail['neurons']} {name} at {rows[0].site}"
    return f"Certificate of {neurons}. {reading} ({'; '.join(parts)})."


def _experiment_list() -> str:
    """Ids and readable names of the paper's experiments."""
    names = []
    for name, experiment_id in EXPERIMENT_IDS.items():
        if name != experiment_id:
            names.append(f"{experiment_id} {words(name)}")
    return ", ".join(names)


def _figures(results: Results, prefix: str) -> list[Figure]:
    figures = []
    for caption, name, drawing in drawn(results):
        figures.append(Figure(caption, file_name(f"{prefix}-{name}.svg"), drawing))
    return figures
