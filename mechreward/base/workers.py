"""Independent pieces of work side by side, each in a process of one thread: small models cannot
fill two cores."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as first_of
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.synchronize import Event
from threading import Thread

from mechreward.base.errors import MechRewardError

UNGUARDED = (
    "the processes that share the work ended before they began. Each of them reads your script "
    "anew: put its calls under `if __name__ == '__main__':`."
)
KILLED = "a process that shared the work ended by itself, as one does that takes too much memory."
# Read when a process begins: its threads, and whether its progress bars would run into each other.
ALONE = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(
    work: Callable[..., object],
    jobs: Sequence[tuple],
    then: Callable[[tuple], Sequence[tuple]] = lambda job: (),
    rank: Callable[[tuple], int] = lambda job: 0,
) -> Iterator[tuple]:
    """Do jobs as many at once as there are cores; one after the other, in this process, where that
    is one.

    Parameters
    ----------
    work
        Called as `work(*job)`. What it makes is to be kept in files: nothing comes back.
    jobs
        Arguments of `work`, one tuple a job.
    then
        Further jobs that may begin when the given one is done.
    rank
        Of the jobs that may begin, the one of the lowest rank does, the earliest among equals.

    Yields
    ------
    tuple
        Each job when it is done.

    Raises
    ------
    Exception
        The first error of any job, as soon as it is there; nothing further is begun.
    MechRewardError
        A process ended by itself: in a script without `if __name__ == "__main__":` before it began.
    """
    waiting = list(jobs)
    most = cores()

    def take() -> tuple:
        ranks = [rank(job) for job in waiting]
        return waiting.pop(ranks.index(min(ranks)))

    if most < 2 or not waiting:
        while waiting:
            job = take()
            work(*job)
            waiting += then(job)
            yield job
        return

    leave_if_read_anew()
    running: dict[Future, tuple] = {}
    spawn = get_context("spawn")
    begun = spawn.Event()
    with (
        _environment(ALONE),
        ProcessPoolExecutor(most, spawn, _follow_the_first, (begun,)) as pool,
    ):
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    job = take()
                    running[pool.submit(work, *job)] = job
                for future in first_of(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    future.result()
                    waiting += then(job)
                    yield job
        except BrokenProcessPool:
            raise MechRewardError(KILLED if begun.is_set() else UNGUARDED) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def leave_if_read_anew() -> None:
    """End a process that only reads its script anew, without a word: the first one has it.

    Every process that is to do work reads the script that it comes from. Where that calls for
    processes of its own, the call is not under `if __name__ == "__main__":`.
    """
    if getattr(current_process(), "_inheriting", False):
        sys.exit(1)


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment, put back as they were."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _follow_the_first(begun: Event) -> None:
    """Ctrl-C reaches every process; only the first one has something to say about it. If that is
    killed, all end."""
    begun.set()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    first = parent_process()

    def wait() -> None:
        if first is not None:
            first.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()
