"""The verb: from a model and rollouts to `Confidence`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mechreward.base.errors import of_kind, one_of, require, whole
from mechreward.base.progress import under
from mechreward.models.identity import model_id
from mechreward.models.site import Site
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import SHAPES, ValueProbe
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.uses.confidence.calibrators import HOW, chosen
from mechreward.uses.confidence.deal import Dealt, deal
from mechreward.uses.confidence.fitted import Fitted, keys
from mechreward.uses.confidence.groups import Scale, fit_scale, group_of
from mechreward.uses.confidence.noun import Confidence
from mechreward.uses.confidence.read_outs import Rows, Shape
from mechreward.uses.confidence.reader import Reader, fit_reader
from mechreward.uses.confidence.seen import STAGES, Seen, look

NOT_CALIBRATED = "the calibration split has no such rows, or one class of them"


def confidence(
    model: Any,
    runs: Rollouts,
    value: NeuronSet | ValueProbe | Confidence,
    *,
    fit: Rollouts | None = None,
    values: Values | None = None,
    calibration: Rollouts | None = None,
    share: float = 1 / 3,
    calibrator: str | None = None,
    shape: Shape = "mlp",
    draws: int = 19,
    seed: int = 0,
    batch: int = 64,
    other_model: bool = False,
    progress: bool | str = True,
) -> Confidence:
    """How sure a value read-out is of answers, beside every baseline that sees as much.

    A row is an answer and a state: its prompt, each state in its middle, its end, and its end where
    the problem has several answers. Arms are compared at one stage only, where they see the same.
    At all stages: the value arm, linear and MLP probes of the whole site, the value arm's probe on
    sets matched in magnitude and on random ones, and all surface columns together. Before the first
    token: prompt length, perplexity, entropy of the next token, difficulty, TF-IDF. In the middle:
    tokens and steps so far, running means of log-probability, entropy and self-certainty. At the
    end: length, sum and means of the same, P(True). Of several answers: agreement, and entropy over
    what they answer (`Task.answer`); the value arm is then its mean over them.

    What is fitted (read-outs, TF-IDF, signs of baselines) sees `fit`; what is calibrated and chosen
    (probabilities, the best baseline of each stage) sees `calibration`; `runs` are measured. The
    three share no problem.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that answered.
    runs : Rollouts
        What is measured. Problems for what is not given are taken from them at random, whole.
    value : NeuronSet, ValueProbe or Confidence
        Value neurons, whose probe is fitted here; a probe of activations at states, which stays as
        it is; or a confidence that was made before, of which everything stays as it is: transfer to
        another task, or with `other_model` to a sibling of the model. `runs` are then all measured.
    fit : Rollouts or None, default None
        None takes half of the problems of `runs`.
    values : Values or None, default None
        V-hat of the states of `fit`: what every arm that is fitted learns to tell. None: the
        reward, which says less about each state.
    calibration : Rollouts or None, default None
        None takes `share` of the problems of `runs` that are left.
    share : float, default 1/3
        See `calibration`.
    calibrator : {"isotonic", "platt"} or None, default None
        None: isotonic from 200 problems of the calibration split on, Platt's below (our choice).
    shape : {"mlp", "linear"}, default "mlp"
        Of the probe of a neuron set and of its controls; "mlp" is the paper's.
    draws : int, default 19
        Matched sets, and random sets: 19 let a rank reach p = .05.
    seed : int, default 0
        Of splits, draws, fits and bootstraps.
    batch : int, default 64
        Trajectories run at once.
    other_model : bool, default False
        Whether value neurons, probe or confidence may be of another model of the same shape.
    progress : bool or str, default True
        Whether bars are shown, or their title.

    Returns
    -------
    Confidence
        Its `frame`, `metrics`, `reliability` and `risk_coverage` are tables.

    Raises
    ------
    MechRewardError
        Rollouts or value neurons of another model; an empty set, or a probe that was fitted to bare
        rows; one prompt in two splits; a split of right or of wrong answers alone; draws < 1; an
        unknown calibrator or shape; values of other rollouts than `fit`.

    Notes
    -----
    The paper reads s_0 with a probe on the top 1% (its table 3). Stages, groups, baselines,
    controls, the choice on a split of its own and all metrics are our choice. That problems on
    which the value neurons were chosen are in neither `calibration` nor `runs` is up to you: a set
    does not know where it comes from.
    """
    of_kind("runs", runs, Rollouts)
    if calibrator is not None:
        one_of("calibrator", calibrator, HOW)
    of_kind("value", value, (NeuronSet, ValueProbe, Confidence), "select makes a set of a probe")
    one_of("probe shape", shape, SHAPES)
    draws = whole("draws", draws, 1, "control sets of each kind")
    seed = whole("seed", seed)
    batch = whole("batch", batch, 1, "trajectories run at once")
    if isinstance(value, Confidence):
        given = {"fit": fit, "values": values, "calibration": calibration}
        named = [name for name, part in given.items() if part is not None]
        require(
            not named,
            f"a confidence keeps all it was fitted to; leave out {' and '.join(named)}.",
        )
        return _again(model, runs, value, other_model, batch, progress)
    site = _site(model, value, other_model)
    require(
        values is None or fit is not None,
        "values are those of the rollouts to fit on: give these as fit=.",
    )
    dealt = deal(runs, fit, calibration, share, seed)
    _check_classes(dealt)
    seen = {}
    for name, part in vars(dealt).items():
        seen[name] = look(model, part, site, batch=batch, progress=under(progress, name))
    learnt = Rows.of(seen["fit"], values)
    reader = fit_reader(
        model,
        seen["fit"],
        learnt,
        value,
        _shared_columns(list(seen.values())),
        shape=shape,
        draws=draws,
        seed=seed,
    )
    asked = keys(dealt.fit), keys(dealt.calibration)
    calibrated_by = chosen(calibrator, len(asked[1]))
    scales = _scales(reader, seen["calibration"], calibrated_by)
    fitted = Fitted(
        site=site,
        value=_words(value, site),
        reader=reader,
        scales=scales,
        calibrator=calibrated_by,
        asked=(*asked[0], *asked[1]),
        problems=(len(asked[0]), len(asked[1])),
    )
    return _scored(fitted, seen["test"], seed)


def _again(
    model: Any,
    runs: Rollouts,
    before: Confidence,
    other_model: bool,
    batch: int,
    progress: bool | str,
) -> Confidence:
    """Other rollouts, read with all that a confidence learnt."""
    of_kind("runs", runs, Rollouts, "sample makes them of problems")
    require(len(runs) > 0, "runs holds no trajectories.")
    fitted = before.fitted
    before.model_id.check(model_id(model), "confidence", other_model=other_model)
    shared = set(fitted.asked) & set(keys(runs))
    require(
        not shared,
        f"{len(shared)} prompts of these rollouts were fitted to or calibrated on: give others.",
    )
    seen = look(model, runs, fitted.site.check(model), batch=batch, progress=progress)
    return _scored(fitted, seen, before.seed)


def _scored(fitted: Fitted, seen: Seen, seed: int) -> Confidence:
    groups, missing = {}, {}
    for stage in STAGES:
        why = seen.why_not(stage)
        if why:
            missing[stage] = why
        elif stage not in fitted.scales:
            missing[stage] = NOT_CALIBRATED
        else:
            groups[stage] = group_of(fitted.reader, fitted.scales[stage], seen, stage)
    names: dict[int, str] = {}
    for group, problem in zip(seen.runs.groups, seen.runs.problems, strict=True):
        names.setdefault(group, problem.id)
    tasks = {problem.task.name for problem in seen.runs.problems if problem.task is not None}
    return Confidence(
        groups=groups,
        missing=missing,
        problems=tuple(names.values()),
        model_id=seen.acts.model_id,
        task=", ".join(sorted(tasks)),
        verified=_verified(seen.runs),
        seed=seed,
        fitted=fitted,
    )


def _scales(reader: Reader, seen: Seen, how: str) -> dict[str, Scale]:
    """What each stage of the calibration split teaches; stages in which all rows are of right, or
    of wrong answers, are left out."""
    scales = {}
    for stage in STAGES:
        reward = seen.reward(stage)
        if not seen.why_not(stage) and 0 < reward.mean() < 1:
            scales[stage] = fit_scale(reader, seen, stage, how)
    return scales


def _shared_columns(seen: Sequence[Seen]) -> dict[str, list[str]]:
    """By stage, the columns of every split that has the stage."""
    shared = {}
    for stage in STAGES:
        splits = [part.columns[stage] for part in seen if not part.why_not(stage)]
        names = list(splits[0]) if splits else []
        shared[stage] = [name for name in names if all(name in columns for columns in splits)]
    return shared


def _site(model: Any, value: NeuronSet | ValueProbe, other_model: bool) -> Site:
    """Where a set or a probe reads, if this model has it.

    Raises
    ------
    MechRewardError
        Another model, an empty set, or a probe that does not know where it reads.
    """
    identity = model_id(model)
    if isinstance(value, NeuronSet):
        value.model_id.check(identity, "neuron set", other_model=other_model)
        require(len(value) > 0, "the value set is empty: there is nothing to read.")
        site, width = value.site.check(model), value.width
    else:
        require(
            hasattr(value, "site_") and value.rows_ == "states",
            "the probe has to be fitted to activations at states, as in fit(acts, values): it "
            "does not know where to read.",
        )
        value.model_id_.check(identity, "probe", other_model=other_model)
        site, width = value.site_.check(model), len(value.scores_)
    here = site.width(model)
    require(width == here, f"value neurons of {width}; {site} has {here} here.")
    return site


def _words(value: NeuronSet | ValueProbe, site: Site) -> str:
    if isinstance(value, NeuronSet):
        return f"{len(value)} of {value.width} neurons at {site}"
    return f"{value.shape} probe at {site}"


def _verified(runs: Rollouts) -> bool:
    return any(run.verdict.outcome != "unverifiable" for run in runs)


def _check_classes(dealt: Dealt) -> None:
    """Raise MechRewardError where a split teaches nothing."""
    for name, runs in (("fit", dealt.fit), ("calibration", dealt.calibration)):
        require(
            _verified(runs),
            f"no answer of the {name} split was verified: its task needs a verifier, though that "
            "of the rollouts to measure does not.",
        )
        right = sum(runs.rewards)
        outcome = "right" if right else "wrong"
        require(
            0 < right < len(runs),
            f"all {len(runs)} answers of the {name} split are {outcome}: nothing can be learnt of "
            "them. Give more of them, or harder or easier problems.",
        )
