"""What the neurons are good for, on a study: confidence, guided search and early exit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mechreward import experiments
from mechreward.causal.controls import matched
from mechreward.experiments.rows import Row
from mechreward.experiments.siblings import STATES
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.probe import DopamineProbe, directions
from mechreward.rollouts.sample import sample
from mechreward.studies.pictured import CONFIDENCE, SIBLINGS
from mechreward.studies.sets import dopamine_set, fitted, setting_of, tokens_of, value_set
from mechreward.studies.study import Study
from mechreward.uses.confidence import Confidence, confidence
from mechreward.uses.confidence.deal import enough
from mechreward.uses.search.readouts import of_neurons, of_probe
from mechreward.uses.search.scorers import Length, Scorer, SelfCertainty
from mechreward.uses.siblings import Siblings, siblings


def R7(study: Study) -> list[Row]:
    """Confidence, on problems of its own."""

    def make() -> list[Row]:
        neurons = value_set(study, "resid_post")
        plan = study.plan
        problems = plan.problems(study.task, "confidence")
        title = "confidence: rollouts"
        runs = sample(study.model, problems, seed=plan.seed, policy=plan.policy, progress=title)
        if not enough(runs):
            return []
        train = study.splits["train"]
        conf = study.kept(
            CONFIDENCE,
            Confidence,
            lambda: confidence(
                study.model,
                runs,
                neurons,
                fit=train.runs,
                values=train.values,
                draws=plan.draws,
                seed=plan.seed,
                progress="confidence",
            ),
        )
        return experiments.confidence_rows(conf, setting_of(study, "R7", neurons.site))

    return study.rows("R7", make)


def R11(study: Study) -> list[Row]:
    """Guided search by what was found, beside what anybody can search by; and whether these know
    the better of sibling steps."""

    def make() -> list[Row]:
        value, dopamine = value_set(study, "resid_post"), dopamine_set(study, "resid_post")
        plan = study.plan
        spent = _continued(study)
        train = study.splits["train"]
        probe = fitted(study, value.site)
        scorers: list[Scorer] = []
        for readout in (
            of_neurons(dopamine),
            of_neurons(value),
            of_neurons(_matched(study, value), "matched neurons"),
            of_probe(probe, "value probe"),
            of_probe(probe, "value difference", difference=True),
            of_probe(DopamineProbe().fit(train.over_steps[str(dopamine.site)], train.values)),
        ):
            scorers.append(replace(readout, trained=spent))
        scorers += [SelfCertainty(), Length()]
        problems = plan.problems(study.task, "searched")
        setting = setting_of(study, "R11", value.site)
        steps = study.kept(
            SIBLINGS,
            Siblings,
            lambda: siblings(
                study.model,
                problems,
                scorers,
                states=min(STATES, len(problems)),
                continuations=plan.k,
                seed=plan.seed,
                policy=plan.policy,
                progress="siblings",
            ),
        )
        searched = experiments.guided_search(
            study.model, problems, scorers, setting, policy=plan.policy, progress="search"
        )
        return [*experiments.sibling_rows(steps, setting), *searched]

    return study.rows("R11", make)


def early_exit(study: Study) -> list[Row]:
    """Rollouts stopped early: rules set on validation problems, held to those of confidence."""

    def make() -> list[Row]:
        value, plan = value_set(study, "resid_post"), study.plan
        return experiments.early_exits(
            study.model,
            plan.problems(study.task, "validation"),
            plan.problems(study.task, "confidence"),
            {"value neurons": value, "value probe": fitted(study, value.site)},
            setting_of(study, "early_exit", value.site),
            policy=plan.policy,
            progress="early exit",
        )

    return study.rows("early_exit", make)


def _continued(study: Study) -> int:
    """Tokens that the values of the training split cost, about: every state's continuations are as
    long as what was left of its answer."""
    tokens = 0
    for run in study.splits["train"].runs:
        left = [len(run.tokens) - 1 - end for end in run.step_ends[:-1]]
        tokens += run.length + study.plan.k * sum(left)
    return tokens


def _matched(study: Study, neurons: NeuronSet) -> NeuronSet:
    """One matched set, with the direction that the training states give it."""
    acts = tokens_of(study, "train", neurons.site)
    (control,) = matched(neurons, acts, draws=1, seed=study.plan.seed)
    train = study.splits["train"]
    states = train.at_states[str(neurons.site)]
    columns = states.x[:, list(control.neurons.indices)]
    # V-hat where the answer goes on; the last row of an answer has none.
    worth = np.where(train.values.live, train.values.mean, np.nan)
    return replace(control.neurons, direction=tuple(directions(columns, worth).tolist()))
