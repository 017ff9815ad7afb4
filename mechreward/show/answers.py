"""Pictures of single answers: the text, what each state is worth, and what is read there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward.base.errors import MechRewardError, of_kind, require, shown, whole
from mechreward.base.plain import visible
from mechreward.base.streams import rng
from mechreward.models.text import joined_pieces
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.show.picture import Panel, Picture
from mechreward.show.style import decimals
from mechreward.show.written import BADGE, Said, Steps, Text

NOISE = 1.96  # standard errors within which a delta is grey
MARGIN = 12 + BADGE  # letters for "0.62 ± 0.05" and the badge
ANSWERS = 4  # that are drawn blind
SHOWN = ("value", "dopamine", "mean_difference", "magnitude")  # colours of read-outs


def strip(runs: Rollouts, vals: Values, index: int, read: Any = (), *, model: Any) -> Picture:
    """One answer in lines: tokens tinted by V-hat of the state that their step leads to, V-hat with
    its error and delta at the left, and read-outs as small steps below.

    Parameters
    ----------
    runs : Rollouts
        Answers.
    vals : Values
        Their V-hat.
    index : int
        Which answer, from 0.
    read : mapping or sequence, default none
        What is read at every state: sets of neurons (their mean activation), or columns `[row]` of
        the states of `vals`; by name in a mapping.
    model : TransformerBridge or HookedTransformer
        Whose tokenizer writes the text.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No such answer, values of other rollouts, or a read-out that is neither.
    """
    check_values(runs, vals)
    index = whole("index", index, 0)
    require(index < len(runs), f"index: answers 0 to {len(runs) - 1} are there; got {index}.")
    return _picture(runs, vals, [index], read, model, "named by hand")


def strips(
    runs: Rollouts,
    vals: Values,
    count: int = ANSWERS,
    read: Any = (),
    *,
    model: Any,
    seed: int = 0,
) -> Picture:
    """Some answers as `strip` has them, drawn blind, one a problem.

    Parameters
    ----------
    runs : Rollouts
        Answers.
    vals : Values
        Their V-hat.
    count : int, default 4
        Answers; as many as there are problems, if these are fewer.
    read : mapping or sequence, default none
        As for `strip`.
    model : TransformerBridge or HookedTransformer
        Whose tokenizer writes the text.
    seed : int, default 0
        Of the draw.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        As `strip`, or a count below 1.
    """
    check_values(runs, vals)
    count = whole("count", count, 1)
    first = _one_a_problem(runs, seed)[:count]
    how = f"drawn blind among {len(runs)}, one a problem, by seed {seed}"
    return _picture(runs, vals, first, read, model, how)


def _one_a_problem(runs: Rollouts, seed: int) -> list[int]:
    """Answers in an order that chance decides, the first of each problem."""
    order = rng("answers that are shown", seed).permutation(len(runs))
    seen, kept = set(), []
    for number in order.tolist():
        if runs.groups[number] not in seen:
            seen.add(runs.groups[number])
            kept.append(number)
    return kept


def check_values(runs: Rollouts, vals: Values) -> None:
    """Raise MechRewardError for values of other rollouts."""
    of_kind("runs", runs, Rollouts, "what mr.sample(...) gives")
    of_kind("vals", vals, Values, "what mr.estimate(...) gives")
    states = np.bincount(vals.trajectory, minlength=len(runs)).tolist()
    require(
        states == [run.steps + 1 for run in runs],
        "vals are of other rollouts: give mr.estimate(model, runs).",
    )


def _picture(
    runs: Rollouts, vals: Values, answers: Sequence[int], read: Any, model: Any, how: str
) -> Picture:
    columns = _columns(runs, vals, answers, read, model)
    panels: list[Panel] = []
    told = []
    for answer in answers:
        run = runs[answer]
        rows = np.flatnonzero(vals.trajectory == answer)
        outcome = run.verdict.outcome
        name = f"{run.problem_id}: {outcome}"
        panels.append(Text(name, _parts(runs, vals, answer, model), MARGIN))
        value, error = vals.mean[rows], vals.error[rows]
        states = vals.step[rows]
        low, high = np.maximum(value - error, 0), np.minimum(value + error, 1)
        panels.append(Steps("V-hat", states, value, low, high, "value", (-0.05, 1.05)))
        nothing = np.full(len(rows), np.nan)
        for number, (label, column) in enumerate(columns.items()):
            look = SHOWN[(number + 1) % len(SHOWN)]
            panels.append(Steps(label, states, column[rows], nothing, nothing, look))
        told.append(f"{run.problem_id} is {outcome}, V-hat {value[0]:.2f} before the answer")
    caption = (
        f"Answers {how}. Tokens are tinted by V-hat of the state that their step leads to, "
        "vermillion at 0, white at .5, blue at 1; of the prompt only its last token, s_0. At the "
        f"left V-hat ± its standard error, and delta of the step, grey within {NOISE} standard "
        "errors of 0. Below, V-hat of every state, bars one standard error, and what each read-out "
        "reads there."
    )
    title = f"Answers of {runs.model_id.name}, state by state"
    return Picture(title, panels, caption, f"{'; '.join(told)}.")


def _parts(runs: Rollouts, vals: Values, answer: int, model: Any) -> list[Said]:
    """The prompt, then step by step."""
    run = runs[answer]
    pieces = joined_pieces(model, run.tokens)
    rows = np.flatnonzero(vals.trajectory == answer)
    value, error, delta = vals.mean[rows], vals.error[rows], vals.delta[rows]
    parts = []
    for step in range(run.steps + 1):
        span = slice(0, run.prompt_len) if step == 0 else run.span(step)
        here = pieces[span]
        numbers = [float(value[step])] * len(here)
        badge, certain = "", False
        if step == 0:
            numbers[:-1] = [math.nan] * (len(here) - 1)
        else:
            noise = NOISE * math.hypot(error[step], error[step - 1])
            certain = abs(delta[step]) > noise
            badge = signed(delta[step])
        label = f"{decimals(value[step])} ± {decimals(error[step])}"
        shades = [2 * number - 1 for number in numbers]
        parts.append(Said(label, badge, bool(certain), here, numbers, shades))
    rest = pieces[run.step_ends[-1] + 1 :]
    if rest:
        nothing = [math.nan] * len(rest)
        parts.append(Said("", "", False, rest, nothing, nothing))
    return parts


def _columns(
    runs: Rollouts, vals: Values, answers: Sequence[int], read: Any, model: Any
) -> dict[str, np.ndarray]:
    """Read-outs by name, each a number a row of `vals`."""
    if isinstance(read, Mapping):
        named = dict(read)
    else:
        listed = isinstance(read, Sequence) and not isinstance(read, str)
        require(listed, f"read: sets of neurons or columns are needed; {shown(read)} was given.")
        named = {_named(each, number): each for number, each in enumerate(read)}
    columns = {}
    for name, each in named.items():
        if isinstance(each, NeuronSet):
            columns[name] = _recorded(runs, vals, answers, each, model)
            continue
        column = np.asarray(each, dtype=float) if hasattr(each, "__len__") else None
        if column is None or column.shape != vals.trajectory.shape:
            raise MechRewardError(
                f"read, {visible(str(name))}: a set of neurons or a column of "
                f"{len(vals.trajectory)} numbers is needed; {shown(each)} was given."
            )
        columns[str(name)] = column
    return columns


def _named(each: Any, number: int) -> str:
    if isinstance(each, NeuronSet):
        return f"{len(each)} neurons of {each.site}"
    return f"read-out {number + 1}"


def _recorded(
    runs: Rollouts, vals: Values, answers: Sequence[int], neurons: NeuronSet, model: Any
) -> np.ndarray:
    """Mean activation of a set at the states of some answers; nan at all others."""
    site = str(neurons.site)
    acts = record(model, runs.subset(answers), site, progress=False)[site]
    read = acts.x[:, list(neurons.indices)].mean(1).numpy().astype(float)
    column = np.full(len(vals.trajectory), np.nan)
    for place, answer in enumerate(answers):
        column[vals.trajectory == answer] = read[acts.trajectory == place]
    return column


def signed(number: float) -> str:
    """Two decimals with their sign, none for 0; "–" where there is no number."""
    if not math.isfinite(number):
        return "–"
    text = f"{number:+.2f}".replace("-", "−")
    return text[1:] if text[1:] == "0.00" else text


__all__ = ["check_values", "signed", "strip", "strips"]
