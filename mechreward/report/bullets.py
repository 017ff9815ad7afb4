"""Five answers as the top of a page: a verdict, a number, its null, and all three in a stroke."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mechreward.experiments.rows import Results
from mechreward.report.five import QUESTIONS, Answer, five
from mechreward.report.formats import interval, two
from mechreward.report.words import NAMES

WIDTH, HEIGHT = 200, 18  # pixels of a stroke
EDGE = 6


@dataclass(frozen=True)
class Told:
    """One answer as it is laid out.

    Attributes
    ----------
    neurons, verdict : str
        Of which kind; yes, no or cannot tell.
    number, null : str
        As text.
    measure : str
        What the number is, and where it was read.
    stroke : Markup
        A drawing: the interval with its estimate over the range of the null.
    """

    neurons: str
    verdict: str
    number: str
    null: str
    measure: str
    stroke: Markup


@dataclass(frozen=True)
class Asked:
    """A question, and the answers of every kind of neuron."""

    question: str
    answers: Sequence[Told]


def asked(results: Results) -> list[Asked]:
    """The five questions of one model on one task; empty where none was measured."""
    answers = {kind: five(results, kind) for kind in NAMES}
    questions = []
    for key, question in QUESTIONS.items():
        each = {kind: answers[kind][key] for kind in NAMES}
        if not any(answer.site for answer in each.values()):
            continue
        low, high = _span(list(each.values()))
        told = [_told(NAMES[kind], answer, low, high) for kind, answer in each.items()]
        questions.append(Asked(question, told))
    return questions


def _told(neurons: str, answer: Answer, low: float, high: float) -> Told:
    where = f", {answer.site}" if answer.site else ""
    if math.isnan(answer.number.estimate):
        return Told(neurons, answer.verdict, "", "", answer.measure + where, Markup(""))
    return Told(
        neurons=neurons,
        verdict=answer.verdict,
        number=interval(answer.number, two),
        null=" to ".join(dict.fromkeys(map(two, answer.null))),
        measure=answer.measure + where,
        stroke=_stroke(answer, low, high),
    )


def _span(answers: Sequence[Answer]) -> tuple[float, float]:
    """One axis for all kinds of neuron, with 0 on it."""
    ends = [0.0]
    for answer in answers:
        number = answer.number
        ends += [number.estimate, number.low, number.high, *answer.null]
    finite = [end for end in ends if math.isfinite(end)]
    return min(finite), max(*finite, min(finite) + 1e-9)


def _stroke(answer: Answer, low: float, high: float) -> Markup:
    def at(number: float) -> float:
        return round(EDGE + (WIDTH - 2 * EDGE) * (number - low) / (high - low), 1)

    number, (first, last) = answer.number, answer.null
    middle = HEIGHT / 2
    parts = [
        f'<rect class="null" x="{at(first) - 1:.1f}" y="2" '
        f'width="{at(last) - at(first) + 2:.1f}" height="{HEIGHT - 4}"/>',
        f'<line class="zero" x1="{at(0.0)}" x2="{at(0.0)}" y1="0" y2="{HEIGHT}"/>',
    ]
    if math.isfinite(number.low) and math.isfinite(number.high):
        parts.append(
            f'<line class="bounds" x1="{at(number.low)}" x2="{at(number.high)}" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    parts.append(f'<circle class="dot" cx="{at(number.estimate)}" cy="{middle}" r="4"/>')
    label = f"{two(number.estimate)}, null {two(first)} to {two(last)}"
    return Markup(
        f'<svg class="stroke" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )
