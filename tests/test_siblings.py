"""The siblings test: hand arithmetic on a made table, and planted models whose V is exact."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.experiments.rows import Results, Setting
from mechreward.experiments.siblings import sibling_rows
from mechreward.models.identity import model_id
from mechreward.report.figures import pictures
from mechreward.report.findings.search import sibling_steps as rule
from mechreward.report.tables import sibling_steps
from mechreward.studies.folder import Folder
from mechreward.studies.pictured import SIBLINGS, draw
from mechreward.tasks import TextTask
from mechreward.testbed.process import WORDS
from mechreward.uses.search.scorers import Outside
from mechreward.uses.siblings import Siblings

TASK = tiny.Even()
PROBLEMS = TASK.problems("train", 12)


@cache
def plant():
    return mr.testbed.planted("value")


def exact(prompt: str, steps: list[str]) -> list[float]:
    """V after every step."""
    scores = []
    for number in range(1, len(steps) + 1):
        words = " ".join([prompt, *steps[:number]]).split()
        tokens = [WORDS.index(word) for word in words if word != "<eos>"]
        scores.append(plant().truth.value(torch.tensor(tokens)))
    return scores


@pytest.fixture(scope="module")
def drawn():
    """Of 50 states, with five scorers."""
    here = plant()
    scorers = {
        "exact": exact,
        "worst": lambda prompt, steps: [-v for v in exact(prompt, steps)],
        "random": "random",
        "certainty": "self_certainty",
    }
    problems = here.task.problems("test", 60)
    return mr.siblings(here.model, problems, scorers, states=50, k=3, seed=2, progress=False)


def table(**columns) -> Siblings:
    """Two states: three steps, the last of which ended the answer; and two steps."""
    made = Siblings(
        state=np.array([0, 0, 0, 1, 1]),
        candidate=np.array([0, 1, 3, 0, 2]),
        first=np.array([0.0, 0.5, 1.0, 0.25, 0.25]),
        second=np.array([0.25, 0.0, 1.0, 0.75, 0.5]),
        n=np.array([8, 8, 0, 8, 8]),
        scores={"one": np.array([3.0, 2.0, 1.0, 1.0, 0.0])},
        texts=("a", "b", "c", "d", "e"),
        problem_ids=("p", "q"),
        steps=(0, 2),
        k=4,
        seed=0,
        policy=mr.Policy(),
        model_id=model_id(plant().model),
    )
    return replace(made, **columns)


def test_rates_by_hand():
    """The first half chooses: in state 0 all three pairs differ; the second half orders them
    a > b, c > a, c > b. The score orders a > b > c: 1 of 3. In state 1 nothing differs.

    The second half chooses: the same three pairs, which the first half orders b > a, c > a, c > b:
    0 of 3; and in state 1 d > e, where the first half has a tie: 1/2."""
    rates = table().rates().set_index("scorer")
    one, half = rates.loc["one"], rates.loc["other half"]
    assert one["states"] == 2 and one["pairs"] == 7
    assert one["rate"] == pytest.approx((1 + 0 + 0.5) / 7)
    # V-hat of the half that chooses: 2 of 3 both ways, and one tie.
    assert half["rate"] == pytest.approx((2 + 2 + 0.5) / 7)
    # The score picks a, worth .25 and 0; siblings are worth 1.25 / 3 and .5 on average. And d.
    state0 = ((0.25 - 1.25 / 3) + (0.0 - 0.5)) / 2
    state1 = ((0.75 - 0.625) + 0.0) / 2
    assert one["gain"] == pytest.approx((state0 + state1) / 2)
    # The best of the other half: c both times; in state 1 first a tie, then d, which is no better.
    best = ((1 - 1.25 / 3) + (1 - 0.5)) / 2
    assert half["gain"] == pytest.approx((best + 0.0) / 2)
    chance = rates.loc["chance"]
    assert chance["rate"] == chance["clear"] == 0.5 and chance["gain"] == 0
    assert chance["rate_low"] == chance["rate_high"] == 0.5


def test_clear_pairs_by_hand():
    """Errors are sqrt(p (1 - p) / 4) of p = (successes + 1) / 6. The first half: .186 at 0 of 4,
    .25 at 2 of 4, 0 where the answer ended: a and b differ by 1.6 errors, a and c by 5.4, b and c
    by 2.0. The second: .236 at 1 of 4, so that a and c differ by 3.2, b and c by 5.4, a and b by
    .8; d and e by .7."""
    one = table().rates().set_index("scorer").loc["one"]
    assert one["clear_pairs"] == 4 and one["clear"] == 0
    half = table().rates().set_index("scorer").loc["other half"]
    assert half["clear"] == 1


def test_ties_of_a_scorer_count_one_half():
    rates = table(scores={"same": np.ones(5)}).rates().set_index("scorer")
    assert rates.loc["same", "rate"] == 0.5
    assert rates.loc["same", "gain"] == pytest.approx(0)


def test_a_state_with_one_step_has_no_siblings():
    made = table(state=np.array([0, 0, 0, 1, 2]), problem_ids=("p", "q", "r"), steps=(0, 0, 0))
    assert set(made.rates()["states"]) == {1}
    with pytest.raises(MechRewardError, match="nothing can be compared"):
        table(state=np.arange(5), problem_ids=tuple("pqrst"), steps=(0,) * 5).rates()


def test_exact_value_is_right_about_pairs_that_are_clear(drawn):
    """And its negative is as wrong. The rate over all pairs is what the noise of V-hat leaves."""
    rates = drawn.rates().set_index("scorer")
    assert rates.loc["exact", "clear"] > 0.95
    assert rates.loc["exact", "clear_pairs"] > 30
    assert rates.loc["worst", "clear"] == pytest.approx(1 - rates.loc["exact", "clear"])
    assert rates.loc["exact", "rate"] > rates.loc["other half", "rate"] > 0.6
    assert rates.loc["exact", "gain"] > rates.loc["other half", "gain"] > 0.05


def test_the_gain_of_exact_value_is_its_own(drawn):
    """The best exact V less the mean one, over states: no V-hat is needed. The gain that is
    measured differs by noise alone (a 4-sigma bound: 1 in 16,000)."""
    frame = drawn.frame()
    by_state = frame.groupby("state")["exact"]
    several = by_state.count() > 1
    expected = (by_state.max() - by_state.mean())[several]
    line = drawn.rates().set_index("scorer").loc["exact"]
    # A mean over 32 continuations of a picked step, and of its siblings.
    deviation = 0.5 * np.sqrt((1 + 1 / 3) / 32 / several.sum())
    assert abs(line["gain"] - expected.mean()) < 4 * deviation


def test_chance_and_log_probability_stand_beside(drawn):
    """Random scores are right half the time, within a 95% interval: 1 in 20 for another seed."""
    rates = drawn.rates().set_index("scorer")
    assert list(rates.index) == [*drawn.scores, "other half", "chance"]
    assert "logprob" in drawn.scores
    random = rates.loc["random"]
    assert random["rate_low"] < 0.5 < random["rate_high"]
    assert random["gain_low"] < 0 < random["gain_high"]
    logprob = rates.loc["logprob"]
    assert 0 < logprob["rate_low"] < logprob["rate"] < logprob["rate_high"] < 1
    assert rates.loc["exact", "rate_low"] > logprob["rate_high"]


def test_values_are_those_of_the_process(drawn):
    """V-hat less V, in binomial errors, has variance 1 (some hundred steps: outside .7 to 1.3
    with a chance of under 1 in 100); steps that end the answer are worth their reward."""
    frame = drawn.frame()
    live = frame[frame["n"] > 0]
    assert set(live["n"]) == {32}
    v = live["exact"].to_numpy()
    for half in ("first", "second"):
        z = (live[half] - v) / np.sqrt(v * (1 - v) / 16)
        assert 0.7 < np.mean(z**2) < 1.3
    over = frame[frame["n"] == 0]
    assert (over["first"] == over["second"]).all()
    assert (over["first"] == over["exact"]).all()


def test_states_are_of_different_problems_and_steps_differ(drawn):
    frame = drawn.frame()
    assert len(set(drawn.problem_ids)) == len(drawn.problem_ids) == 50
    assert not frame.duplicated(["state", "text"]).any()
    assert frame["candidate"].between(0, 2).all()
    assert 0 < np.mean(np.array(drawn.steps) > 0) < 1


def test_scorers_of_one_site_read_their_own_neurons(tiny_model):
    """Two sets and a probe at one site, against a pass of TransformerLens."""
    site = mr.Site(1, "resid_post")
    runs = mr.sample(tiny_model, TASK.problems("validation", 40), progress=False)
    values = mr.estimate(tiny_model, runs, k=4, progress=False)
    acts = mr.record(tiny_model, runs, [site], progress=False)[str(site)]
    probe = mr.ValueProbe("mc", "linear").fit(acts, values)
    few, more = mr.select(probe, top=0.1), mr.select(probe, top=0.3)
    tested = mr.sample(tiny_model, PROBLEMS, progress=False)
    scorers = {"few": few, "more": more, "probe": probe}
    made = mr.siblings(tiny_model, tested, scorers, continuations=2, k=2, progress=False)
    by_problem = {run.problem_id: run for run in tested}
    compared = 0
    for row in made.frame().to_dict("records"):
        run = by_problem[row["problem_id"]]
        begun = run.tokens[: run.step_ends[row["step"]] + 1]
        begun_text = tiny_model.tokenizer.decode(begun.tolist())
        text = begun_text + row["text"]
        tokens = torch.tensor(tiny_model.tokenizer(text, add_special_tokens=False).input_ids)
        if row["n"] == 0 or not torch.equal(tokens[: len(begun)], begun):
            continue  # the text lacks the token that ended it
        compared += 1
        _, cache = tiny_model.run_with_cache(tokens[None])
        x = cache[site.hook][0, -1]
        for name, neurons in (("few", few), ("more", more)):
            direction = torch.tensor(neurons.direction)
            by_hand = float((x[list(neurons.indices)] / direction).mean())
            assert row[name] == pytest.approx(by_hand, abs=2e-3)
        assert row["probe"] == pytest.approx(float(probe.predict(x[None])[0]), abs=2e-3)
    assert compared > 5


def test_batches_and_other_scorers_change_nothing(tiny_model):
    options = {"states": 6, "continuations": 4, "progress": False}
    one = mr.siblings(tiny_model, PROBLEMS, batch=3, **options)
    other = mr.siblings(tiny_model, PROBLEMS, "length", **options)
    assert one.texts == other.texts and set(other.scores) == {"length", "logprob"}
    for name in ("state", "candidate", "first", "second", "n"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.scores["logprob"], other.scores["logprob"], atol=1e-4)
    again = mr.siblings(tiny_model, PROBLEMS, seed=1, **options)
    assert again.texts != one.texts


def test_saved_and_loaded(drawn, tmp_path):
    again = Siblings.load(drawn.save(tmp_path / "s.safetensors"))
    assert again.frame().equals(drawn.frame())
    assert repr(again) == repr(drawn) and "50 states" in repr(again)
    assert again.policy == drawn.policy and again.model_id == drawn.model_id
    runs = mr.sample(plant().model, plant().task.problems("test", 2), progress=False)
    with pytest.raises(MechRewardError, match="rollouts"):
        Siblings.load(runs.save(tmp_path / "r.safetensors"))


def fails(prompt: str, steps: list[str]) -> list[float]:
    return [float("nan")] * len(steps)


WRONG = {
    "k": ({"k": 1}, "at least 2"),
    "continuations": ({"continuations": 1}, "at least 2"),
    "states": ({"states": 0}, "at least 1"),
    "whole answers": ({"scorers": "oracle"}, "whole answers"),
    "unknown": ({"scorers": "log_prob"}, "logprob"),
    "two of a name": ({"scorers": ["length", "length"]}, "mapping"),
    "reserved": ({"scorers": {"chance": "length"}}, "taken"),
    "none": ({"scorers": [None]}, "no scorer"),
    "policy": ({"policy": 1.0}, "policy"),
    "problems": ({"runs": []}, "no problems"),
    "fails": ({"scorers": Outside("bad", fails)}, "'bad' gave nan"),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_told_in_one_line(tiny_model, name: str):
    options, wanted = WRONG[name]
    given = {"runs": PROBLEMS[:3], "progress": False, "continuations": 2, **options}
    with pytest.raises(MechRewardError, match=wanted) as caught:
        mr.siblings(tiny_model, **given)
    assert "\n" not in str(caught.value)


def test_a_verifier_is_needed(tiny_model):
    rows = [{"question": problem.prompt} for problem in PROBLEMS]
    task = TextTask(rows, verify=None, max_tokens=16)
    with pytest.raises(MechRewardError, match="no verifier"):
        mr.siblings(tiny_model, task.rows, progress=False)


def test_rollouts_of_another_model_are_refused(tiny_model):
    runs = mr.sample(plant().model, plant().task.problems("test", 2), progress=False)
    with pytest.raises(MechRewardError, match="set of rollouts"):
        mr.siblings(tiny_model, runs, progress=False)


def test_rows_table_and_findings(drawn):
    """Rows say what the table of rates says; Holm is over the scorers, not over what has none."""
    setting = Setting(experiment="R11", model="planted", task="walk", site="", seed=2)
    rows = sibling_rows(drawn, setting)
    rates = drawn.rates().set_index("scorer")
    by_arm = {row.arm: row for row in rows if row.metric == "sibling_rate"}
    assert set(by_arm) == set(drawn.scores) | {"other half"}
    assert by_arm["exact"].estimate == rates.loc["exact", "rate"]
    scorers = [name for name in rates.index if name not in ("chance", "other half")]
    largest = 0.0
    for place, name in enumerate(sorted(scorers, key=lambda name: rates.loc[name, "p"])):
        largest = max(largest, min(1.0, (len(scorers) - place) * rates.loc[name, "p"]))
        assert by_arm[name].detail["p_holm"] == pytest.approx(largest)
    clear = next(row for row in rows if row.arm == "worst" and row.metric == "sibling_clear")
    assert clear.detail["pairs"] == rates.loc["worst", "clear_pairs"]
    results = Results({}, tuple(rows))
    assert len(sibling_steps(results).lines) == len(by_arm)
    (picture,) = pictures(results)
    assert picture[1] == "R11-siblings" and "certainty" in picture[2]
    found = [finding for finding in rule(results) if finding.holds]
    assert [finding.sentence.split()[2] for finding in found] == ["exact"]


def test_p_of_a_rate_by_hand():
    """State 0 is right in 1 of 6 pairs, state 1 in half of 1: of the two flips of the one state
    that says anything both are as large."""
    assert table().rates().set_index("scorer").loc["one", "p"] == 1.0
    assert not sibling_rows(
        table(first=np.zeros(5), second=np.zeros(5)),
        Setting(experiment="R11", model="m", task="t", site="", seed=0),
    )


def test_a_run_leaves_their_picture(drawn, tmp_path):
    """From the kept noun, again at every call; nothing where nothing is kept."""
    folder = Folder(tmp_path / "run")
    folder.begin({"plan": "made up"})
    draw(folder, Results({}, ()))
    assert not list(folder.path.glob("figure-*"))
    folder.kept(SIBLINGS, Siblings, lambda: drawn)
    for _ in range(2):
        draw(Folder(folder.path), Results({}, ()))
    names = sorted(path.name for path in folder.path.glob("figure-*"))
    assert names == ["figure-R11-siblings.csv", "figure-R11-siblings.svg"]
    marks = pd.read_csv(folder.path / "figure-R11-siblings.csv")
    exact = marks[(marks["label"] == "exact") & (marks["mark"] == "dot")]
    rates = drawn.rates().set_index("scorer").loc["exact"]
    assert exact["x"].tolist() == pytest.approx([rates["rate"], rates["clear"], rates["gain"]])
