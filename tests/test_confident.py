"""From a model and a task to a folder: what is written, what is never seen twice, and mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import tiny

import mechreward as mr
from mechreward import Confidence, MechRewardError
from mechreward.experiments.plan import CONFIDENCE
from mechreward.studies.confident import LEAST, confident_in

TASK = tiny.Even()
PLAN = replace(CONFIDENCE, train=14, validation=8, k=2, calibration=12, test=10, draws=3)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("confidence") / "run"


@pytest.fixture(scope="module")
def conf(tiny_model, out: Path) -> Confidence:
    conf, page = confident_in(
        out, tiny_model, TASK, None, PLAN.sizes, "resid_post", 8, layers=[1], progress=False
    )
    assert page.read_text().strip() == str(conf).strip()
    return conf


def test_all_is_written(conf: Confidence, out: Path):
    names = {path.name for path in out.iterdir()}
    written = {"confidence.safetensors", "confidence.csv", "metrics.csv", "confidence.txt"}
    assert names == written | {"neurons.json"}
    again = Confidence.load(out / "confidence.safetensors")
    pd.testing.assert_frame_equal(again.frame(), conf.frame())
    assert len(pd.read_csv(out / "confidence.csv")) == len(conf.frame())
    metrics = pd.read_csv(out / "metrics.csv")
    assert set(metrics.stage) == set(conf.groups)
    assert mr.NeuronSet.load(out / "neurons.json").site == conf.fitted.site


def test_no_problem_serves_twice(conf: Confidence):
    assert conf.fitted.problems == (14, 12) and len(conf.problems) == 10
    assert len(set(conf.fitted.asked)) == 26
    chosen = TASK.problems("train", 14) + TASK.problems("validation", 8)
    asked = {problem.id for problem in chosen}
    assert not asked & set(conf.problems)
    calibrated = TASK.problems("test", 22)[:12]
    assert {problem.id for problem in calibrated}.isdisjoint(conf.problems)


def test_a_set_that_is_given_is_not_chosen(tiny_model, conf: Confidence, tmp_path: Path):
    neurons = mr.NeuronSet(mr.Site(1, "mlp"), (2, 7, 30), 48, conf.model_id, how="by hand")
    sizes = {**PLAN.sizes, "answers": 2}
    found, _ = confident_in(tmp_path, tiny_model, TASK, neurons, sizes, progress=False)
    assert found.fitted.value == "3 of 48 neurons at 1.mlp"
    assert not (tmp_path / "neurons.json").exists()
    group = found.group("k answers")  # the task extracts nothing: only read-outs are there
    assert group.missing["agreement"].startswith("the task extracts no answer")
    assert group.best == "all_surface"


@pytest.mark.unchecked
@pytest.mark.parametrize("name", LEAST)
def test_sizes_that_are_too_small(tiny_model, name: str, tmp_path: Path):
    least = LEAST[name]
    sizes = {**PLAN.sizes, name: least - 1}
    with pytest.raises(MechRewardError, match=f"{name} must be at least {least}; {least - 1}"):
        confident_in(tmp_path / "run", tiny_model, TASK, None, sizes, progress=False)
    with pytest.raises(MechRewardError, match="task must be Task; 'even' was given"):
        confident_in(tmp_path / "run", tiny_model, "even", None, PLAN.sizes)
    assert not (tmp_path / "run").exists()
