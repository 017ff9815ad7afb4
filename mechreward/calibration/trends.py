"""Do counters pass for value? The certificate's reading claims on drawn activations, where V goes
with the step and with the prompt, and a few neurons follow one fact, or V itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from mechreward import stats
from mechreward.base import streams
from mechreward.base.errors import one_of
from mechreward.calibration.rows import calibration_row
from mechreward.causal.claims import decodable, sparse
from mechreward.experiments.rows import Row
from mechreward.probing.evidence import evidence
from mechreward.probing.targets import Examples

# What three neurons follow, beside noise of their own. `difficulty` goes with the length of the
# prompt, as V does; `hard` is a difficulty that V itself falls with.
FOLLOWED = ("value", "step", "length", "tokens left", "difficulty", "hard")
WIDTHS = (64, 576, 1536)
CARRIERS = (0, 1, 2)
TRAIN, TEST, K = 80, 40, 8
DRAWS = {64: 99, 576: 19, 1536: 19}  # a random basis of many neurons takes long


def trends(followed: str, width: int, seeds: Sequence[int]) -> list[Row]:
    """How often `decodable` and `sparse` pass for neurons that follow one thing.

    Parameters
    ----------
    followed : str
        One of `FOLLOWED`.
    width : int
        Neurons.
    seeds : sequence of int

    Returns
    -------
    list of Row
        Two, of metric `trend_pass_rate`; `detail` counts the verdicts.
    """
    one_of("thing to follow", followed, FOLLOWED)
    counts: dict[str, Counter[str]] = {"decodable": Counter(), "sparse": Counter()}
    for seed in seeds:
        train, _ = drawn(followed, width, TRAIN, seed, "train")
        test, further = drawn(followed, width, TEST, seed, "test")
        case = evidence(
            train, test, np.array(CARRIERS), draws=DRAWS[width], further=further, seed=seed
        )
        for claim in (decodable(case), sparse(case)):
            counts[claim.claim][claim.verdict] += 1
    rows = []
    for name, verdicts in counts.items():
        rate = stats.proportion(verdicts["pass"], len(seeds))
        detail = {"n": "seeds", "neurons": width, "verdicts": dict(verdicts)}
        row = calibration_row(f"drawn: {followed}", name, "trend_pass_rate", rate, detail)
        rows.append(row)
    return rows


def drawn(
    followed: str, width: int, problems: int, seed: int, split: str
) -> tuple[Examples, dict[str, np.ndarray]]:
    """States of one answer a problem, and the facts beyond which a set is tried.

    V is the problem's, .08 more with every step, .01 more with every token of the prompt, and
    noise; answers have 3 to 9 steps of 4 to 8 tokens, whatever V is.

    Returns
    -------
    (Examples, dict of str to array [row])
    """
    rng = streams.rng("trends", followed, width, seed, split)
    steps = rng.integers(3, 10, problems)
    group = np.repeat(np.arange(problems), steps)
    step = np.concatenate([np.arange(n) for n in steps])
    tokens = rng.integers(4, 9, len(step)) * (step > 0)
    said = _running(tokens, step)
    prompt = rng.integers(10, 40, problems)[group]
    difficulty = prompt / 10 + rng.normal(0, 0.5, problems)[group]
    hard = rng.normal(0, 1, problems)[group]
    v = 0.3 + rng.normal(0, 0.15, problems)[group] + 0.08 * step + 0.01 * (prompt - 25)
    v += rng.normal(0, 0.1, len(step)) - 0.1 * hard * (followed == "hard")
    v = v.clip(0, 1)
    last = np.append(np.diff(group) > 0, True)
    left = (said[last] + 6)[group] - said
    signal = {
        "value": 5 * v,
        "step": 2.0 * step,
        "length": (prompt + said) / 3,
        "tokens left": left / 3,
        "difficulty": 2 * difficulty,
        "hard": 2 * hard,
    }[followed]
    x = rng.normal(size=(len(step), width))
    x[:, CARRIERS] += signal[:, None]
    facts = np.stack([step, prompt + said, prompt], 1).astype(float)
    reward = (rng.random(problems) < v[last]).astype(int)[group]
    data = Examples(
        torch.from_numpy(x).float(),
        rng.binomial(K, v) / K,
        reward,
        group,
        group,
        step,
        last,
        facts,
    )
    known = hard if followed == "hard" else difficulty
    return data, {"difficulty": known, "length to come": left.astype(float)}


def _running(tokens: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Tokens of an answer so far, at every state."""
    total = tokens.cumsum()
    begins = np.flatnonzero(step == 0)
    return total - np.repeat(total[begins], np.diff(np.append(begins, len(step))))
