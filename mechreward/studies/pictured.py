"""Pictures of what the neurons of a study are good for, beside its rows."""

from __future__ import annotations

from pathlib import Path

from mechreward import show
from mechreward.experiments.rows import Results
from mechreward.studies.study import Study
from mechreward.uses.confidence import Confidence
from mechreward.uses.siblings import Siblings

CONFIDENCE = "R7.confidence.safetensors"
SIBLINGS = "R11.siblings.safetensors"


def draw(study: Study, results: Results) -> list[Path]:
    """Every picture that something is kept for, as `figure-NAME.svg`, its numbers as `.csv`.

    Reliability, risk and coverage of R7; accuracy against tokens and sibling steps of R11.
    """
    pictures = {}
    if (study.out / CONFIDENCE).exists():
        conf = study.folder.load(CONFIDENCE, Confidence)
        pictures["R7-calibration"] = show.calibration(conf)
        pictures["R7-risk"] = show.risk(conf)
    if (study.out / SIBLINGS).exists():
        pictures["R11-siblings"] = show.siblings(study.folder.load(SIBLINGS, Siblings))
    searched = results.where(experiment="R11", metric="accuracy")
    if searched:
        pictures["R11-search"] = show.search(results)
    paths = []
    for name, picture in pictures.items():
        paths.append(picture.save(study.out / f"figure-{name}.svg"))
        picture.save(study.out / f"figure-{name}.csv")
    return paths
