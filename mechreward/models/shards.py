"""Answers that are kept as they come, so that a run which was stopped goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mechreward.base.errors import of_kind, require
from mechreward.base.files import digest, read_tensors, write_tensors
from mechreward.base.progress import under
from mechreward.models.identity import model_id
from mechreward.models.jobs import Continuation, Job
from mechreward.models.policy import Policy
from mechreward.models.row_edits import Edit

# A stop loses what was generated since the last shard was written. Shards begin small and grow
# until one takes about so long; rows run empty at the end of each, so smaller ones are slower (our
# choice).
FIRST = 64  # answers
SECONDS = 60.0
GROWTH = 16


class Place(NamedTuple):
    """Where answers are kept, and the seconds from which they are."""

    folder: Path
    least: int | float


_place: ContextVar[Place | None] = ContextVar("place of shards", default=None)


@contextmanager
def kept_in(folder: Path | str | None, least: int | float = 0) -> Iterator[None]:
    """What is generated meanwhile is kept in a folder, shard by shard, and taken from there where
    it was generated before.

    An answer goes by a digest of all that decides it: the model, the policy, prompt, random numbers
    and edits. So a folder may serve several runs, and nothing in it is ever written over.

    Parameters
    ----------
    folder : Path or str or None
        Made with the first shard. None changes nothing.
    least : float, default 0
        Seconds: what took less to make is not kept.
    """
    if folder is None:
        yield
        return
    of_kind("out", folder, (str, Path), "a folder")
    require(str(folder) != "", "out='' names no folder.")
    require(not Path(folder).is_file(), f"{folder} is a file; out= names a folder.")
    token = _place.set(Place(Path(folder), least))
    try:
        yield
    finally:
        _place.reset(token)


def place() -> Place | None:
    """Where answers are kept at present."""
    return _place.get()


class Shards:
    """The answers that are kept of one model and policy.

    Parameters
    ----------
    folder : Path
        Where they are.
    model : TransformerBridge or HookedTransformer
        The model.
    policy : Policy
        How tokens are drawn.
    ends : frozenset of int
        The tokens that end a row.

    Raises
    ------
    MechRewardError
        A file is damaged, or was changed.
    """

    def __init__(self, folder: Path, model: Any, policy: Policy, ends: frozenset[int]) -> None:
        self.folder = folder
        identity = asdict(model_id(model))
        self.about = digest(json.dumps([identity, asdict(policy), sorted(ends)]))
        self.edits: dict[int, str] = {}
        self.known: dict[str, Continuation] = {}
        if folder.exists():
            for path in sorted(folder.glob(f"answers-{self.about}-*.safetensors")):
                self.known |= _read(path)

    def name(self, job: Job) -> str:
        """What the answer to a job goes by."""
        edits = [self._edit(edit) for edit in job.edits]
        trunk = job.trunk[: job.length].numpy().tobytes()
        numbers = [job.length, job.max_new, job.begun, *([job.drawn] if job.drawn else [])]
        about = json.dumps([*numbers, list(job.key), edits])
        return digest(trunk, about)

    def filled(
        self,
        jobs: Sequence[Job],
        run: Callable[[list[Job], bool | str], list[Continuation]],
        least: int | float,
        progress: bool | str,
    ) -> list[Continuation]:
        """The answers to all jobs: what is not known is run, shard by shard, and kept where that
        took `least` seconds or more."""
        names = [self.name(job) for job in jobs]
        left = [number for number, name in enumerate(names) if name not in self.known]
        size, done = FIRST, 0
        while done < len(left):
            part = left[done : done + size]
            title = progress
            if len(left) > len(part):
                title = under(progress, f"{done + 1}-{done + len(part)} of {len(left)}")
            began = time.perf_counter()
            answers = run([jobs[number] for number in part], title)
            seconds = time.perf_counter() - began
            own = [names[number] for number in part]
            self.known.update(zip(own, answers, strict=True))
            if seconds >= least:
                self.save(own, answers)
            done += len(part)
            size = following(len(part), seconds)
        return [self.known[name] for name in names]

    def save(self, names: Sequence[str], answers: Sequence[Continuation]) -> None:
        """Keep some answers."""
        tensors = {
            "tokens": torch.cat([answer.tokens for answer in answers]).int(),
            "logprobs": torch.cat([answer.logprobs for answer in answers]).float(),
            "lengths": torch.tensor([len(answer.tokens) for answer in answers]),
            "finished": torch.tensor([answer.finished for answer in answers]),
        }
        path = self.folder / f"answers-{self.about}-{digest(*names)}.safetensors"
        write_tensors(path, tensors, {"kind": "answers", "names": json.dumps(list(names))})

    def _edit(self, edit: Edit) -> str:
        """Digest of an edit; edits are shared by many jobs."""
        if id(edit) not in self.edits:
            keep, add = edit.keep.float().cpu(), edit.add.float().cpu()
            where = json.dumps([str(edit.site), edit.at, list(add.shape)])
            self.edits[id(edit)] = digest(where, keep.numpy().tobytes(), add.numpy().tobytes())
        return self.edits[id(edit)]


def following(size: int, seconds: float) -> int:
    """Answers of the next shard, after one of this size took so long."""
    return max(1, round(size * min(GROWTH, SECONDS / max(seconds, 1e-3))))


def _read(path: Path) -> dict[str, Continuation]:
    """The answers of a shard, by name."""
    tensors, about = read_tensors(path, "answers")
    names = json.loads(about["names"])
    lengths = tensors["lengths"].tolist()
    require(
        len(lengths) == len(names) and sum(lengths) == len(tensors["tokens"]),
        f"{path} is a damaged answers file: delete it to have it made again.",
    )
    tokens = tensors["tokens"].long().split(lengths)
    logprobs = tensors["logprobs"].split(lengths)
    answers = {}
    for number, finished in enumerate(tensors["finished"].tolist()):
        answers[names[number]] = Continuation(tokens[number], logprobs[number], finished)
    return answers
