"""Independent pieces of work side by side, each in a process of one thread: small models cannot
fill two cores."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as first_of
from multiprocessing import get_context, parent_process
from threading import Thread

# Read when a process begins: its threads, and whether its progress bars would run into each other.
ALONE = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(
    work: Callable[..., object],
    jobs: Sequence[tuple],
    then: Callable[[tuple], Sequence[tuple]] = lambda job: (),
    rank: Callable[[tuple], int] = lambda job: 0,
) -> Iterator[tuple]:
    """Call `work(*job)` for every job, as many at once as there are cores; one after the other, in
    this process, where that is one. Yields each job when it is done. What is made is to be kept in
    files: nothing else comes back.

    `then(job)` gives further jobs that may begin when that one is done. Of those that may begin the
    one of the lowest `rank` does, the earliest among equals.

    The first error is raised as soon as it is there, and nothing further is begun.
    """
    ready, most = list(jobs), cores()

    def take() -> tuple:
        return ready.pop(min(range(len(ready)), key=lambda i: rank(ready[i])))

    if most < 2 or not ready:
        while ready:
            work(*(job := take()))
            ready += then(job)
            yield job
        return
    before = {name: os.environ.get(name) for name in ALONE}
    os.environ.update(ALONE)
    try:
        with ProcessPoolExecutor(most, get_context("spawn"), _follow_the_first) as pool:
            running: dict[Future, tuple] = {}
            try:
                while ready or running:
                    while ready and len(running) < most:
                        job = take()
                        running[pool.submit(work, *job)] = job
                    for one in first_of(running, return_when=FIRST_COMPLETED).done:
                        job = running.pop(one)
                        one.result()
                        ready += then(job)
                        yield job
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _follow_the_first() -> None:
    """Ctrl-C reaches every process; only the first one has something to say about it. If that is
    killed, all end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    first = parent_process()

    def wait() -> None:
        if first is not None:
            first.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()
