"""Pictures of `Confidence`: is it calibrated, and is what it leaves out what is wrong?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward.base.errors import of_kind, require, whole
from mechreward.show.curve import Curve, Line
from mechreward.show.forest import Estimate, Forest
from mechreward.show.histogram import Outlines
from mechreward.show.picture import Panel, Picture
from mechreward.show.style import Reference
from mechreward.uses.confidence import Confidence
from mechreward.uses.confidence.groups import Arm, Group
from mechreward.uses.confidence.read_outs import PROBE, VALUE

BINS = 10  # of the score; fewer than the 15 of ECE, whose bounds would hide each other (our choice)
MOST_BINS = 100
MOST_POINTS = 200  # of a curve of risk: more are not seen
LOOKS = ("value", "baseline", "mean_difference")  # of the value arm, the baseline, the whole site


def calibration(conf: Confidence, stage: str | None = None, *, bins: int = BINS) -> Picture:
    """Does a score of .8 mean right eight times in ten? Three panels a stage.

    - How often answers are right against the score, in bins, with 95% bounds clustered by problem.
    - How many answers have that score.
    - ECE with its bounds, beside the ECE that a perfect predictor shows at this n.

    The value arm stands beside the surface baseline that the calibration split chose and the probe
    of the whole site.

    Parameters
    ----------
    conf : Confidence
        Of answers that were verified.
    stage : str or None, default None
        "prompt", "partial", "answer" or "k answers"; None for all that are defined.
    bins : int, default 10
        Of the score.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No confidence, no such stage, or no answer was verified.
    """
    of_kind("conf", conf, Confidence)
    bins = whole("bins", bins, 1, "of the score")
    require(bins <= MOST_BINS, f"bins={bins} are more than can be seen; {MOST_BINS} at most.")
    panels: list[Panel] = []
    told = []
    edges = np.linspace(0, 1, bins + 1)
    for name in _stages(conf, stage):
        group = conf.group(name)
        arms = _arms(group)
        numbers = conf.measured(name)
        lines, scores, errors = [], {}, []
        for arm, label, look in arms:
            table = conf.reliability(arm.name, name, bins)
            columns = [table[key].to_numpy(float) for key in ("confidence", "right", "low", "high")]
            lines.append(Line(label, *columns, arm=look))
            scores[label] = (look, arm.calibrated)
            ece, perfect = numbers[arm.name]["ece"], numbers[arm.name]["perfect_ece"].estimate
            errors.append(Estimate(label, ece, look, mark=perfect))
        told.append(f"{name}: ECE {errors[0].score.estimate:.3f} ({errors[0].mark:.3f} if perfect)")
        reliability = Curve(
            f"{name}: how often right",
            lines,
            "probability of a right answer",
            "share of right answers",
            span=(-0.03, 1.03),
            between=(-0.03, 1.03),
            bars=True,
            diagonal="perfect",
        )
        panels.append(reliability)
        unit = "states" if name == "partial" else "answers"
        if name == "k answers":
            unit = "problems"
        xlabel = "probability of a right answer"
        panels.append(Outlines(f"{name}: scores", scores, edges, xlabel, unit))
        title = f"{name}: expected calibration error"
        panels.append(Forest(title, {"": errors}, "ECE, 15 bins", tick="a perfect predictor"))
    caption = (
        "How well the probability of a right answer is calibrated, on rollouts that nothing was "
        f"fitted to. Points: mean probability and share of right answers in {bins} bins; bars: 95% "
        "bounds, clustered by problem. Dashed: perfect calibration. In the middle, how many have "
        "each score. At the right, the expected calibration error over 15 bins with the same "
        "bounds; the upright tick is what a perfect predictor shows with so many answers. Best "
        "baseline: the score without activations that the calibration split chose. Whole site: "
        "the probe of all neurons."
    )
    alt = f"Reliability of the value arm. {'; '.join(told)}."
    return Picture(f"Calibration of {_task(conf)}", panels, caption, alt)


def risk(conf: Confidence, stage: str | None = None) -> Picture:
    """Share of wrong answers among the surest, beside an oracle and a random order.

    A panel a stage, and one of the area under each curve with its interval.

    Parameters
    ----------
    conf : Confidence
        Of answers that were verified.
    stage : str or None, default None
        "prompt", "partial", "answer" or "k answers"; None for all that are defined.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No confidence, no such stage, or no answer was verified.
    """
    of_kind("conf", conf, Confidence)
    panels: list[Panel] = []
    told = []
    areas: dict[str, list[Estimate]] = {}
    for name in _stages(conf, stage):
        numbers = conf.measured(name)
        lines = []
        areas[name] = []
        wrong = 1.0
        for arm, label, look in _arms(conf.group(name)):
            table = conf.risk_coverage(arm.name, name)
            kept = np.unique(np.linspace(0, len(table) - 1, MOST_POINTS).round().astype(int))
            table = table.iloc[kept]
            lines.append(_smooth(label, table["coverage"], table["risk"], look))
            if len(lines) == 1:
                oracle = _smooth("oracle", table["coverage"], table["oracle"], "rotated")
                wrong = float(table["random"].iloc[0])
            area = numbers[arm.name]["aurc"]
            least = area.estimate - numbers[arm.name]["excess_aurc"].estimate
            areas[name].append(Estimate(label, area, look, mark=least))
        curve = Curve(
            name,
            [*lines, oracle],
            "share of answers that are kept, the surest first",
            "share of them that are wrong",
            references=[Reference(wrong, "random order")],
            between=(0.0, 1.0),
        )
        panels.append(curve)
        first = areas[name][0]
        told.append(
            f"{name}: area {first.score.estimate:.3f} (oracle {first.mark:.3f}, random {wrong:.3f})"
        )
    panels.append(Forest("Area under each curve", areas, "AURC", tick="oracle", wide=True))
    caption = (
        "Risk and coverage: answers are sorted from the surest, and of each share that is kept the "
        "share of wrong ones is drawn. Dashed and dotted: an oracle that knows the rewards, and a "
        "random order. In the last panel the area under each curve with its 95% interval, "
        "clustered by problem; lower is better."
    )
    alt = f"Risk against coverage of the value arm. {'; '.join(told)}."
    return Picture(f"Selective answering, {_task(conf)}", panels, caption, alt)


def _smooth(label: str, x: object, y: object, look: str) -> Line:
    """A line of so many points that none is marked; nothing is known of its bounds."""
    place, heights = np.asarray(x, float), np.asarray(y, float)
    nothing = np.full(len(place), np.nan)
    return Line(label, place, heights, nothing, nothing, look, dense=True)


def _stages(conf: Confidence, stage: str | None) -> list[str]:
    """Those that are drawn, each of which exists."""
    require(
        conf.verified,
        "no answer was verified: whether confidence is right cannot be drawn. Give rollouts of a "
        "task with a verifier.",
    )
    if stage is None:
        return list(conf.groups)
    conf.group(stage)
    return [stage]


def _arms(group: Group) -> Sequence[tuple[Arm, str, str]]:
    """The value arm, the best baseline and the probe of the whole site: arm, label, look."""
    arms = [(group.arm(VALUE), "value", LOOKS[0])]
    if group.best:
        label = f"{group.best.replace('_', ' ')} (best baseline)"
        arms.append((group.arm(group.best), label, LOOKS[1]))
    for arm in group.arms:
        if arm.role == PROBE:
            label = f"whole site ({arm.name.removeprefix('full_')} probe)"
            arms.append((arm, label, LOOKS[2]))
            break
    return arms


def _task(conf: Confidence) -> str:
    return f"{conf.model_id.name} on {conf.task}" if conf.task else conf.model_id.name


__all__ = ["calibration", "risk"]
