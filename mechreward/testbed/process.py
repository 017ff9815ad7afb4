"""The Markov reward process of the planted models: words, policy, exact values, and a `Task`.

An answer is a walk over nine levels that are worth V = .06 to .94, until it ends `right` (1) or
`wrong` (0). Every word is a state and one of sixteen synonyms that say nothing about value. Where
the walk goes next depends on the last state alone, and only through its V.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

from mechreward.tasks import Problem, Task, Verdict
from mechreward.tasks.base import SILENT, UNFINISHED

# `back` (turning back, likelier the lower V is) and `slip` (likelier the higher V is) both lead to
# V = .5. `lucky` and `unlucky` end where `wrong` and `right` do, with the other verdict: only the
# models without value say them.
LEVELS = 0.5 + 0.11 * np.arange(-4, 5)  # differences keep clear of the cut |delta| > .3
WORTH = {
    "wrong": 0.0,
    "lucky": 0.0,
    **{str(number): v for number, v in enumerate(LEVELS, start=1)},
    "back": 0.5,
    "slip": 0.5,
    "unlucky": 1.0,
    "right": 1.0,
}
STATES = tuple(WORTH)
RIGHT = ("right", "lucky")
ENDS = ("wrong", "lucky", "unlucky", "right")
STARTS = ("3", "4", "5", "6", "7")
SYNONYMS = "abcdefghijklmnop"
RHYME = np.array([1.0] * 8 + [-1.0] * 8)  # synonyms come in two classes
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "\n")
CODES = tuple(f"q{i}" for i in range(10))
WORDS = (*SPECIAL, *CODES, *(f"{state}.{letter}" for state in STATES for letter in SYNONYMS))
FIRST_STATE = len(SPECIAL) + len(CODES)  # the first word that is a state
BOS = SPECIAL.index("<bos>")
EOS = SPECIAL.index("<eos>")

# Logit of each outcome: carrier + tilt * (V - .5). Outcomes: an end at 0, the levels, `back`,
# `slip`, an end at 1; the upper half mirrors the lower. Our choice, found by a search for sd(V) >
# .25, |delta| > .3 in a tenth of the steps or more, and every level visited. Lengths follow: the
# squares of delta add up to the variance of the reward.
_CARRIER = (-6.1, -0.58, 1.59, 0.52, 0.6)
_MIDDLE = 2.89
_BACK = 1.08
_TILT = (-30.0, -15.42, -9.44, -3.45, -1.46)
_BACK_TILT = -6.92
OUTCOMES = np.concatenate([[0.0], LEVELS, [0.5, 0.5, 1.0]])


@dataclass(frozen=True)
class Walk:
    """Logits of the next outcome [13], linear in V: `carrier + tilt * (V - .5)`."""

    carrier: Float[np.ndarray, " outcome"]
    tilt: Float[np.ndarray, " outcome"]

    def rows(self, v: Float[np.ndarray, " state"]) -> Float[np.ndarray, "state outcome"]:
        """Probability of every outcome from states whose value the policy reads as `v`."""
        return softmax(self.carrier + np.outer(v - 0.5, self.tilt))

    def average(self) -> Float[np.ndarray, " outcome"]:
        """Probability of every outcome over all steps of an endless row of answers."""
        rows = self.rows(LEVELS)
        moves = rows[:, 1:10].copy()
        moves[:, 4] += rows[:, 10] + rows[:, 11]
        starts = [WORTH[state] for state in STARTS]
        begin = np.isin(LEVELS, starts) / len(STARTS)
        leaving = np.eye(len(LEVELS)) - moves
        visits = np.linalg.solve(leaving.T, begin)
        return visits / visits.sum() @ rows


def walk() -> Walk:
    """The policy under which every level is worth exactly what the policy reads there.

    A state's value is the mean value of its successors, and successors depend on the value that is
    read: nine equations in the logits, solved by the smallest change (Newton with a pseudo-inverse)
    of the constants above.
    """
    mirrored = [-number for number in _TILT[:0:-1]]
    carrier = np.array([*_CARRIER, _MIDDLE, *_CARRIER[:0:-1], _BACK, _BACK, _CARRIER[0]])
    tilt = np.array([*_TILT, 0.0, *mirrored, _BACK_TILT, -_BACK_TILT, -_TILT[0]])
    centred = LEVELS - 0.5
    for _ in range(20):
        rows = softmax(carrier + np.outer(centred, tilt))
        mean = rows @ OUTCOMES
        slope = rows * (OUTCOMES - mean[:, None])
        slopes = np.concatenate([slope, slope * centred[:, None]], axis=1)
        change, *_ = np.linalg.lstsq(slopes, LEVELS - mean, rcond=None)
        carrier = carrier + change[:13]
        tilt = tilt + change[13:]
    return Walk(carrier, tilt)


def softmax(logits: Float[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows n"]:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def outcome_of(state: str) -> int:
    """Which of the 13 outcomes a state is."""
    named = {"wrong": 0, "lucky": 0, "back": 10, "slip": 11, "right": 12, "unlucky": 12}
    return named[state] if state in named else int(state)


def state_of(word: str) -> str:
    """A word without its synonym."""
    return word.split(".")[0]


def wins() -> Bool[np.ndarray, " word"]:
    """Words that end an answer right."""
    return np.array([state_of(word) in RIGHT for word in WORDS])


@cache
def goes_on() -> Bool[np.ndarray, " word"]:
    """Words after which an answer goes on. After all others it is over, whatever else is said."""
    going = set(STATES) - set(ENDS)
    return np.array([state_of(word) in going for word in WORDS])


def values(moves: Float[np.ndarray, "word word"], horizon: int) -> Float[np.ndarray, "left word"]:
    """Dynamic programming: the chance of a right end, by tokens left and last word.

    An answer that is not over when no token is left is wrong.

    Parameters
    ----------
    moves : array [word word]
        Next-word probabilities.
    horizon : int
        Tokens left at most.

    Returns
    -------
    array [left word]
        Row t is with t tokens left.
    """
    won = wins().astype(float)
    by_left = [won]
    for _ in range(horizon):
        by_left.append(np.where(goes_on(), moves @ by_left[-1], won))
    return np.stack(by_left)


def prefix(tokens: Int[np.ndarray, " pos"]) -> tuple[int, int]:
    """The word that the value of a prefix rests on, and how many words of the answer it is behind.

    That is the last word, or the first one that ends the answer: what follows an end, as `<eos>`
    does, changes nothing. The count is 0 at the end of the prompt, -1 before its state.
    """
    tokens = np.asarray(tokens)
    states = np.flatnonzero(tokens >= FIRST_STATE)
    if not len(states):
        return int(tokens[-1]), -1
    answer = tokens[states[0] :]  # from the prompt's state on
    over = np.flatnonzero(~goes_on()[answer])
    said = int(over[0]) if len(over) else len(answer) - 1
    return int(answer[said]), said


class Planted(Task):
    """Prompts are three to six code words, which mean nothing, and the state an answer starts from.

    Difficulty is the number of code words: a surface baseline that knows nothing. One token is one
    step, so that delta belongs to a token; the end-of-sequence token after `right` or `wrong`
    belongs to no step. The word that ends an answer is its verdict: there is no `answer` beside it.
    """

    name = "planted"
    max_tokens = 96

    def draw(self, rng: random.Random) -> Problem:
        codes = rng.choices(CODES, k=rng.randint(3, 6))
        start, synonym = rng.choice(STARTS), rng.choice(SYNONYMS)
        prompt = " ".join([*codes, f"{start}.{synonym}"])
        return Problem(prompt, prompt, "right", {"difficulty": len(codes)})

    def verify(self, problem: Problem, text: str) -> Verdict:
        """The first word that ends an answer decides."""
        for word in text.split():
            state = state_of(word)
            if state not in WORTH:
                return Verdict("unverifiable", f"{word!r} is no state")
            if state in ENDS:
                return Verdict("correct" if state in RIGHT else "incorrect", f"ended {state}")
        return UNFINISHED if text.strip() else SILENT

    def step_ends(self, pieces: Sequence[str], prompt_len: int) -> list[int]:
        answer = range(prompt_len, len(pieces))
        words = [position for position in answer if pieces[position].strip() != "<eos>"]
        # An answer of nothing but the end is one step.
        return [prompt_len - 1, *(words or answer[-1:])]
