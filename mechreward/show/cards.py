"""The certificate as a card: a row a claim, each a bullet chart with its verdict and its reason."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mechreward.base.errors import of_kind
from mechreward.base.plain import visible
from mechreward.causal.certificate import DECIDES, Certificate
from mechreward.causal.claims import READ
from mechreward.causal.verdict import MOVE, SHARE, Claim
from mechreward.show.picture import Panel, Picture
from mechreward.show.style import BLACK, BLUE, GREY, VERMILLION, decimals, head

SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "not run": "–"}
COLOURS = {"pass": BLUE, "fail": VERMILLION, "inconclusive": GREY, "not run": GREY}
# Of each claim: what its number is, the bound that settles it, and what that bound is called.
NUMBERS = {
    "decodable": ("partial Spearman with V-hat", READ, "worth having"),
    "sparse": ("share of the gap that the set closes", SHARE, "settles it"),
    "causal": ("accuracy steered up minus down", MOVE, "worth having"),
    "specific": ("the same, of answers that are not broken", 0.0, "nothing"),
    "sufficient": ("V-hat brought, of what all neurons bring", SHARE, "settles it"),
    "stable": ("IoU with the set when it is found again", SHARE, "settles it"),
}
LETTERS = 14.5  # of a line of 9 points, an inch


@dataclass(frozen=True)
class Bullet:
    """A panel of one number: its interval, the bound that settles it, what controls reach.

    Parameters
    ----------
    title
        What stands above it.
    label
        What the number is.
    numbers
        Estimate, low and high; nan where it does not exist.
    bound
        Where a thick tick stands, and what it is called.
    controls
        Numbers of controls: a pale bar from the lowest (or 0, of a single one) to the highest.
    text
        What stands below.
    verdict
        One of `SIGNS`, whose colour the interval has.
    """

    title: str
    label: str
    numbers: tuple[float, float, float]
    bound: tuple[float, str]
    controls: Sequence[float]
    text: str
    verdict: str
    wide: bool = True

    def height(self, width: float) -> float:
        """Inches: the bar, and the lines of the text."""
        return 1.15 + 0.165 * len(self._lines(width))

    def draw(self, axes: Axes, width: float) -> None:
        """Controls behind, then the bound, then the interval and its estimate."""
        colour = COLOURS[self.verdict]
        sign = f"{SIGNS[self.verdict]} {self.verdict}"
        head(axes, self.title)
        axes.set_title(sign, loc="right", size=10.5, weight="bold", color=colour, pad=6)
        estimate, low, high = self.numbers
        # What is not known is an empty bar.
        axes.axhspan(-0.5, 0.5, color="#f3f3f3", linewidth=0)
        if self.controls:
            ends = self._reach()
            axes.barh(0, ends[1] - ends[0], 0.8, ends[0], color="#cfcfcf", linewidth=0)
        axes.vlines(self.bound[0], -0.72, 0.72, color=BLACK, linewidth=2.4)
        axes.hlines(0, low, high, color=colour, linewidth=5)
        axes.plot(estimate, 0, marker="o", markersize=9, color=colour, markeredgecolor="white")
        axes.set_ylim(-0.8, 0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(self._ends())
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        words = f"{self.label}: {decimals(estimate)}"
        if math.isfinite(low):
            words += f" [{decimals(low)}, {decimals(high)}]"
        lines = [words, *self._lines(width)[1:]]
        axes.set_xlabel("\n".join(lines), loc="left", size=9, linespacing=1.3)

    def marks(self) -> list[dict[str, Any]]:
        """The number, the bound, and the controls."""
        estimate, low, high = self.numbers
        dot = {"mark": "dot", "label": self.label, "x": estimate, "low": low, "high": high}
        marks = [dot | {"text": self.verdict}]
        marks.append({"mark": "bound", "label": self.bound[1], "x": self.bound[0]})
        for control in self.controls:
            marks.append({"mark": "control", "label": self.label, "x": control})
        return marks

    def _lines(self, width: float) -> list[str]:
        return [self.label, *textwrap.wrap(self.text, int(LETTERS * (width - 0.5)))]

    def _reach(self) -> tuple[float, float]:
        least = min(self.controls) if len(self.controls) > 1 else min(0.0, *self.controls)
        return least, max(0.0, *self.controls)

    def _ends(self) -> tuple[float, float]:
        numbers = [0.0, self.bound[0], *self.controls]
        numbers += [number for number in self.numbers if math.isfinite(number)]
        room = 0.05 * (max(numbers) - min(numbers)) or 0.1
        return min(numbers) - room, max(numbers) + room


def certificate(certificate: Certificate) -> Picture:
    """A card: each claim with its verdict, the number that decides it as a bullet chart, and why.

    Parameters
    ----------
    certificate : Certificate
        What `mechreward.certify` gives.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No certificate.
    """
    of_kind("certificate", certificate, Certificate, "what mr.certify(...) gives")
    panels: list[Panel] = []
    told = []
    for claim in certificate.claims:
        label, bound, called = NUMBERS[claim.claim]
        bullet = Bullet(
            claim.claim.capitalize(),
            label,
            _numbers(claim),
            (bound, called),
            _controls(claim.claim, claim.numbers),
            visible(claim.reason),
            claim.verdict,
        )
        panels.append(bullet)
        told.append(f"{claim.claim}: {claim.verdict}")
    neurons = certificate.neurons
    sizes = ", ".join(f"{key} {value}" for key, value in certificate.sizes.items())
    caption = (
        f"What may be said of {len(neurons)} neurons of {neurons.site} ({neurons.how or 'given'}), "
        f"with {sizes or 'unknown sizes'}. Dot and bar: the number that decides, and its 95% "
        "interval; thick tick: the bound that settles it; grey bar: what matched sets reach. The "
        "sentence below says why. An empty bar: the number does not exist."
    )
    title = f"Certificate: {neurons.model_id.name} on {certificate.task}, {neurons.site}"
    return Picture(title, panels, caption, f"Certificate. {'; '.join(told)}.")


def _numbers(claim: Claim) -> tuple[float, float, float]:
    """Of the number that decides a claim."""
    name = DECIDES[claim.claim][0]
    numbers = [_number(claim.numbers.get(f"{name}{end}")) for end in ("", "_low", "_high")]
    return numbers[0], numbers[1], numbers[2]


def _controls(claim: str, numbers: Mapping[str, Any]) -> list[float]:
    """What matched sets reach, where a claim has it on the scale of its number."""
    if claim == "causal":
        largest = numbers.get("largest_matched", {}).get("reward")
        return [_number(largest)] if math.isfinite(_number(largest)) else []
    if claim == "stable":
        chance = _number(numbers.get("chance"))
        return [chance] if math.isfinite(chance) else []
    whole = _number(numbers.get("whole"))
    if claim == "sufficient" and whole > 0:
        return [float(number) / whole for number in numbers.get("matched", [])]
    return []


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


__all__ = ["certificate"]
