"""A forecast against what is then run: rollouts are counted where they are made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
from typer.testing import CliRunner

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.cli import app
from mechreward.experiments.plan import Plan
from mechreward.models import engine
from mechreward.probing.probe import ValueProbe
from mechreward.studies import pace, work
from mechreward.studies.forecast import Forecast
from mechreward.studies.sets import chosen
from mechreward.studies.stages import EXPERIMENTS, data
from mechreward.studies.study import Study

TASK = tiny.Even()
PROBLEMS = TASK.problems("test", 12)
SITE = "1.resid_post"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Rollouts that were asked for, and fits of the paper's probe."""
    count: Counter[str] = Counter()
    begin, fit = engine._Run.__init__, ValueProbe.fit_examples

    def begun(self: Any, model: Any, jobs: Any, *rest: Any, **more: Any) -> None:
        count["rollouts"] += len(jobs)
        begin(self, model, jobs, *rest, **more)

    def fitted(self: Any, examples: Any) -> Any:
        count["fits"] += self.shape == "mlp"
        return fit(self, examples)

    monkeypatch.setattr(engine._Run, "__init__", begun)
    monkeypatch.setattr(ValueProbe, "fit_examples", fitted)
    return count


@pytest.fixture
def neurons(tiny_model) -> mr.NeuronSet:
    runs = mr.sample(tiny_model, PROBLEMS, progress=False)
    return mr.NeuronSet.of(mr.record(tiny_model, runs, SITE, progress=False)[SITE], [3, 8], "given")


def foreseen(made: Counter[str], verb: Any, *args: Any, **kwargs: Any) -> tuple[Forecast, int]:
    """A forecast, and how many rollouts the verb then made."""
    told = mr.forecast(verb, *args, **kwargs)
    made.clear()
    verb(*args, progress=False, **kwargs)
    return told, made["rollouts"]


def test_sampling(tiny_model, made):
    told, rollouts = foreseen(made, mr.sample, tiny_model, PROBLEMS, k=3)
    assert told.rollouts == (rollouts, rollouts) == (36, 36)


def test_values(tiny_model, made):
    runs = mr.sample(tiny_model, PROBLEMS, progress=False)
    told, rollouts = foreseen(made, mr.estimate, tiny_model, runs, k=4)
    assert told.rollouts == (rollouts, rollouts)
    assert "standard error of up to 0.25 with k=4" in told.effect
    rule = mr.AdaptiveK(0.6, 4)
    told, rollouts = foreseen(made, mr.estimate, tiny_model, runs, k=rule)
    least, most = told.rollouts
    assert least <= rollouts <= most and least / 4 == most / rule.most
    assert "95% interval of up to 0.60" in told.effect
    with pytest.raises(mr.MechRewardError, match="k must be a whole number"):
        mr.forecast(mr.sample, tiny_model, PROBLEMS, k=rule)


def test_recording(tiny_model, made):
    runs = mr.sample(tiny_model, PROBLEMS, progress=False)
    told, rollouts = foreseen(made, mr.record, tiny_model, runs, SITE, rows="tokens")
    assert told.rollouts == (0, 0) and rollouts == 0
    assert told.disk == sum(run.length for run in runs) * 32 * 4


@pytest.mark.parametrize("ops", [["zero"], "mean", ["zero", "mean", "resample"]])
def test_ablations(tiny_model, made, neurons, ops: Any):
    told, rollouts = foreseen(
        made, mr.ablate, tiny_model, PROBLEMS, neurons, ops=ops, draws=4, random_draws=2
    )
    assert told.rollouts == (rollouts, rollouts)


def test_certificates_are_between_the_least_and_the_most(tiny_model, made, neurons):
    sizes = {"train": 20, "test": 16, "k": 3, "n": 10, "draws": 9, "pairs": 6}
    told, rollouts = foreseen(made, mr.certify, tiny_model, TASK, neurons, **sizes)
    least, most = told.rollouts
    # The mean number of states is that of other answers.
    assert 0.8 * least <= rollouts <= 1.2 * most
    assert most < 3 * least
    assert set(told.parts) == {"states", "steering", "patching"}


def test_a_policy_counts(tiny_model):
    short = mr.Policy(max_tokens=2)
    told = mr.forecast(mr.sample, tiny_model, PROBLEMS, policy=short)
    assert told.pace.length <= 2


def test_seconds_are_those_of_the_work_at_the_pace():
    shown = pace.Pace(
        prompt=10, length=20, states=3, rest=8, writing=100, reading=500, fitting=0.5,
        accuracy=0.5, answers=8,
    )  # fmt: skip
    asked = work.Work(answers=10, prompts=5, onward=50, reads=4, fits=6)
    assert shown.seconds(asked) == pytest.approx((200 + 400) / 100 + (50 + 120) / 500 + 3)
    assert shown.tokens(asked) == 600


def test_the_page_says_what_it_will_do(tiny_model):
    text = str(mr.forecast(mr.sample, tiny_model, PROBLEMS, k=40))
    assert "forecast: 40 answers to each of 12 problems" in text
    assert "rollouts  480, of them whole answers 480" in text
    for word in ("tokens", "time", "memory", "disk", "effect", "trial"):
        assert f"\n  {word} " in text


WRONG = [
    ((mr.select,), "a forecast is made of sample, estimate, record, ablate, certify; select was"),
    ((mr.sample,), "sample takes no such arguments: missing a required argument: 'problems'"),
    ((mr.sample, [], 3), "sample takes no such arguments: too many positional arguments"),
]


@pytest.mark.parametrize(("args", "told"), WRONG)
def test_what_no_forecast_is_made_of(tiny_model, args: Any, told: str):
    verb, *rest = args
    with pytest.raises(MechRewardError, match=told):
        mr.forecast(verb, tiny_model, *rest)


def test_no_problems_are_refused_as_the_verb_does(tiny_model):
    with pytest.raises(MechRewardError, match="no problems"):
        mr.forecast(mr.sample, tiny_model, [])


PLAN = Plan(
    train=20, validation=8, test=10, k=2, ablated=6, confidence=7, draws=3, random_draws=1,
    curve_draws=1, layers="2-3",
)  # fmt: skip


def test_stages_of_a_study(tmp_path: Path, made):
    study = Study.open(PLAN, tmp_path, say=lambda line: None)
    data(study)
    chosen(study)
    values = [split.values for split in study.splits.values()]
    states = sum(int(part.live.sum()) for part in values) / 38
    sizes = work.Sizes(20, 8, 10, 2, 6, 7, 5, 3, 1, 1, states, len(study.sites), "countdown")
    least, most = work.splits(sizes)
    assert made["rollouts"] == pytest.approx(least.answers + least.onward)
    assert made["fits"] == least.fits
    for name in ("R1", "R4", "R5", "R7"):
        made.clear()
        EXPERIMENTS[name](study)
        least, most = work.EXPERIMENTS[name](sizes)
        assert least.answers + least.onward <= made["rollouts"] <= most.answers + most.onward, name
        assert made["fits"] == pytest.approx(most.fits, abs=4), name


@pytest.mark.parametrize(
    "command", [["demo"], ["paper", "R4", "--task", "countdown"], ["certify"]], ids=lambda c: c[0]
)
def test_commands_foresee_and_write_nothing(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pace, "SECONDS", 0.0)
    told = CliRunner().invoke(app, [*command, "--model", "countdown-rl", "--forecast"])
    assert told.exit_code == 0, told.output
    assert "forecast: " in told.output and "  time " in told.output
    assert list(tmp_path.iterdir()) == []


def test_a_registration_is_not_foreseen(tmp_path: Path):
    told = CliRunner().invoke(app, ["certify", "--forecast", "--register", str(tmp_path / "a")])
    assert isinstance(told.exception, MechRewardError)
