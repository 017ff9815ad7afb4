"""Finished problems of a search, kept in a file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from mechreward.base.errors import of_kind, require
from mechreward.base.files import digest, read_tensors, write_tensors
from mechreward.tasks import Problem
from mechreward.uses.search.ledger import Ledger
from mechreward.uses.search.readouts import Readout
from mechreward.uses.search.sampler import Partial
from mechreward.uses.search.scorers import Outside, Scorer
from mechreward.uses.search.tree import COMBINE, Node


class Kept:
    """Finished problems, in memory and, where there is a folder, in a file each.

    Parameters
    ----------
    folder : Path or str or None
        Where the files are; None for memory alone.
    search : sequence of str
        All that decides an answer, but for the problem.
    combine : str
        How scores of steps become one.
    """

    def __init__(self, folder: Path | str | None, search: Sequence[str], combine: str) -> None:
        if folder is not None:
            of_kind("out", folder, (str, Path), "a folder")
        self.folder = None if folder is None else Path(folder)
        self.search = tuple(search)
        self.combine = combine
        self.known: dict[str, tuple[Partial, float, Ledger]] = {}
        if folder is not None:
            require(not Path(folder).is_file(), f"{folder} is a file; out= names a folder.")

    def has(self, problem: Problem) -> bool:
        """Whether a problem is finished, in this call or before."""
        if problem.id in self.known:
            return True
        path = self._path(problem)
        if path is None or not path.is_file():
            return False
        tensors, about = read_tensors(path, "finished problem")
        held = about.get("problem") if about.get("kind") == "searched" else "something else"
        require(
            held == problem.id,
            f"{path} should hold the search of problem {problem.id!r}, "
            f"and holds {held!r}: delete it.",
        )
        partial = Partial(
            tensors["tokens"].long(), tensors["logprobs"], tuple(about["steps"]), about["finished"]
        )
        score = np.nan if about["score"] is None else about["score"]
        self.known[problem.id] = partial, float(score), Ledger(**about["ledger"])
        return True

    def of(self, problem: Problem) -> tuple[Partial, float, Ledger]:
        """Answer, score and ledger of a finished problem."""
        return self.known[problem.id]

    def save(self, problem: Problem, node: Node, ledger: Ledger) -> None:
        """Keep what a search chose."""
        partial: Partial = node.content
        ledger += Ledger(kept=len(partial.logprobs))
        score = COMBINE[self.combine](node.scores) if node.scores else np.nan
        self.known[problem.id] = partial, float(score), ledger
        path = self._path(problem)
        if path is None:
            return
        about = {
            "kind": "searched",
            "problem": problem.id,
            "steps": list(partial.steps),
            "finished": partial.finished,
            "score": None if np.isnan(score) else float(score),
            "ledger": ledger.to_json(),
        }
        tensors = {"tokens": partial.tokens.int(), "logprobs": partial.logprobs.float()}
        write_tensors(path, tensors, about)

    def _path(self, problem: Problem) -> Path | None:
        """A name from all that decides the answer."""
        if self.folder is None:
            return None
        parts = (*self.search, problem.id, problem.question)
        return self.folder / f"{digest(*parts)}.safetensors"


def told(scorer: Scorer | None) -> str:
    """What tells scorers apart: the name, and of a read-out what it reads and how."""
    if scorer is None:
        return ""
    if isinstance(scorer, Outside) and scorer.mark:
        return repr((scorer.name, scorer.mark))
    if not isinstance(scorer, Readout):
        return scorer.name
    read = (scorer.name, str(scorer.site), scorer.rows, scorer.columns, scorer.difference)
    return repr((*read, scorer.mark))


def code_of(function: Any) -> str:
    """Tells a function from what it was before it was edited; what it calls, and what it closes
    over, is not seen. Empty for what has no code in Python."""
    code = getattr(function, "__code__", None)
    return "" if code is None else digest(*_parts(code))


def _parts(code: CodeType) -> list[str]:
    """Operations, names and constants, those of inner functions too."""
    parts = [code.co_code.hex(), repr(code.co_names)]
    for constant in code.co_consts:
        parts += _parts(constant) if isinstance(constant, CodeType) else [repr(constant)]
    return parts
