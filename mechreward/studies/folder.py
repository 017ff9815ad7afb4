"""A folder of stages: the plan that says what they depend on, and a file for each that is
finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mechreward.base.errors import require
from mechreward.base.files import read_json, write_json
from mechreward.experiments.rows import Results, Row

PLAN = "plan.json"


class Folder:
    """A resumable run. Every stage writes its file atomically and is skipped when the file is
    there.

    Parameters
    ----------
    path
        The folder; made when the first file is written.

    Attributes
    ----------
    path
        The same as a `Path`.
    seconds
        What each stage took that this object has run, by name.

    Raises
    ------
    MechRewardError
        `path` is a file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.seconds: dict[str, float] = {}
        require(not self.path.is_file(), f"{path} is a file; --out names a folder.")

    @property
    def begun(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / PLAN).exists()

    @property
    def strangers(self) -> str:
        """The first names in a folder that holds other things than a run; empty if a run may be
        here."""
        if self.begun or not self.path.exists():
            return ""
        names = sorted(path.name for path in self.path.iterdir())
        return ", ".join(names[:3])

    @property
    def plan(self) -> dict[str, Any]:
        """What the run here depends on.

        Raises
        ------
        MechRewardError
            A damaged plan.
        """
        return read_json(self.path / PLAN, "plan")

    def begin(self, plan: dict[str, Any]) -> None:
        """Keep the plan, unless there is one."""
        if not self.begun:
            write_json(self.path / PLAN, plan)

    def clear(self, patterns: Sequence[str]) -> None:
        """Remove the files of a run that match, and nothing else; the plan last, so that a stop in
        between can be repeated."""
        for pattern in patterns:
            for path in self.path.glob(pattern):
                path.unlink()
        (self.path / PLAN).unlink()

    def kept(self, name: str, kind: Any, make: Callable[[], Any]) -> Any:
        """A stage: what its file holds if it is there; else it is made, timed and written.

        Parameters
        ----------
        name
            The file's name.
        kind
            The noun that the file holds: has `load(path)` and `save(path)`.
        make
            Makes the noun.
        """
        path = self.path / name
        if path.exists():
            return kind.load(path)
        with self.timed(name.removesuffix(".json").removesuffix(".safetensors")):
            made = make()
        made.save(path)
        return made

    def rows(self, name: str, make: Callable[[], Sequence[Row]]) -> list[Row]:
        """A stage of rows."""
        results = self.kept(
            rows_file(name), Results, lambda: Results({"stage": name}, tuple(make()))
        )
        return list(results.rows)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note what a stage takes."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - began, 2)


def rows_file(stage: str) -> str:
    """The name of the file that keeps a stage's rows."""
    return f"{stage}.rows.json"
