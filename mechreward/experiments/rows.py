"""`results.json`, schema 1: a manifest and tidy rows, the same for every experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import nulled, read_json, write_json
from mechreward.base.frames import Framed
from mechreward.stats import Interval

SCHEMA = 1

# What a row says beside its number. Every key is optional, and no row has a key that is not listed
# here. Where rows of calibration or of the benchmark hold another type under a key, it is Any.
Detail = TypedDict(
    "Detail",
    {
        # what the row is about
        "split": str,  # train, validation or test: the split whose data is described or read
        "k": int,  # continuations of a state; candidates of a search; in calibration, neurons taken
        "target": Any,  # of the probe: mc, td, td-lambda, terminal, td over tokens; in rows of the
        # benchmark, the ratio that is aimed at, float
        "shape": str,  # of the probe: linear or mlp
        "fitted": str,  # rows the probe is fitted to
        "tested": str,  # rows the probe is tested on
        "known": str,  # when a score of confidence is known: before, meanwhile or after the
        # answer, or after several
        "stage": str,  # the same, as `mechreward.confidence` calls it
        "role": str,  # of an arm of confidence: value, surface, probe or set
        "best": str,  # surface baseline that the calibration split chose
        "brier": float,  # of the calibrated score
        "ece": float,  # of the calibrated score, 15 bins
        "perfect_ece": float,  # what perfect calibration shows at this n
        "aurc": float,  # area under risk and coverage
        "excess_aurc": float,  # beyond that of an oracle
        "prr": float,  # prediction-rejection ratio
        "z": str,  # tokens by which a neuron is standardised: response or running
        "as": str,  # experiment whose row R13 repeats
        "item": int,  # which answer a trace is of
        "step": int,  # step of that answer
        "delta": float,  # TD error of that step
        # which neurons, and how they are found
        "neurons": int,  # how many are in the set
        "neuron": int,  # which one, if it is one
        "share": float,  # neurons of the set, of all of the site
        "ratio": float,  # neurons that are pruned, of all of the site
        "fit": str,  # of a point of the pruning curve: retrained or masked
        "chosen": bool,  # whether validation chose this layer and share
        "sign": float,  # sign of the neuron's correlation on the training split
        "train": float,  # size of the neuron's Spearman on the training split
        "from_model": str,  # where a set that is transferred comes from
        "from_task": str,
        # what is changed
        "op": str,  # zero, mean or resample; down or up
        "strength": float,  # of steering, in standard deviations
        "place": str,  # positions that are steered: all, early or late
        "displacement": float,  # norm of what steering adds
        "from": str,  # V of the state whose activations are patched: high, low or equal
        "into": str,  # V of the state they are patched into
        "at": str,  # site that is patched, or that is read
        "on": str,  # another task on which accuracy is measured
        "zeroed": int,  # neurons zeroed together
        "layers": int,  # layers these are in
        # what the number is held against
        "beyond": str,  # what a difference is measured from
        "with": str,  # set that is compared
        "shared": float,  # neurons of both sets
        "expected": Any,  # by chance, float; in rows of calibration, the right answer, str
        "draw": int,  # which draw of a control
        "draws": int,  # draws of the control
        "sets": int,  # control sets the row is over
        "never": int,  # control sets that no strength gives the damage of the set
        "interval": str,  # what the bounds are, if they are no 95% interval
        # partial Spearman, beyond step, position and prompt length:
        "random": float,  # of as many random neurons
        "rotated": float,  # of the best of another basis
        "few": float,  # of the few neurons
        "full": float,  # of all neurons
        "plain": float,  # Spearman of the few neurons, with what those tell
        "told": float,  # Spearman of what those alone tell
        "reading": str,  # what the evidence comes to, in a word
        "reliability": float,  # split-half, of what is read
        "match_error": float,  # mean error of the match of control sets in rms
        "rms_match_error": float,  # the same, of sets that are steered
        "error": float,  # the same, of sets by share and of sets that are transferred
        "matched": bool,  # whether that error counts as a match
        "is_matched": bool,  # whether the error of every draw does
        "kl": float,  # nats per token, on clean text
        "factor": float,  # mean factor on the strength that gives controls this KL
        # tests and power
        "p": Any,  # float; in rows of calibration, the p of every seed
        "p_few": Any,  # as p, of the few neurons among shuffles
        "p_holm": float,  # p after Holm over the grid of layers and shares
        "p_mcnemar": float,  # exact, of paired outcomes
        "p_rank": float,  # of the rank among control sets
        "rank": int,  # among control sets, 1 the lowest
        "detectable_drop": float,  # change of accuracy that so many problems can show
        # how many
        "n": str,  # what a row of calibration counts: seeds, runs or repeats
        "answers": int,
        "problems": int,
        "trajectories": int,
        "steps": int,
        "pairs": int,  # pairs of states, or of sibling steps
        "states": int,  # that steps are drawn at
        # search
        "algorithm": str,  # beam, best_of_n, majority, greedy
        "tokens": float,  # generated, mean over problems, those of dropped candidates included
        "seeds": int,  # that a number is over
        "trained": int,  # generated tokens that the making of a scorer cost
        "saved": float,  # share of the tokens of whole rollouts
        "promised": float,  # rate of lost answers that a rule keeps below
        # certificates
        "verdict": str,  # pass, fail or inconclusive
        "reason": str,  # the sentence that says why
        "number": str,  # name of the number that decides
        # calibration
        "planted": str,  # value or dopamine
        "all": int,  # seeds in which every planted neuron is found
        "fooled_by": dict[str, int],  # seeds in which each decoy is among the first
        "readings": dict[str, int],  # seeds with each reading
        "verdicts": dict[str, int],  # seeds with each verdict
        "power": dict[str, str],  # share of seeds in which a planted share is found
        "sparsity": list[float],  # of every seed
        "baseline": float,  # accuracy before the ablation, mean over seeds
        "change": float,  # of accuracy, mean over seeds
        "kl_first": float,  # share of seeds in which the KL of the set is the largest
        "nominal": float,  # rate of false alarms that is promised
        "truth": float,  # what an interval should cover
        "above": int,  # intervals that lie above the truth
        "below": int,  # intervals that lie below the truth
        "unbounded": int,  # intervals without bounds
        "exact": bool,  # whether the coverage is summed and not sampled
        "model": bool,  # whether a probe on a planted model is involved
        "of": str,  # runs that a p is of
        "level": float,  # at which a p is held
        "ks_too_small": float,  # Kolmogorov-Smirnov p, one-sided: small p are not too frequent
        "ks_uniform": float,  # the same, two-sided: randomised p are uniform
        # benchmark
        "work": str,  # what is timed
        "unit": str,  # of its rate
        "kind": str,  # of the parity that is checked
        "times": bool,  # whether a ratio counts how many times as slow
        "varied": str,  # which of the next three is varied, or k
        "width": int,  # of the model
        "length": int,  # tokens of a row
        "interventions": int,
    },
    total=False,
)


class Setting(TypedDict):
    """What the rows of an experiment have in common."""

    experiment: str
    model: str
    task: str
    site: str
    seed: int


@dataclass(frozen=True)
class Row:
    """One number with its interval. `arm` says what was measured (`value`, `matched`, `random`,
    ...), `n` counts independent units (problems, unless `detail` says otherwise). NaN means that
    the number does not exist."""

    experiment: str
    model: str
    task: str
    site: str
    arm: str
    metric: str
    estimate: float
    low: float
    high: float
    n: int
    seed: int
    detail: Detail = field(default_factory=Detail)

    @property
    def interval(self) -> Interval:
        return Interval(self.estimate, self.low, self.high, self.n)


@dataclass(frozen=True)
class Results(Framed):
    """What `results.json` holds. `manifest` keeps versions, seeds, model and weight hash, git
    state, timings."""

    manifest: dict[str, Any]
    rows: tuple[Row, ...]

    def where(self, **wanted: object) -> list[Row]:
        """Rows whose fields equal all of `wanted`."""
        rows = []
        for row in self.rows:
            if all(getattr(row, name) == value for name, value in wanted.items()):
                rows.append(row)
        return rows

    def frame(self) -> pd.DataFrame:
        """A line a row: its fields as columns, and `detail.KEY` for every key of any detail."""
        lines = []
        for row in self.rows:
            line = asdict(row)
            detail = line.pop("detail")
            for key, value in detail.items():
                line[f"detail.{key}"] = value
            lines.append(line)
        return pd.DataFrame(lines)

    def save(self, path: Path | str) -> Path:
        """Write atomically; NaN becomes null."""
        rows = [nulled(asdict(row)) for row in self.rows]
        return write_json(path, {"schema": SCHEMA, "manifest": self.manifest, "rows": rows})

    @classmethod
    def load(cls, path: Path | str) -> Results:
        """Raises MechRewardError for a missing or damaged file, or another schema."""
        data = read_json(path, "results")
        require(
            data.get("schema") == SCHEMA,
            f"{path} has schema {data.get('schema')}; this version reads {SCHEMA}.",
        )
        try:
            rows = tuple(_row_of_json(fields) for fields in data["rows"])
            return cls(data["manifest"], rows)
        except (KeyError, TypeError, AttributeError) as error:
            raise MechRewardError(f"{path} is no whole results file: {error}.") from error


def at_site(setting: Setting, site: Any) -> Setting:
    """The same setting at another site."""
    here = setting.copy()
    here["site"] = str(site)
    return here


def row_of(
    setting: Setting,
    arm: str,
    metric: str,
    interval: Interval,
    detail: Detail | None = None,
) -> Row:
    """One row."""
    return Row(**setting, arm=arm, metric=metric, **asdict(interval), detail=detail or Detail())


def rows_of(
    setting: Setting,
    arm: str,
    intervals: Mapping[str, Interval],
    detail: Detail | None = None,
) -> list[Row]:
    """A row for each metric of one arm."""
    rows = []
    for metric, interval in intervals.items():
        rows.append(row_of(setting, arm, metric, interval, detail))
    return rows


def rows_from(setting: Setting, numbers: Iterable[tuple[str, str, Interval, Detail]]) -> list[Row]:
    """A row for each (arm, metric, interval, detail)."""
    return [row_of(setting, *number) for number in numbers]


def damage_rows(
    setting: Setting,
    arm: str,
    damage: Mapping[str, float],
    n: int,
    detail: Detail | None = None,
) -> list[Row]:
    """The damage meter of one set as rows without an interval: it is a meter of this set on these
    `n` problems."""
    numbers = {meter: bare(value, n) for meter, value in damage.items()}
    return rows_of(setting, arm, numbers, detail)


def bare(estimate: float, n: int) -> Interval:
    """A number without a sampling interval: a count, an index, a meter of one set."""
    return Interval(float(estimate), float("nan"), float("nan"), n)


def over_draws(values: Sequence[float]) -> Interval:
    """Mean of draws between the lowest and the highest; `n` counts draws."""
    return Interval(
        float(np.mean(values)), float(np.min(values)), float(np.max(values)), len(values)
    )


def by_meter(draws: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """The values of every meter over draws; no meter where there is no draw."""
    values: dict[str, list[float]] = {}
    for damage in draws:
        for meter, value in damage.items():
            values.setdefault(meter, []).append(value)
    return values


def _row_of_json(fields: Any) -> Row:
    """A row as JSON holds it, where null stands for NaN."""
    known: dict[str, Any] = {}
    for name, value in fields.items():
        known[name] = math.nan if value is None else value
    return Row(**known)
