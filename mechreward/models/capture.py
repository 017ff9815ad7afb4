"""Activations, or what is read off them, caught while tokens are generated.

No second pass over the text is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool, Float, Int

from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.models.site import Site

ROWS = ("states", "steps", "tokens")
Read = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Capture:
    """What to catch at which sites in the generating pass.

    Attributes
    ----------
    read : mapping of Site to function or None
        For each site a read-out `[row width] -> [row out]` (float32, on the model's device), or
        None for the activations themselves.
    rows : str, default "tokens"
        "tokens" (the last prompt token and every new one), "states" (the last prompt token, every
        new token in `ends`, and the last token), or "steps" (the mean over the tokens of every
        step, a step being what ends at a token in `ends` or at the last token); as in
        `probing.activations.record`, but that a line without text is a step here.
    ends : frozenset of int, default none
        Tokens that end a step.

    Raises
    ------
    MechRewardError
        An unknown kind of rows, or no site.
    """

    read: Mapping[Site, Read | None]
    rows: str = "tokens"
    ends: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        one_of("kind of rows", self.rows, ROWS)
        require(bool(self.read), "nothing is captured: name at least one site.")


@dataclass(frozen=True)
class Caught:
    """What was caught of one job.

    Attributes
    ----------
    position : tensor [row]
        Absolute position of every row.
    x : dict of Site to tensor [row out]
        By site what was read there, float32 on the CPU.
    """

    position: Int[torch.Tensor, " row"]
    x: dict[Site, Float[torch.Tensor, "row out"]]


class Catcher:
    """The hooks of one `generate` call, and which rows of the next pass they keep.

    Jobs are known by number; which row a job sits in, the engine says before every pass. What is
    kept of a row whose job is over is dropped in the end. No hook waits for the device.

    Parameters
    ----------
    capture : Capture
        What to catch.
    starts : sequence of int
        [job] position of the token each job is continued from.
    slots : int
        Rows there can be at once.
    device : torch.device
        The model's.
    """

    FLUSH = 64  # passes after which what was caught leaves the device
    GONE = -1  # the job of a row whose job is over

    def __init__(
        self, capture: Capture, starts: Sequence[int], slots: int, device: torch.device
    ) -> None:
        self.capture = capture
        self.starts = starts
        self.slots = slots
        self.device = device
        self.ends = torch.tensor(sorted(capture.ends), dtype=torch.long, device=device)
        self.passes = 0
        self.entered: dict[int, int] = {}  # of every job in a row: before which pass it came,
        self.since: dict[int, int] = {}  # before which its present step began,
        self.slot: dict[int, int] = {}  # and where its sums are
        self.marked: set[int] = set()
        self.waiting: set[Site] = set()
        self.labels: list[list[int]] = []  # of every pass: the jobs of what is kept,
        self.places: list[list[int]] = []  # and their positions
        self.kept: dict[Site, list[torch.Tensor]] = {site: [] for site in capture.read}
        self.sums: dict[Site, torch.Tensor] = {}

    @property
    def chooses(self) -> bool:
        """Whether it keeps marked rows only, and not those of every token."""
        return self.capture.rows != "tokens"

    def hooks(self) -> list[tuple[str, Any]]:
        """TransformerLens `(name, fn)` pairs, to be put behind all that change activations."""
        return [(site.hook, self._hook(site)) for site in self.capture.read]

    def enter(self, job: int, row: int) -> None:
        """A job takes a row. Its number stays the slot: rows only move once nobody enters."""
        self.entered[job] = self.since[job] = self.passes
        self.slot[job] = row
        self.marked.add(job)

    def mark(self, jobs: Iterable[int]) -> None:
        """The next pass of these jobs meets the last token of a step."""
        self.marked.update(jobs)

    def leave(self, jobs: Iterable[int]) -> None:
        """The last tokens of these jobs have been run."""
        for job in jobs:
            del self.entered[job], self.since[job], self.slot[job]

    def ending(self, drawn: Int[torch.Tensor, " row"]) -> Bool[torch.Tensor, " row"]:
        """Which tokens end a step."""
        return torch.isin(drawn, self.ends)

    def expect(self, jobs: Sequence[int]) -> None:
        """Announce the next decoding pass: the job in each row."""
        present = [(row, job) for row, job in enumerate(jobs) if job in self.entered]
        if self.chooses:
            kept = [(row, job) for row, job in present if job in self.marked]
            labels = [job for _, job in kept]
            self.rows = self._index(row for row, _ in kept)
        else:
            labels = [job if job in self.entered else self.GONE for job in jobs]
        places = []
        for job in labels:
            if job == self.GONE:
                places.append(0)
            else:
                places.append(self.starts[job] + self.passes - self.entered[job])
        self.labels.append(labels)
        self.places.append(places)
        self.passes += 1
        over_steps = self.capture.rows == "steps"
        if over_steps:
            self.there = self._index(row for row, _ in present)
            self.into = self._index(self.slot[job] for _, job in present)
            self.full = self._index(self.slot[job] for job in labels)
            tokens = self._index(self.passes - self.since[job] for job in labels)
            self.tokens = tokens[:, None]
            self.since.update(dict.fromkeys(labels, self.passes))
        self.marked.clear()
        self.waiting = set(self.kept) if labels or over_steps else set()

    def done(self) -> None:
        """The pass is over. Raises MechRewardError if a hook did not fire in it."""
        if self.waiting:
            missing = ", ".join(sorted(map(str, self.waiting)))
            raise MechRewardError(f"nothing passed through {missing}: the hook never fired.")
        if not self.passes % self.FLUSH:
            for site, parts in self.kept.items():
                self.kept[site] = [torch.cat(parts).cpu()] if parts else []

    def results(self) -> list[Caught]:
        """By job, rows in the order of their positions."""
        job = torch.tensor([*chain(*self.labels)], dtype=torch.long)
        position = torch.tensor([*chain(*self.places)], dtype=torch.long)
        # Rows of jobs that were over have the lowest number, and are left out.
        gone = int((job == self.GONE).sum())
        order = job.argsort(stable=True)[gone:]
        counts = job[order].bincount(minlength=len(self.starts)).tolist()
        positions = position[order].split(counts)
        x: dict[Site, tuple[torch.Tensor, ...]] = {}
        for site, parts in self.kept.items():
            column = torch.cat([part.cpu() for part in parts])
            x[site] = column[order].split(counts)
        # The row of the last prompt token ends no step.
        first = int(self.capture.rows == "steps")
        caught = []
        for number in range(len(self.starts)):
            rows = {site: jobs[number][first:] for site, jobs in x.items()}
            caught.append(Caught(positions[number][first:], rows))
        return caught

    def _index(self, numbers: Iterable[int]) -> torch.Tensor:
        index = torch.tensor(list(numbers), dtype=torch.long)
        return index.to(self.device, non_blocking=True)

    def _hook(self, site: Site) -> Callable[..., None]:
        read = self.capture.read[site]

        def hook(tensor: torch.Tensor, hook: Any) -> None:
            if site not in self.waiting:  # a prefill, or a pass that nothing is kept of
                return
            self.waiting.discard(site)
            x = tensor[:, 0].float()
            if self.capture.rows == "steps":
                x = self._means(site, x)
            elif self.chooses:
                x = x[self.rows]
            # The model may write over its tensors later; a read-out is new anyway.
            self.kept[site].append(x.clone() if read is None else read(x))

        return hook

    def _means(self, site: Site, x: torch.Tensor) -> torch.Tensor:
        empty = x.new_zeros(self.slots, x.shape[1])
        sums = self.sums.setdefault(site, empty)
        sums.index_add_(0, self.into, x[self.there])
        means = sums[self.full] / self.tokens
        sums[self.full] = 0
        return means
