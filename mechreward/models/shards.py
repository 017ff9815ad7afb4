"""Answers that are kept as they come, so that a run which was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mechreward.base.errors import require
from mechreward.base.files import digest, read_tensors, write_tensors
from mechreward.models.identity import model_id
from mechreward.models.jobs import Continuation, Job
from mechreward.models.policy import Policy
from mechreward.models.row_edits import Edit

# Answers of a shard, in rows that decode at once: what a stop loses at most. Rows run empty at the
# end of each, so smaller shards are slower (our choice).
SHARD = 16


class Place(NamedTuple):
    """Where answers are kept, and the seconds from which they are."""

    folder: Path
    least: int | float


_place: ContextVar[Place | None] = ContextVar("place of shards", default=None)


@contextmanager
def kept_in(folder: Path | str | None, least: int | float = 0) -> Iterator[None]:
    """What is generated meanwhile is kept in a folder, shard by shard, and taken from there where
    it was generated before.

    The name of a shard is a digest of all that decides it: the model, the policy, prompts, random
    numbers and edits. So a folder may serve several runs, and nothing in it is ever written over.

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
    """The shards of one call.

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
    """

    def __init__(self, folder: Path, model: Any, policy: Policy, ends: frozenset[int]) -> None:
        self.folder = folder
        self.model = model
        self.policy = policy
        self.ends = ends
        self.edits: dict[int, str] = {}

    @cached_property
    def about(self) -> str:
        """What all shards have in common."""
        identity = asdict(model_id(self.model))
        return json.dumps([identity, asdict(self.policy), sorted(self.ends)])

    def path(self, jobs: Sequence[Job]) -> Path:
        """The file of these jobs."""
        parts: list[bytes | str] = [self.about]
        for job in jobs:
            edits = [self._edit(edit) for edit in job.edits]
            parts.append(job.trunk[: job.length].numpy().tobytes())
            parts.append(json.dumps([job.length, job.max_new, job.begun, list(job.key), edits]))
        return self.folder / f"answers-{digest(*parts)}.safetensors"

    def load(self, jobs: Sequence[Job]) -> list[Continuation] | None:
        """What is kept of these jobs, if it is.

        Raises
        ------
        MechRewardError
            The file is damaged, or was changed.
        """
        if not self.folder.exists():
            return None
        path = self.path(jobs)
        if not path.exists():
            return None
        tensors, _ = read_tensors(path, "answers")
        lengths = tensors["lengths"].tolist()
        require(
            len(lengths) == len(jobs) and sum(lengths) == len(tensors["tokens"]),
            f"{path} is a damaged answers file: delete it to have it made again.",
        )
        answers = []
        tokens = tensors["tokens"].long().split(lengths)
        logprobs = tensors["logprobs"].split(lengths)
        for number, finished in enumerate(tensors["finished"].tolist()):
            answers.append(Continuation(tokens[number], logprobs[number], finished))
        return answers

    def save(self, jobs: Sequence[Job], answers: Sequence[Continuation]) -> None:
        """Keep what these jobs came to."""
        tensors = {
            "tokens": torch.cat([answer.tokens for answer in answers]).int(),
            "logprobs": torch.cat([answer.logprobs for answer in answers]).float(),
            "lengths": torch.tensor([len(answer.tokens) for answer in answers]),
            "finished": torch.tensor([answer.finished for answer in answers]),
        }
        write_tensors(self.path(jobs), tensors, {"kind": "answers"})

    def _edit(self, edit: Edit) -> str:
        """Digest of an edit; edits are shared by many jobs."""
        if id(edit) not in self.edits:
            keep, add = edit.keep.float().cpu(), edit.add.float().cpu()
            where = json.dumps([str(edit.site), edit.at, list(add.shape)])
            self.edits[id(edit)] = digest(where, keep.numpy().tobytes(), add.numpy().tobytes())
        return self.edits[id(edit)]
