"""Activations that outgrow memory.

A file is filled in place, resumed after a stop, and whole or absent to its readers.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import NOTHING_LOST, MechRewardError, require
from mechreward.base.files import (
    AT,
    NONE,
    held,
    in_one_line,
    read_tensors,
    seal,
    tensor_header,
    write_atomic,
)


class Filling:
    """A safetensors file with `x`, to be filled trajectory by trajectory, and its labels.

    Until `finish` it lives under a hidden name, its place on the disk reserved, beside a list of
    the trajectories whose rows are safely there. What is there already is told by the header:
    model, site, labels and `source`.

    Parameters
    ----------
    path : Path
        The file to be.
    width : int
        Neurons of a row.
    labels : mapping of str to tensor [row]
        Columns of all rows.
    about : dict
        Metadata; it has to tell recordings apart.
    resume : bool
        False fills the file anew.

    Attributes
    ----------
    x : tensor [row width]
        Float32, to be written into.
    done : set of int
        Trajectories whose rows are safely there.
    complete : bool
        Whether the file was there already.

    Raises
    ------
    MechRewardError
        The file is there and holds something else, another process is filling it, or the disk is
        too small; no file is changed.
    """

    FLUSH = 2**26  # bytes after which rows are made safe

    def __init__(
        self,
        path: Path,
        width: int,
        labels: Mapping[str, torch.Tensor],
        about: Mapping[str, Any],
        resume: bool,
    ) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.log = path.with_name(f".{path.name}.done")
        rows = len(next(iter(labels.values())))
        shapes = {name: (column.dtype, tuple(column.shape)) for name, column in labels.items()}
        self.head, starts = tensor_header(shapes | {"x": (torch.float32, (rows, width))}, about)
        self.lock = ExitStack()  # until `filled` ends
        if not path.exists():
            self.lock.enter_context(held(path, wait=False))
        self.complete = path.exists()
        if self.complete:
            there = read_tensors(path, "activations")[1]
            same = resume and there == dict(about)
            require(
                same,
                f"{path} is there and holds another recording; name another folder, or delete it.",
            )
            self.done = set(map(int, labels["trajectory"].tolist()))
            return
        with in_one_line("write", path):
            if not (resume and self._begun()):
                self.log.unlink(missing_ok=True)
                numbers = rows * (len(labels) + width)
                self._reserve(len(self.head) + 4 * numbers)
            # Also on resuming: a stop may have come between the header and the labels.
            for name, column in labels.items():
                place = np.memmap(self.part, np.int32, "r+", starts[name], shape=(rows,))
                place[:] = column.numpy()
            self.done = set(map(int, self.log.read_text().split())) if self.log.exists() else set()
            self.map = np.memmap(self.part, np.float32, "r+", starts["x"], shape=(rows, width))
        self.x: Float[torch.Tensor, "row width"] = torch.from_numpy(self.map)
        self.fresh: list[int] = []
        self.bytes = 0

    def wrote(self, trajectories: Iterable[int], rows: int) -> None:
        """These trajectories' rows (so many, together) are in `x`."""
        self.fresh += trajectories
        self.bytes += rows * self.map.shape[1] * 4
        if self.bytes >= self.FLUSH:
            self._safe()

    def finish(self) -> None:
        """All rows are there: the file gets its digest and its name."""
        if self.complete:
            return
        with in_one_line("write", self.path):
            self._safe()
            seal(self.part)
            with self.part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self.part, self.path)
            self.log.unlink()

    def _safe(self) -> None:
        """Rows first, then the list that says they are there."""
        self.map.flush()
        self.done.update(self.fresh)
        write_atomic(self.log, " ".join(map(str, sorted(self.done))))
        self.fresh, self.bytes = [], 0

    def _begun(self) -> bool:
        if not self.part.exists():
            return False
        with self.part.open("rb") as file:
            head = file.read(len(self.head))
        # A stop may have come between the digest and the name.
        return head.replace(head[AT : AT + len(NONE)], NONE, 1) == self.head

    def _reserve(self, size: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        try:
            with self.part.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
                file.write(self.head)
        except OSError as error:
            self.part.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            raise MechRewardError(
                f"{self.path} needs {size / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB left. "
                f"Free some, name another folder, or record fewer sites or rows. {NOTHING_LOST}"
            ) from error


@contextmanager
def filled(files: Collection[Filling]) -> Iterator[None]:
    """Finish files if all goes well meanwhile, and let others at them in any case."""
    try:
        yield
        for file in files:
            file.finish()
    finally:
        for file in files:
            file.lock.close()
