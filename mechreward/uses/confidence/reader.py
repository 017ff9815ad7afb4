"""All arms, fitted: what turns what was seen into scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from mechreward import stats
from mechreward.base.errors import MechRewardError
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import ValueProbe
from mechreward.uses.confidence.columns import SURER
from mechreward.uses.confidence.logit import Logit
from mechreward.uses.confidence.read_outs import (
    PROBE,
    VALUE,
    WHOLE,
    ReadOut,
    Rows,
    Shape,
    beside,
    given,
)
from mechreward.uses.confidence.seen import ANSWER, PROMPT, SEVERAL, STAGES, Seen
from mechreward.uses.confidence.text import Text

SURFACE = "surface"  # role of arms that read no activations
TFIDF, TOGETHER = "tfidf", "all_surface"


@dataclass(frozen=True)
class Plain:
    """A column as it is, with the sign that went with right answers where it was fitted.

    Attributes
    ----------
    stage, name : str
        Which column.
    sign : float
        1 or -1.
    """

    stage: str
    name: str
    sign: float
    role: str = SURFACE
    draw: int = 0

    def score(self, seen: Seen, stage: str) -> Float[np.ndarray, " row"]:
        """Higher for what is surer."""
        return self.sign * seen.columns[stage][self.name]

    def why_not(self, seen: Seen, stage: str) -> str:
        """Why it is not defined; empty where it is."""
        if self.name in seen.columns[stage]:
            return ""
        return seen.missing[stage].get(self.name, "it is not known here")


@dataclass(frozen=True)
class Together:
    """A logistic regression on all columns of a stage and those known by then.

    Attributes
    ----------
    stage : str
        The stage.
    columns : tuple of str
        Their names.
    logit : Logit
        Fitted.
    """

    stage: str
    columns: tuple[str, ...]
    logit: Logit = field(repr=False)
    name: str = TOGETHER
    role: str = SURFACE
    draw: int = 0

    def score(self, seen: Seen, stage: str) -> Float[np.ndarray, " row"]:
        """Logit of the probability of a right answer."""
        known = seen.known(stage)
        return self.logit.score(np.column_stack([known[name] for name in self.columns]))

    def why_not(self, seen: Seen, stage: str) -> str:
        """Why it is not defined; empty where it is."""
        known = seen.known(stage)
        lacking = [name for name in self.columns if name not in known]
        return f"it needs {', '.join(lacking)}" if lacking else ""


@dataclass(frozen=True)
class Words:
    """The words of the prompt.

    Attributes
    ----------
    text : Text
        Fitted.
    """

    text: Text
    stage: str = PROMPT
    name: str = TFIDF
    role: str = SURFACE
    draw: int = 0

    def score(self, seen: Seen, stage: str) -> Float[np.ndarray, " row"]:
        """Logit of the probability of a right answer."""
        return self.text.score(seen.prompts)

    def why_not(self, seen: Seen, stage: str) -> str:
        """Why it is not defined: never."""
        return ""


Scorer = ReadOut | Plain | Together | Words


@dataclass(frozen=True)
class Reader:
    """Fitted arms.

    Attributes
    ----------
    scorers : tuple
        Read-outs of activations serve every stage; others one.
    missing : mapping of str to str
        Why an arm of all stages could not be made, by name.
    """

    scorers: tuple[Scorer, ...]
    missing: dict[str, str]

    def of(self, stage: str) -> list[Scorer]:
        """The arms of a stage."""
        arms = []
        for scorer in self.scorers:
            if isinstance(scorer, ReadOut) or scorer.stage == stage:
                arms.append(scorer)
        return arms

    def why_not(self, stage: str) -> dict[str, str]:
        """Why arms of a stage could not be made, by name."""
        reasons = dict(self.missing)
        if stage != PROMPT:
            reasons.pop(TFIDF, None)
        return reasons


def fit_reader(
    model: Any,
    seen: Seen,
    rows: Rows,
    value: NeuronSet | ValueProbe,
    columns: Mapping[str, Sequence[str]],
    *,
    shape: Shape,
    draws: int,
    seed: int,
) -> Reader:
    """Fit every arm to one split.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that answered.
    seen : Seen
        The split.
    rows : Rows
        Its states with their targets.
    value : NeuronSet or ValueProbe
        A set's probe is fitted here; a probe stays as it is.
    columns : mapping of str to sequence of str
        By stage, the columns that all splits have.
    shape, draws, seed
        As for `confidence`.

    Raises
    ------
    MechRewardError
        All answers are right, or all are wrong.
    """
    scorers: list[Scorer] = []
    missing = {}
    if isinstance(value, NeuronSet):
        scorers.append(rows.fitted(VALUE, VALUE, shape, seed, value.indices))
        sets, missing = beside(model, rows, seen, value, shape, draws, seed)
    else:
        scorers.append(given(value))
        sets = []
        why = "the probe reads the whole site: there are no other neurons to draw"
        missing = {"matched": why, "random": why}
    for stage in STAGES:
        scorers += _surface(seen, stage, columns[stage], rows)
    shapes: tuple[Shape, Shape] = ("linear", "mlp")
    for name, each in zip(WHOLE, shapes, strict=True):
        scorers.append(rows.fitted(name, PROBE, each, seed))
    scorers += sets
    try:
        text = Text.of(seen.prompts, _target(seen, PROMPT, rows), seen.problem(PROMPT))
        scorers.append(Words(text))
    except MechRewardError as error:
        missing[TFIDF] = str(error).rstrip(".")
    return Reader(tuple(scorers), missing)


def _surface(seen: Seen, stage: str, names: Sequence[str], rows: Rows) -> list[Scorer]:
    """Every column of a stage, and all together.

    There may be several answers to read and single ones to fit to: signs are then as one expects,
    and what is put together is what is known of each answer alone.
    """
    scorers: list[Scorer] = []
    lacking = bool(seen.why_not(stage))
    for name in names:
        up = name in SURER
        if not lacking:
            area = stats.auroc(seen.columns[stage][name], seen.reward(stage))
            up = not area < 1 / 2
        scorers.append(Plain(stage, name, 1.0 if up else -1.0))
    if lacking and stage != SEVERAL:
        return scorers
    fitted_at = ANSWER if lacking else stage
    known, target = seen.known(fitted_at), _target(seen, fitted_at, rows)
    if known and 0 < target.mean() < 1:
        table = np.column_stack(list(known.values()))
        scorers.append(Together(stage, tuple(known), Logit.of(table, target)))
    return scorers


def _target(seen: Seen, stage: str, rows: Rows) -> Float[np.ndarray, " row"]:
    """V-hat of every row of a stage, as the read-outs are taught; the reward where it ends."""
    by_state = np.empty(len(seen.acts.step))
    live = np.ones(len(by_state), bool)
    ends = seen.rows(ANSWER)
    live[ends] = False
    by_state[live] = rows.live.y
    by_state[ends] = rows.end.y
    return by_state[seen.rows(stage)]
