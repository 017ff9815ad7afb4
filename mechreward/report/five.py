"""Five questions about the neurons of a model on a task: yes, no, or cannot tell.

Every answer is one number with its interval beside its null, by the same rules as the sentences of
`findings`. "no" is said only where the interval shuts out what would matter; where it does not, the
data cannot tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mechreward.experiments.rows import Results, Row
from mechreward.report.findings.ablation import costs_more
from mechreward.report.findings.finding import first, with_detail, with_holm
from mechreward.report.findings.td_error import UNCUT
from mechreward.report.formats import NONE
from mechreward.report.select import apart, of
from mechreward.report.words import NAMES, WORDS
from mechreward.stats import Interval

Verdict = Literal["yes", "no", "cannot tell"]
QUESTIONS = {
    "read": "Can value be read?",
    "sparse": "Is it sparse?",
    "cause": "Does it cause?",
    "td": "Is there a TD error?",
    "surface": "More than length tells?",
}
# What would matter (our choice): "no" needs an interval that ends before it.
SPEARMAN = 0.1
POINTS = 0.05  # of accuracy
AUROC = 0.02
SHARE = 0.5  # of what all neurons read beyond random ones, held by the few
NOT_ASKED = "was not measured"
SHORT = {"resid_post": "residual", "mlp": "MLP"}
LINE = "{:<24}{:<9}{:<12}{:<21}{}"  # 80 letters at most


@dataclass(frozen=True)
class Answer:
    """What one kind of neuron answers to one question.

    Attributes
    ----------
    verdict : "yes", "no" or "cannot tell"
        By the rule of the question.
    measure : str
        What the number is; "was not measured" where there is none.
    number : Interval
        NaN where there is none.
    null : tuple of (float, float)
        What is seen where nothing is there: the range of the controls, or chance twice.
    site : str
        Where it was read; "" where nothing was.
    """

    verdict: Verdict
    measure: str
    number: Interval
    null: tuple[float, float]
    site: str


def five(results: Results, kind: str) -> dict[str, Answer]:
    """The five answers of one kind of neuron.

    Parameters
    ----------
    results : Results
        Rows of one model on one task.
    kind : "resid_post" or "mlp"
        Of the neurons.

    Returns
    -------
    dict of str to Answer
        By question: `read`, `sparse`, `cause`, `td`, `surface`.

    Notes
    -----
    - `read` (R1): Spearman of the paper's net on all neurons with V-hat. Yes where its interval
      lies above 0, and above the same net on a model of random weights where that was run.
    - `sparse` (R2): what the few best have beyond the average of as many random ones, and beyond
      the best of other bases, as a share of what all have. Yes where the evidence reads "sparse",
      no where it reads "redundant" or "distributed" and the interval ends before one half.
    - `cause` (R4): change of accuracy where the set is zeroed. Yes as in the finding `ablated`, by
      any operation; no where the interval of every operation ends before a loss of 5 points.
    - `td` (R8): Spearman of the dopamine read-out with delta over all steps. Yes where its interval
      lies above 0.
    - `surface` (R1): what the read-out adds to the AUROC of step, length, difficulty and
      log-probability, at every state. Yes where its interval lies above 0, no where it ends before
      .02.

    `read` and `td` say no where the interval ends before .1. All limits are our choice.
    """
    return {
        "read": _read(results, kind),
        "sparse": _sparse(results, kind),
        "cause": _cause(results, kind),
        "td": _td_error(results, kind),
        "surface": _surface(results, kind),
    }


def table(results: Results) -> list[str]:
    """The five answers in lines of at most 80 letters, a line a question and kind of neuron;
    without what was not measured, and empty where nothing was."""
    lines = []
    answers = {kind: five(results, kind) for kind in NAMES}
    for key, question in QUESTIONS.items():
        head = question
        for kind, name in SHORT.items():
            answer = answers[kind][key]
            if answer.site:
                number, null = _bounds(answer.number), _range(answer.null)
                lines.append(LINE.format(head, name, answer.verdict, number, null).rstrip())
                head = ""
    titles = LINE.format("", "neurons", "answer", "number [95%]", "null").rstrip()
    return [titles, *lines] if lines else []


def _bounds(number: Interval) -> str:
    """Two digits, with its bounds; a dash where there is no number."""
    if math.isnan(number.estimate):
        return NONE
    if math.isnan(number.low) or math.isnan(number.high):
        return f"{number.estimate:.2f}"
    return f"{number.estimate:.2f} [{number.low:.2f}, {number.high:.2f}]"


def _range(null: tuple[float, float]) -> str:
    """From the lowest to the highest control; chance alone where both are the same."""
    low, high = null
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def _read(results: Results, kind: str) -> Answer:
    rows = of(results.where(experiment="R1", arm="value", metric="spearman"), kind)
    row = first(with_detail(rows, target="mc", shape="mlp"))
    if row is None:
        return _nothing()
    others = results.where(experiment="R1", arm="random_weights", metric="spearman", site=row.site)
    untrained = first(with_detail(others, shape="mlp"))
    null = (0.0, 0.0) if untrained is None else (min(0.0, untrained.low), untrained.high)
    is_above = row.low > 0 and (untrained is None or apart(row, untrained) > 0)
    return _answer(row, "Spearman with V-hat, all neurons", null, is_above, SPEARMAN)


def _sparse(results: Results, kind: str) -> Answer:
    row = first(of(results.where(experiment="R2", metric="sparsity"), kind))
    if row is None:
        return _nothing()
    reading = row.detail["reading"]
    verdict: Verdict = "cannot tell"
    if reading == "sparse":
        verdict = "yes"
    elif reading in ("redundant", "distributed") and row.high < SHARE:
        verdict = "no"
    return Answer(
        verdict,
        f"beyond redundancy: {WORDS[reading]}",
        row.interval,
        (0.0, 0.0),
        row.site,
    )


def _cause(results: Results, kind: str) -> Answer:
    every = results.where(experiment="R4", arm="value", metric="accuracy")
    tested = [(row, p) for row, p in with_holm(every) if row in of(every, kind)]
    if not tested:
        return _nothing()
    changes = of(results.where(experiment="R4", arm="value", metric="change"), kind)
    zeroed = with_detail(changes, op="zero")[0]
    verdict: Verdict = "cannot tell"
    if any(costs_more(row, p) for row, p in tested):
        verdict = "yes"
    elif all(row.low > -POINTS for row in changes):
        verdict = "no"
    base = results.where(experiment="R4", arm="baseline", metric="accuracy", site=zeroed.site)
    draws = []
    for row in results.where(experiment="R4", arm="matched", metric="accuracy", site=zeroed.site):
        if row.detail.get("op") == "zero" and "draw" in row.detail:
            draws.append(row.estimate - base[0].estimate)
    null = (min(draws), max(draws)) if draws else (0.0, 0.0)
    return Answer(verdict, "change of accuracy, zeroed", zeroed.interval, null, zeroed.site)


def _td_error(results: Results, kind: str) -> Answer:
    rows = of(results.where(experiment="R8", arm="dopamine", metric="spearman"), kind)
    row = first(with_detail(rows, fitted=UNCUT, tested=UNCUT))
    if row is None:
        return _nothing()
    return _answer(row, "Spearman with delta, all steps", (0.0, 0.0), row.low > 0, SPEARMAN)


def _surface(results: Results, kind: str) -> Answer:
    row = first(of(results.where(experiment="R1", metric="increment", arm="value"), kind))
    if row is None:
        return _nothing()
    return _answer(row, "AUROC added to the surface", (0.0, 0.0), row.low > 0, AUROC)


def _answer(
    row: Row, measure: str, null: tuple[float, float], is_there: bool, matters: float
) -> Answer:
    verdict: Verdict = "cannot tell"
    if is_there:
        verdict = "yes"
    elif row.high < matters:  # a missing bound shows nothing
        verdict = "no"
    return Answer(verdict, measure, row.interval, null, row.site)


def _nothing() -> Answer:
    nan = math.nan
    return Answer("cannot tell", NOT_ASKED, Interval(nan, nan, nan, 0), (nan, nan), "")
