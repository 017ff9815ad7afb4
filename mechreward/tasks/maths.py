"""Answers in mathematics by math-verify, in a process of its own.

Its alarm fails in threads without a word, and every answer then counts as wrong. Here another
process reads and compares, and is ended when it takes too long.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from mechreward.base.errors import require

WORKER = Path(__file__).with_name("maths_worker.py")
START = 60.0  # seconds for its libraries to be read
# Of a limit, so that the process is ended before whoever asked gives up waiting (our choice).
SHARE = 0.8


class Maths:
    """Asks the process, which begins with the first question.

    Parameters
    ----------
    seconds : float
        Limit of whoever asks; the process has a little less.

    Raises
    ------
    MechRewardError
        math-verify is not installed.
    """

    def __init__(self, seconds: float) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        require(
            find_spec("math_verify") is not None,
            "verify='math' needs math-verify: pip install 'math-verify[antlr4_13_2]'.",
        )
        self.seconds = seconds
        self.asked = 0

    @property
    def limit(self) -> float:
        """Seconds that the process has for an answer."""
        return SHARE * self.seconds

    def ask(self, gold: str, text: str) -> tuple[str, str]:
        """Compare a text with the gold answer.

        Returns
        -------
        (str, str)
            "equal", "other", "none" (the text has no answer), "gold" (the gold answer cannot be
            read) or "late"; and what was read in the text.
        """
        return self._exchange({"gold": gold, "text": text})

    def read(self, text: str) -> str | None:
        """What a text answers, in one spelling: numbers as exact fractions.

        Returns
        -------
        str or None
            None where the text has no answer, or the time is up.
        """
        outcome, said = self._exchange({"gold": None, "text": text})
        return said if outcome == "read" and said else None

    def _exchange(self, asked: dict[str, Any]) -> tuple[str, str]:
        """The process's answer: an outcome, and what was read."""
        self.asked += 1
        question = {"number": self.asked, **asked}
        try:
            process = self._running()
            line = self._line(process, json.dumps(question).encode() + b"\n", self.limit)
            # An answer that came late would be taken for that to the next question.
            if line is None or json.loads(line)[0] != self.asked:
                self.close()
                return "late", ""
        except BaseException:  # also an alarm of whoever asks
            self.close()
            raise
        _, outcome, said = json.loads(line)
        return str(outcome), str(said)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Maths, (self.seconds,)

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self.process.poll() is None:
            return self.process
        self.close()
        # By its path: the package, which would be read with its name, takes seconds.
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        ready = self._line(self.process, b"", START)
        require(ready is not None, "the process that runs math-verify does not begin.")
        return self.process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], question: bytes, seconds: float) -> bytes | None:
        """The line that answers; None when the time is up or the process has ended."""
        into: IO[bytes] | None = process.stdin
        out: IO[bytes] | None = process.stdout
        assert into is not None and out is not None
        line = b""
        until = time.monotonic() + seconds
        try:
            into.write(question)
            into.flush()
            while not line.endswith(b"\n"):
                left = until - time.monotonic()
                if left <= 0 or not select.select([out], [], [], left)[0]:
                    return None
                read = os.read(out.fileno(), 1 << 16)
                if not read:
                    return None
                line += read
        except BrokenPipeError:
            return None
        return line
