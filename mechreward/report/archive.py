"""The rows behind all pages in one small file, `docs/data/results.json.gz`.

`python -m mechreward.report.archive RUN/results.json ...` packs them from the folders of runs.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import typer

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import nulled, read_json, write_atomic
from mechreward.base.plain import visible
from mechreward.causal.certificate import Certificate
from mechreward.experiments.certificate import claim_rows
from mechreward.experiments.rows import SCHEMA, Detail, Results, Row, row_of
from mechreward.experiments.split import shared
from mechreward.models.sources import WEIGHTS
from mechreward.stats import Interval

FILE = Path("docs/data/results.json.gz")
FIELDS = [field.name for field in fields(Row)]


@dataclass(frozen=True)
class Archive:
    """The rows behind the pages; a part that is None has no page.

    Attributes
    ----------
    paper, calibration, bench
        What `mechreward paper`, `calibrate` and `bench` left in their `results.json`.
    certificates
        Claims that `mechreward certify` tried, as rows of the experiment `certify`.
    real
        What `mechreward paper` left for the words models, which are real language models.
    """

    paper: Results | None = None
    calibration: Results | None = None
    bench: Results | None = None
    certificates: Results | None = None
    real: Results | None = None

    @property
    def rows(self) -> list[Row]:
        """Rows of every part."""
        rows: list[Row] = []
        for name in PARTS:
            part = getattr(self, name)
            rows += part.rows if part else ()
        return rows

    def pack(self, path: Path | str) -> Path:
        """Write the file: the same bytes for the same rows."""
        parts = {}
        for name in PARTS:
            part = getattr(self, name)
            if part:
                rows = [nulled(list(asdict(row).values())) for row in part.rows]
                parts[name] = {"manifest": nulled(part.manifest), "rows": rows}
        whole = {"schema": SCHEMA, "fields": FIELDS, "parts": parts}
        text = json.dumps(whole, separators=(",", ":"), allow_nan=False)
        return write_atomic(path, gzip.compress(text.encode(), mtime=0))

    @classmethod
    def load(cls, path: Path | str) -> Archive:
        """Raises MechRewardError for a missing or damaged file, or another schema."""
        parts = {}
        try:
            whole = json.loads(gzip.decompress(Path(path).read_bytes()))
            for name, part in whole["parts"].items():
                parts[name] = _results(part)
            known = (whole["schema"], whole["fields"]) == (SCHEMA, FIELDS)
        except OSError as error:
            raise MechRewardError(f"cannot read the archive {path}: {error}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise MechRewardError(f"{path} is no whole archive of results: {error!r}.") from error
        require(known, f"{path} has schema {whole['schema']}; this version reads {SCHEMA}.")
        return cls(**parts)


PARTS = [field.name for field in fields(Archive)]


def _results(part: dict[str, Any]) -> Results:
    rows = []
    for values in part["rows"]:
        known: list[Any] = [math.nan if value is None else value for value in values]
        rows.append(Row(*known))
    return Results(part["manifest"], tuple(rows))


def certified(certificates: Iterable[Certificate]) -> Results:
    """Claims as rows; `detail` holds every single number of a claim too."""
    rows = []
    for certificate in certificates:
        neurons = certificate.neurons
        seed = certificate.sizes.get("seed", 0)
        setting = shared("certify", neurons.model_id.name, certificate.task, neurons.site, seed)
        for claim, row in zip(certificate.claims, claim_rows(certificate, setting), strict=True):
            numbers: dict[str, Any] = {}
            for key, value in claim.numbers.items():
                if isinstance(value, int | float):
                    numbers[key] = value
            rows.append(replace(row, detail=cast(Detail, {**numbers, **row.detail})))
    return Results({}, tuple(rows))


def measurements() -> list[Row]:
    """What was measured of the bundled models, from the files beside their weights, as rows of the
    experiment `card`."""
    rows = []
    for path in sorted(WEIGHTS.glob("*/measured.json")):
        for entry in read_json(path, "measurements")["rows"]:
            setting = shared("card", path.parent.name, entry["task"], "", 0)
            if "mode" in entry:
                score = Interval(entry["estimate"], entry["low"], entry["high"], entry["n"])
                where = cast(Detail, {"split": entry["split"], "mode": entry["mode"]})
                rows.append(row_of(setting, "", "accuracy", score, where))
            else:
                mean, low, high = entry["large_delta"]
                score = Interval(mean, low, high, entry["states"])
                rows.append(row_of(setting, "", "large_delta", score))
    return rows


def main(
    paper: Path = typer.Argument(help="results.json of `mechreward paper`."),
    calibration: Path | None = typer.Option(None, help="That of `mechreward calibrate`."),
    bench: Path | None = typer.Option(None, help="That of `mechreward bench`."),
    certificate: list[Path] = typer.Option([], help="A certificate.json of `mechreward certify`."),
    real: Path | None = typer.Option(None, help="results.json of `paper` on the words models."),
    out: Path = typer.Option(FILE, help="The file."),
) -> None:
    """Pack the rows of finished runs into one file."""
    certificates: Sequence[Certificate] = [Certificate.load(path) for path in certificate]
    archive = Archive(
        Results.load(paper),
        Results.load(calibration) if calibration else None,
        Results.load(bench) if bench else None,
        certified(certificates) if certificates else None,
        Results.load(real) if real else None,
    )
    archive.pack(out)
    size = out.stat().st_size / 1e6
    typer.echo(visible(f"{out}: {len(archive.rows)} rows, {size:.2f} MB"))


if __name__ == "__main__":
    typer.run(main)
