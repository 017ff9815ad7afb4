"""Pictures of what the neurons of a study are good for, beside its rows."""

from __future__ import annotations

from mechreward import show
from mechreward.experiments.rows import Results
from mechreward.studies.folder import Folder
from mechreward.uses.confidence import Confidence
from mechreward.uses.siblings import Siblings

CONFIDENCE = "R7.confidence.safetensors"
SIBLINGS = "R11.siblings.safetensors"


def draw(folder: Folder, results: Results) -> None:
    """Every picture that something is kept for, as `figure-NAME.svg`, its numbers as `.csv`.

    Reliability, risk and coverage of R7; accuracy against tokens and sibling steps of R11.
    """
    pictures = {}
    if (folder.path / CONFIDENCE).exists():
        conf = folder.load(CONFIDENCE, Confidence)
        pictures["R7-calibration"] = show.calibration(conf)
        pictures["R7-risk"] = show.risk(conf)
    if (folder.path / SIBLINGS).exists():
        pictures["R11-siblings"] = show.siblings(folder.load(SIBLINGS, Siblings))
    if results.where(experiment="R11", metric="accuracy"):
        pictures["R11-search"] = show.search(results)
    for name, picture in pictures.items():
        for ending in ("svg", "csv"):
            picture.save(folder.path / f"figure-{name}.{ending}")
