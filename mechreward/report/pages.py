"""All pages from the archive of rows."""

from __future__ import annotations

from pathlib import Path

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import write_atomic
from mechreward.report import bench_page, calibration_page
from mechreward.report.archive import Archive, measurements
from mechreward.report.prose import fill_prose
from mechreward.report.results_page import write_page


def write_pages(archive: Archive, out: Path | str) -> list[Path]:
    """Write the page of every part that the archive holds, with its pictures.

    Parameters
    ----------
    archive
        The rows.
    out
        Folder for `results.md`, `real/results.md` (the words models), `calibration.md` and
        `performance.md`, each with a folder `pictures`.

    Returns
    -------
    list
        The pages written.

    Raises
    ------
    MechRewardError
        An archive without any part.
    """
    out = Path(out)
    written = []
    for results, path in ((archive.paper, out), (archive.real, out / "real")):
        if results:
            by = results.manifest.get("command", "mechreward paper")
            written.append(write_page(results, path / "results.md", by))
    if archive.calibration:
        written.append(calibration_page.page(archive.calibration, out / "calibration.md"))
    if archive.bench:
        written.append(bench_page.page(archive.bench, out / "performance.md"))
    require(bool(written), "the archive holds no results, no calibration and no benchmark.")
    return written


def fill_file(path: Path, archive: Archive) -> Path:
    """Write the numbers of a hand-written text anew from the rows that they name.

    Raises:
        MechRewardError: a file that is no readable text, or a reference that names no row, or
            several where one is meant.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MechRewardError(f"cannot read the text {path}: {error}.") from error
    return write_atomic(path, fill_prose(text, [*archive.rows, *measurements()]))
