"""The page of all models that come with the package: `python -m mechreward.bundled.page`."""

from __future__ import annotations

from pathlib import Path

import typer

from mechreward.base.files import write_atomic
from mechreward.bundled import adapters, card

HEAD = [
    "# The bundled models",
    "",
    "Written by `python -m mechreward.bundled.page` from the training logs and measurements in",
    "`mechreward/models/weights/*/`. Retrain with `python -m mechreward.bundled.train`.",
    "",
]


def page() -> str:
    """In Markdown."""
    return "\n".join([*HEAD, *card.card(), *adapters.card()]) + "\n"


def main(out: Path = typer.Option(Path("docs/models.md"), help="Where the page goes.")) -> None:
    """Write the page."""
    write_atomic(out, page())


if __name__ == "__main__":
    typer.run(main)
