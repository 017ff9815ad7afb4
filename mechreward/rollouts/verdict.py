"""What a verdict comes to, given how the answer ended: silence is no answer."""

from __future__ import annotations

from mechreward.tasks import Verdict
from mechreward.tasks.base import SILENT, UNFINISHED


def as_said(verdict: Verdict, text: str, ended: bool) -> Verdict:
    """The verdict on a whole answer.

    An answer that says nothing is unverifiable, whatever its task makes of it; so is one that ends
    by itself where the task finds no answer in it yet (`tasks.base.UNFINISHED`).

    Parameters
    ----------
    verdict : Verdict
        Of the task's verifier.
    text : str
        The answer without the prompt.
    ended : bool
        Whether it ended by itself, within the token limit.

    Returns
    -------
    Verdict
        The same, or an unverifiable one with its reason.
    """
    if not text.strip():
        return SILENT
    if ended and verdict == UNFINISHED:
        return Verdict("unverifiable", "ended without an answer")
    return verdict
