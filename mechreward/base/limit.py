"""A call that may not take for ever."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from threading import Thread, current_thread, main_thread
from typing import Any


class TimeUp(BaseException):
    """The call took too long. No `Exception`, so that the call's own handlers let it through."""


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What a call returns, if it returns in time.

    An alarm interrupts it where there are alarms: in the main thread, and not on Windows. Elsewhere
    the call has a thread of its own, which is left behind when the time is up.

    Raises
    ------
    TimeUp
        It did not.
    """
    if hasattr(signal, "SIGALRM") and current_thread() is main_thread():
        return _by_alarm(seconds, call)
    return _by_thread(seconds, call)


def _by_alarm(seconds: float, call: Callable[[], Any]) -> Any:
    def ring(*_: Any) -> None:
        raise TimeUp

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    # It rings again, in case something in the call swallows the first ring.
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        try:
            return call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # also where it rang in the line above
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        if left:  # somebody else's alarm goes on
            rest = left - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(rest, 1e-3), every)


def _by_thread(seconds: float, call: Callable[[], Any]) -> Any:
    returned: list[Any] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            returned.append(call())
        except BaseException as error:  # noqa: BLE001  it is raised again below
            raised.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not returned:
        raise TimeUp
    return returned[0]
