"""Python mistakes get one line that says what was given and what is possible, before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rows as made
import tiny
import torch

import mechreward as mr
from mechreward import tasks
from mechreward.base.errors import MechRewardError, shown, whole
from mechreward.base.streams import rng, stream
from mechreward.causal.effect import ablate
from mechreward.experiments.plan import Plan
from mechreward.models.policy import Policy
from mechreward.probing.activations import Recording
from mechreward.probing.targets import states, steps, tokens
from mechreward.studies.bench import bench
from mechreward.studies.calibrate import Calibration, calibrate
from mechreward.studies.study import Study
from mechreward.tasks import Problem

pytestmark = pytest.mark.unchecked
EVEN = tiny.Even()
PROBLEMS = EVEN.problems("test", 2)


def one_line(call: Callable[[], object], *words: str) -> None:
    """The call is refused in one line with all the words."""
    with pytest.raises(MechRewardError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.fixture(scope="module")
def runs(tiny_model):
    return mr.sample(tiny_model, PROBLEMS, progress=False)


@pytest.fixture(scope="module")
def values(tiny_model, runs):
    return mr.estimate(tiny_model, runs, k=2, progress=False)


@pytest.fixture(scope="module")
def recording(tiny_model, runs):
    return mr.record(tiny_model, runs, ["0.mlp", "1.resid_post"], progress=False)


@pytest.fixture
def never(monkeypatch):
    """No work is begun."""

    def fail(*_: Any, **__: Any) -> None:
        pytest.fail("it began to work")

    monkeypatch.setattr("mechreward.rollouts.sample.generate", fail)
    monkeypatch.setattr("mechreward.rollouts.value.generate", fail)
    monkeypatch.setattr("mechreward.probing.activations.forward", fail)


BAD = [2.5, 2.0, "3", None, True, [1], np.float64(2), torch.ones(2)]


@pytest.mark.parametrize("given", BAD, ids=repr)
@pytest.mark.parametrize("name", ["k", "seed", "batch"])
def test_sizes_and_seeds_of_the_verbs_are_whole(tiny_model, runs, never, name: str, given: Any):
    options = {"progress": False, name: given}
    one_line(lambda: mr.sample(tiny_model, PROBLEMS, **options), name, "whole number", shown(given))
    one_line(lambda: mr.estimate(tiny_model, runs, **options), name, "whole number")
    if name == "batch":
        one_line(lambda: mr.record(tiny_model, runs, "0.mlp", **options), name, "whole number")


def test_sizes_that_are_too_small_name_their_option(tiny_model, runs, never):
    one_line(lambda: mr.sample(tiny_model, PROBLEMS, k=-1), "k counts", "at least 1; -1 was given")
    one_line(lambda: mr.sample(tiny_model, PROBLEMS, batch=0), "batch counts", "at least 1; 0")
    one_line(lambda: mr.estimate(tiny_model, runs, k=-4), "k counts", "at least 1; -4")
    one_line(lambda: EVEN.problems("test", -3), "n=-3")


@pytest.mark.parametrize("name", ["seed", "train", "test", "k", "n", "draws", "pairs"])
def test_sizes_of_a_certificate_are_whole(tiny_model, never, name: str):
    neurons = mr.NeuronSet(mr.Site(0, "mlp"), (1,), 48, identity(tiny_model))
    one_line(
        lambda: mr.certify(tiny_model, EVEN, neurons, **{name: 0.5}), name, "whole number", "0.5"
    )


@pytest.mark.parametrize("name", ["seed", "draws", "random_draws"])
def test_sizes_of_an_ablation_are_whole(tiny_model, never, name: str):
    neurons = mr.NeuronSet(mr.Site(0, "mlp"), (1,), 48, identity(tiny_model))
    one_line(lambda: ablate(tiny_model, PROBLEMS, neurons, **{name: 1.5}), name, "whole number")


def identity(model: Any) -> Any:
    from mechreward.models.identity import model_id

    return model_id(model)


def test_numpys_whole_numbers_are_sizes_and_can_be_kept(tiny_model, tmp_path: Path, runs):
    same = mr.sample(tiny_model, PROBLEMS, k=np.int64(1), seed=np.int64(0), progress=False)
    again = mr.Rollouts.load(same.save(tmp_path / "runs"), EVEN)
    assert [run.tokens.tolist() for run in again] == [run.tokens.tolist() for run in runs]
    assert type(whole("k", np.int32(3))) is int


@pytest.mark.parametrize("field", ["seed", "test", "k"])
def test_sizes_of_a_run_are_whole(tmp_path: Path, field: str):
    plan = replace(Plan(train=2, validation=2, test=2, ablated=2, confidence=2), **{field: 2.5})
    one_line(lambda: Study.open(plan, tmp_path / "run", say=print), field, "whole number", "2.5")
    assert not (tmp_path / "run").exists()


def test_sizes_of_bench_and_calibration_are_whole(tmp_path: Path):
    from mechreward.bench.ground import BenchSizes

    one_line(lambda: bench(tmp_path, sizes=BenchSizes(batch=1.5)), "batch", "1.5")
    one_line(lambda: calibrate(tmp_path, Calibration(seeds=0.5)), "seeds", "0.5")


def test_half_a_seed_is_no_seed():
    for make in (rng, stream):
        one_line(lambda make=make: make("purpose", 0.5), "seed", "whole number", "0.5")
    one_line(lambda: EVEN.problems("test", 2, seed=0.5), "seed", "0.5")
    one_line(lambda: EVEN.problems("test", 2.5), "n must be a whole number; 2.5")
    one_line(lambda: tasks.Countdown().problems("test", "7"), "n must be a whole number; '7'")
    one_line(lambda: mr.ValueProbe(seed=0.5).fit_examples(made.planted(30)), "seed", "0.5")


def test_sizes_of_a_choice_are_whole(tiny_model, never):
    for name in ("train", "validation", "k", "seed"):
        call = lambda name=name: mr.paper.find(tiny_model, EVEN, **{name: 0.5})  # noqa: E731
        one_line(call, f"{name} must be a whole number; 0.5 was given")
    one_line(lambda: mr.paper.find(tiny_model, EVEN, train=-2), "train must be at least 1; -2")
    one_line(lambda: mr.paper.find(tiny_model, "even"), "task must be Task; 'even' was given")


def test_sizes_of_tasks():
    for make in (tasks.Countdown, tasks.Chain, tasks.Paths):
        one_line(lambda make=make: make(3), "must be Sequence; 3 was given")
    one_line(lambda: tasks.Chain((1, 2, 3)), "two numbers")
    one_line(lambda: tasks.Countdown(sizes=(3, 2.5)), "a size must be a whole number; 2.5")
    one_line(lambda: tasks.Countdown(sizes=()), "at least one size")
    one_line(lambda: tasks.Countdown(largest=1.5), "largest", "1.5")
    one_line(lambda: tasks.Chain((4, 3)), "the most operations must be at least 4; 3 was given")
    one_line(lambda: tasks.Chain((1.5, 3)), "the fewest operations", "1.5")
    one_line(lambda: tasks.Paths((0, 1.5)), "a degree must be a whole number; 1.5")


# Sites


@pytest.mark.parametrize("given", [3, 3.0, None, b"1.mlp", ("3", "mlp"), [3, "mlp"]], ids=repr)
def test_a_site_is_no_number(tiny_model, runs, recording, never, given: Any):
    one_line(lambda: mr.Site.parse(given), "a site must be Site or str", shown(given), "3.mlp")
    one_line(lambda: recording[given], "a site must be Site or str")
    if not isinstance(given, tuple | list):
        one_line(lambda: mr.record(tiny_model, runs, given), "a site must be Site or str")


def test_parts_of_a_site(recording):
    one_line(lambda: mr.Site("3", "mlp"), "a site's layer must be a whole number; '3' was given")
    one_line(lambda: mr.Site(1.5, "mlp"), "a site's layer", "1.5")
    one_line(lambda: mr.Site(1, 7), "unknown site kind '7'")
    one_line(lambda: recording["3"], "unknown site kind ''", "resid_post")


def test_a_neuron_set_needs_a_site(tiny_model):
    one_line(
        lambda: mr.NeuronSet("0.mlp", (1,), 48, identity(tiny_model)),
        "the site of a neuron set must be Site; '0.mlp' was given",
        "Site.parse",
    )
    one_line(lambda: mr.NeuronSet(mr.Site(0, "mlp"), (1,), 48, "tiny"), "model_id", "'tiny'")


# Hooks


def test_an_intervention_is_no_list_of_hooks(tiny_model, runs, never):
    change = mr.zero(mr.NeuronSet(mr.Site(0, "mlp"), (1,), 48, identity(tiny_model)))
    for given in (change, [change], change.fwd_hooks()[0], [("0.mlp",)], "0.mlp", 3, {}):
        for verb, what in ((mr.sample, PROBLEMS), (mr.record, runs)):
            arguments = [tiny_model, what] + (["0.mlp"] if verb is mr.record else [])
            one_line(
                lambda verb=verb, arguments=arguments, given=given: verb(*arguments, hooks=given),
                "(name, function) pairs",
                "change.fwd_hooks()",
            )
    name = mr.Site(0, "mlp").hook
    nearly = [(name.replace("post", "pots"), lambda tensor, hook: tensor)]
    one_line(lambda: mr.sample(tiny_model, PROBLEMS, hooks=nearly), "hook name", "did you mean")


# A recording where activations of one site are wanted


def test_a_recording_is_not_one_site(tiny_model, runs, values, recording):
    neurons = mr.NeuronSet(mr.Site(1, "resid_post"), (1, 2), 32, identity(tiny_model))
    probe = mr.ValueProbe("mc", "linear").fit_examples(made.planted(30))
    for call in (
        lambda: mr.ValueProbe().fit(recording, values),
        lambda: mr.DopamineProbe().fit(recording, values),
        lambda: mr.mean(neurons, recording),
        lambda: mr.resample(neurons, recording),
        lambda: mr.patch(neurons, recording),
        lambda: mr.steer(neurons, recording, toward=values.mean),
        lambda: neurons.read(recording),
        lambda: mr.NeuronSet.of(recording, [1], "by hand"),
        lambda: states(recording, values),
        lambda: steps(recording, values),
        lambda: tokens(recording, values),
        lambda: mr.testbed.plant(recording, 0, np.ones(3), 0.5),
        lambda: probe.predict(recording),
        lambda: recording.x,
    ):
        one_line(call, "activations of one site", "recording['0.mlp']", "1.resid_post")
    assert not hasattr(recording, "nothing")
    assert isinstance(recording, Recording) and len(recording) == 2


def test_other_things_are_no_activations(tiny_model):
    neurons = mr.NeuronSet(mr.Site(1, "resid_post"), (1, 2), 32, identity(tiny_model))
    one_line(lambda: mr.mean(neurons, torch.ones(3, 32)), "reference must be Activations", "Tensor")
    one_line(lambda: neurons.read(7), "cache by hook name; 7 was given")
    one_line(lambda: neurons.read({}), "unknown hook name of this cache", "Possible: none")
    for call in (
        lambda: mr.zero([1, 2]),
        lambda: mr.scale(3, 2.0),
        lambda: mr.mean((1, 2), None),
        lambda: mr.patch("0.mlp", torch.ones(2)),
        lambda: mr.steer([1], 2.0),
        lambda: mr.Intervention([1], "zero", torch.zeros(1)),
        lambda: ablate(tiny_model, PROBLEMS, [1, 2]),
        lambda: mr.certify(tiny_model, EVEN, (1, 2)),
    ):
        one_line(call, "neurons must be NeuronSet")
    one_line(lambda: mr.certify(tiny_model, "countdown", neurons), "task must be Task; 'countdown'")
    for strength in ("2", None, True, float("nan"), [1.0]):
        one_line(lambda strength=strength: mr.zero(neurons, strength), "strength", "finite number")
    one_line(lambda: mr.scale(neurons, "2"), "factor must be a finite number; '2'")
    one_line(lambda: mr.zero(neurons).edit([1.5]), "a position must be a whole number; 1.5")
    one_line(lambda: mr.zero(neurons).edit(3), "positions must be Iterable; 3", "[position]")
    one_line(lambda: ablate(tiny_model, PROBLEMS, neurons, ops="zeros"), "did you mean 'zero'")
    one_line(lambda: mr.select(probe_of(neurons), top="1%"), "top must be a finite number; '1%'")


def probe_of(neurons: mr.NeuronSet) -> Any:
    """As good as fitted."""
    return SimpleNamespace(
        site_=neurons.site, scores_=np.ones(3), shape="linear", model_id_=neurons.model_id
    )


# Problems, models and tasks


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["2 + 2"], ("every problem must be Problem; '2 + 2' was given", "task.problems")),
        ("2 + 2", ("problems are a list of Problem; '2 + 2' was given", "task.problems")),
        (EVEN, ("problems are a list of Problem", "class Even", "task.problems")),
        (PROBLEMS[0], ("problems are a list of Problem", "class Problem")),
        (iter(PROBLEMS), ("problems are a list of Problem",)),
        ([replace(PROBLEMS[0], task="even")], ("the task of a problem must be Task; 'even'",)),
        ([replace(PROBLEMS[0], task=None)], ("belong to ''",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_texts_are_no_problems(tiny_model, never, given: Any, words: tuple[str, ...]):
    one_line(lambda: mr.sample(tiny_model, given, progress=False), *words)


def test_a_name_or_a_bare_model_is_no_model(tiny_plain, never, runs):
    for verb in (
        lambda model: mr.sample(model, PROBLEMS),
        lambda model: mr.estimate(model, runs),
        lambda model: mr.record(model, runs, "0.mlp"),
    ):
        one_line(
            lambda verb=verb: verb("countdown-rl"), "'countdown-rl' is a name", "mechreward.load"
        )
        one_line(lambda verb=verb: verb(tiny_plain), "TransformerBridge", "Qwen2ForCausalLM")
        one_line(lambda verb=verb: verb(None), "TransformerBridge", "None was given")
    change = mr.zero(made.neurons(1))
    for model in ("mixed-rl", tiny_plain):
        one_line(lambda model=model: change.check(model), "model")


def test_rollouts_are_wanted(tiny_model, never):
    one_line(lambda: mr.estimate(tiny_model, PROBLEMS), "runs must be Rollouts", "class list")
    one_line(lambda: mr.record(tiny_model, PROBLEMS, "0.mlp"), "runs must be Rollouts")


def test_policies(tiny_model, never):
    one_line(lambda: mr.sample(tiny_model, PROBLEMS, policy=0.7), "policy must be Policy; 0.7")
    one_line(lambda: mr.sample(tiny_model, PROBLEMS, policy={}), "policy must be Policy")
    one_line(lambda: Policy(temperature="0.7"), "temperature must be a finite number; '0.7'")
    one_line(lambda: Policy(top_p=None), "top_p must be a finite number; None")
    one_line(lambda: Policy(temperature=True), "temperature must be a finite number; True")
    assert type(Policy(temperature=np.float32(0.5)).temperature) is float, "as JSON holds it"


def test_a_task_has_a_name_and_a_limit(tiny_model, never):
    class Plain(tasks.Task):
        def draw(self, rng):
            return Problem(f"p{rng.random()}", "7\n", "7")

        def verify(self, problem, text):
            return tasks.Verdict("correct")

    class Named(Plain):
        name = "named"

    class Sound(Named):
        max_tokens = 4

    one_line(lambda: Plain().problems("test", 2), "the task Plain has no name", "name = 'plain'")
    one_line(lambda: Named().problems("test", 2), "the task Named has no limit", "max_tokens")
    for wrong in (0, -1, 2.5, "4", True):
        task = Sound()
        task.max_tokens = wrong
        one_line(lambda task=task: task.problems("test", 2), "max_tokens of Sound", str(wrong))
    for wrong in (0, -1.0, "4", float("nan")):
        task = Sound()
        task.seconds = wrong
        one_line(lambda task=task: task.problems("test", 2), "seconds of Sound")
    for wrong in ("", 3, None):
        task = Sound()
        task.name = wrong
        one_line(lambda task=task: task.problems("test", 2), "has no name")
    asked = [replace(problem, task=Named()) for problem in PROBLEMS]
    one_line(lambda: mr.sample(tiny_model, asked), "the task Named has no limit")


def test_what_a_task_draws():
    class Texts(tiny.Even):
        def draw(self, rng):
            return "2 + 2"

    one_line(lambda: Texts().problems("test", 1), "what even draws must be Problem", "'2 + 2'")


LOOP: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("info", "where"),
    [
        ({"seen": {1, 2}}, "info['seen'] is an object of class set"),
        ({"grid": [[0, np.int64(3)]]}, "info['grid'][0][1] is an object of class int64"),
        ({"x": torch.ones(2)}, "info['x'] is an object of class Tensor"),
        ({"by": {3: "three"}}, "info['by'] has the key 3"),
        ({"f": len}, "info['f'] is an object of class builtin"),
        ({"b": b"raw"}, "info['b'] is an object of class bytes"),
    ],
    ids=str,
)
def test_info_that_json_cannot_hold_is_told_before_sampling(tiny_model, never, info, where: str):
    asked = [PROBLEMS[0], replace(PROBLEMS[1], info=info)]
    one_line(lambda: mr.sample(tiny_model, asked), where, repr(PROBLEMS[1].id), "JSON")


def test_all_else_that_is_kept_of_a_problem_is_told_too(tiny_model, never):
    asked = [replace(PROBLEMS[0], answer=np.array(4))]
    one_line(lambda: mr.sample(tiny_model, asked), "answer is an object of class ndarray")


def test_info_that_json_can_hold_comes_back(tiny_model, tmp_path: Path):
    info = {"a": [1, 2.5, None, True, {"b": "c"}], "difficulty": 2}
    made_runs = mr.sample(tiny_model, [replace(PROBLEMS[0], info=info)], progress=False)
    back = mr.Rollouts.load(made_runs.save(tmp_path / "runs"), EVEN)
    assert back.problems[0].info == info


# Difficulty


def test_a_missing_difficulty_is_told():
    one_line(lambda: Problem("p", "", "").difficulty, "no info['difficulty'] of problem 'p'")
    for wrong in ("hard", None, float("nan"), True):
        problem = Problem("p", "", "", {"difficulty": wrong})
        one_line(lambda problem=problem: problem.difficulty, "info['difficulty']", "number")
    assert Problem("p", "", "", {"difficulty": np.int64(3)}).difficulty == 3
