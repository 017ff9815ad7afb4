"""A folder of stages: the plan that says what they depend on, and a file for each that is
finished."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from shutil import rmtree
from typing import Any

from mechreward.base.errors import require
from mechreward.base.files import digest, held, made_from, read_json, read_seal, write_json
from mechreward.experiments.rows import Results, Row
from mechreward.models.shards import kept_in

PLAN = "plan.json"
RESULTS = "results.json"
PARTS = ".parts"  # folder with what a stage has generated so far; it goes when the stage is done
WORTH = 2.0  # seconds of generation that are worth a file (our choice)

# What the stage that is being made has asked of its folder and of others: file -> digest.
_asked: ContextVar[dict[Path, str] | None] = ContextVar("asked", default=None)


class Folder:
    """A resumable run. Every stage writes its file atomically and is skipped when the file is
    there.

    The seal of a stage's file holds the name of the stage, the digest of the plan and those of its
    parents: the stages that were asked for while it was made. A file that does not fit is refused.

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
    nouns
        What the stages hold that were asked for, by file name.
    seals
        Seals of all files that were looked at.

    Raises
    ------
    MechRewardError
        `path` is a file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.seconds: dict[str, float] = {}
        self.nouns: dict[str, Any] = {}
        self.seals: dict[Path, dict[str, Any]] = {}
        self._digest: str | None = None
        require(not self.path.is_file(), f"{path} is a file; --out names a folder.")

    @property
    def begun(self) -> bool:
        """Whether a run has begun here. A registration may lie here under the name of a plan."""
        path = self.path / PLAN
        return path.exists() and read_json(path, "plan").get("kind") != "registration"

    @property
    def strangers(self) -> str:
        """The first names in a folder that holds other things than a run; empty if a run may be
        here."""
        if self.begun or not self.path.exists():
            return ""
        names = sorted(path.name for path in self.path.iterdir())
        # A process that was killed while it wrote the plan left a part of it.
        names = [name for name in names if not name.startswith(f".{PLAN}.")]
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
        if self.begun:
            return
        with held(self.path / PLAN):
            for part in self.path.glob(f".{PLAN}.*"):
                if not part.name.endswith(".lock"):
                    part.unlink()
            if not self.begun:
                write_json(self.path / PLAN, plan)

    def clear(self, patterns: Sequence[str]) -> None:
        """Remove the files of a run that match, and nothing else; the plan last, so that a stop in
        between can be repeated.

        Raises
        ------
        MechRewardError
            Another process is making a stage here.
        """
        for lock in list(self.path.glob(".*.lock")):
            with held(self.path / lock.name[1:].removesuffix(".lock"), wait=False):
                pass  # what a killed process left is gone now
        for pattern in patterns:
            for path in [*self.path.glob(pattern), *self.path.glob(f".{pattern}.new")]:
                path.unlink()
        for parts in self.path.glob(f".*{PARTS}"):
            rmtree(parts)
        (self.path / PLAN).unlink()
        self.nouns, self.seals, self._digest = {}, {}, None

    def check(self, patterns: Sequence[str]) -> None:
        """Look at all files that match before any of them is written over.

        Raises
        ------
        MechRewardError
            A file is damaged, was changed, or is of another run, stage or parent.
        """
        bound = []
        for pattern in patterns:
            for path in sorted(self.path.glob(pattern)):
                if path.suffix not in (".json", ".safetensors"):
                    continue  # pages and pictures are made anew
                self.seals[path] = read_seal(path, "kept")
                if self.seals[path].get("made"):
                    self._is_own(path)
                    bound.append(path)
        for path in bound:
            self._fits(path)

    def kept(self, name: str, kind: Any, make: Callable[[], Any], **how: Any) -> Any:
        """A stage: what its file holds if it is there; else it is made, timed and written.

        Of two processes that ask for a stage at once, one makes it and the other waits.

        Parameters
        ----------
        name
            The file's name.
        kind
            The noun that the file holds: has `load(path)` and `save(path)`.
        make
            Makes the noun.
        **how
            Further arguments of `load`.

        Raises
        ------
        MechRewardError
            The file is damaged, was changed, or is of another run, stage or parent.
        """
        path = self.path / name
        if name not in self.nouns:
            if path.exists():
                self.nouns[name] = self.load(name, kind, **how)
            else:
                with held(path):
                    if path.exists():
                        self.nouns[name] = self.load(name, kind, **how)
                    else:
                        self.nouns[name] = self._make(path, make)
        asked = _asked.get()
        if asked is not None:
            asked[path] = self.seals[path]["digest"]
        return self.nouns[name]

    def load(self, name: str, kind: Any, **how: Any) -> Any:
        """What the file of a finished stage holds; arguments and errors as for `kept`."""
        path = self.path / name
        self.seals[path] = read_seal(path, "kept")
        self._is_own(path)
        self._fits(path)
        return kind.load(path, **how)

    def rows(self, name: str, make: Callable[[], Sequence[Row]]) -> list[Row]:
        """A stage of rows."""
        results = self.kept(
            rows_file(name), Results, lambda: Results({"stage": name}, tuple(make()))
        )
        return list(results.rows)

    def bound(
        self, name: str, parents: Mapping[Path, str] | None = None
    ) -> AbstractContextManager[None]:
        """What is written meanwhile says that it is the file `name` of this run.

        Parameters
        ----------
        name
            The file's name.
        parents
            Files it was made from and their digests.
        """
        known = {}
        for path, there in sorted((parents or {}).items()):
            known[os.path.relpath(path, self.path)] = there
        return made_from({"stage": name, "plan": self._plan(), "from": known})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note what a stage takes."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - began, 2)

    def _make(self, path: Path, make: Callable[[], Any]) -> Any:
        """Make a stage, write it with what it asked for, and see that it fits what is there."""
        asked: dict[Path, str] = {}
        token = _asked.set(asked)
        parts = path.with_name(f".{path.name}{PARTS}")
        try:
            stage = path.name.removesuffix(".json").removesuffix(".safetensors")
            with self.timed(stage), kept_in(parts, WORTH):
                made = make()
        finally:
            _asked.reset(token)
        with self.bound(path.name, asked):
            made.save(path)
        rmtree(parts, ignore_errors=True)
        self.seals[path] = read_seal(path, "kept")
        self._fits(path)
        return made

    def _plan(self) -> str | None:
        """The digest of the plan that this object found; none where no run has begun."""
        if self._digest is None and self.begun:
            self._digest = digest(json.dumps(self.plan))
        return self._digest

    def _is_own(self, path: Path) -> None:
        """Whether a file is of this run and of its stage."""
        made = self._made(path)
        require(
            made["stage"] == path.name,
            f"{path} is {made['stage']} under another name: put it back, or delete it.",
        )
        require(
            made["plan"] == self._plan(),
            f"{path} is of a run with another plan or model: delete it to have it made again, or "
            "name another folder.",
        )

    def _made(self, path: Path) -> dict[str, Any]:
        """What a file says it was made from."""
        made: dict[str, Any] = self.seals[path].get("made") or {}
        require(
            bool(made),
            f"{path} does not say what it was made from: an older version wrote it, or it is no "
            "stage of this run. Delete it to have it made again, or name another folder.",
        )
        return made

    def _fits(self, path: Path) -> None:
        """Whether a file was made from the parents that are there, and whether what was made from
        it was made from this."""
        for name, expected in self._made(path)["from"].items():
            self._same(path, self.path / name, expected)
        for child, seal in self.seals.items():
            if path.name in (seal.get("made") or {}).get("from", {}):
                self._same(child, path, seal["made"]["from"][path.name])

    def _same(self, child: Path, parent: Path, expected: str) -> None:
        """Whether a file was made from the parent that is there; one that is gone is made again."""
        if parent not in self.seals:
            if not parent.exists():
                return
            self.seals[parent] = read_seal(parent, "kept")
        self._made(parent)
        require(
            self.seals[parent]["digest"] == expected,
            f"{child} was made from another {parent.name} than the one that is there: delete the "
            "first to have it made again, or put back the second.",
        )


def rows_file(stage: str) -> str:
    """The name of the file that keeps a stage's rows."""
    return f"{stage}.rows.json"
