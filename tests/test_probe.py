"""Probes against scikit-learn, against exact values of a Markov chain, and on planted
coordinates."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import rows as made
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from mechreward.base.errors import MechRewardError
from mechreward.probing.probe import DopamineProbe, ProbeWarning, ValueProbe
from mechreward.probing.targets import Examples
from mechreward.rollouts.value import GAMMA

QUICK = {"hidden": 32, "rate": 2e-3, "epochs": 15}
LENGTH = 5


def walks(count: int, seed: int) -> Examples:
    """A symmetric random walk over states 1 to 5 from the middle; reward 1 when it leaves on the
    right. x is one-hot.

    The exact value of state i is i/6.
    """
    rng = np.random.default_rng(seed)
    state, reward, trajectory, step = [], [], [], []
    for number in range(count):
        at, path = (LENGTH + 1) // 2, []
        while 0 < at <= LENGTH:
            path.append(at - 1)
            at += int(rng.choice([-1, 1]))
        state += path
        reward += [int(at > LENGTH)] * len(path)
        trajectory += [number] * len(path)
        step += range(len(path))
    columns = [np.array(column) for column in (reward, trajectory, trajectory, step)]
    last = np.append(columns[1][1:] != columns[1][:-1], True)
    return Examples(torch.eye(LENGTH)[state], np.array(reward, float), *columns, last)


def certain(data: Examples) -> np.ndarray:
    """What TD must reach: the value of each state in the Markov chain of observed frequencies,
    solved exactly."""
    state = data.x.argmax(1).numpy()
    ahead, right = np.zeros((LENGTH, LENGTH)), np.zeros(LENGTH)
    for row, at in enumerate(state):
        if data.last[row]:
            right[at] += data.reward[row]
        else:
            ahead[at, state[row + 1]] += 1
    visits = np.bincount(state, minlength=LENGTH)
    return np.linalg.solve(np.eye(LENGTH) - GAMMA * ahead / visits[:, None], right / visits)


def test_td_reaches_the_fixed_point_and_not_the_average_return():
    data = walks(40, seed=1)
    state = data.x.argmax(1).numpy()
    average = np.array([data.reward[state == at].mean() for at in range(LENGTH)])
    expected = certain(data)
    assert np.abs(expected - average).max() > 0.05, "this sample cannot tell the two apart"
    linear = {"shape": "linear", "ridge": 1e-6}
    td = ValueProbe("td", **linear).fit_examples(data).predict(torch.eye(LENGTH))
    terminal = ValueProbe("terminal", **linear).fit_examples(data).predict(torch.eye(LENGTH))
    assert td == pytest.approx(expected, abs=3e-3)
    assert terminal == pytest.approx(average, abs=1e-3)


def test_td_finds_the_exact_values_of_a_random_walk():
    data = walks(3000, seed=2)
    exact = np.arange(1, LENGTH + 1) / (LENGTH + 1)
    for target in ("td", "terminal"):
        probe = ValueProbe(target, shape="linear", ridge=1e-6).fit_examples(data)
        assert probe.predict(torch.eye(LENGTH)) == pytest.approx(exact, abs=0.03)


def test_td_with_the_mlp_finds_the_exact_values_of_a_random_walk():
    data = walks(400, seed=2)
    probe = ValueProbe("td", hidden=16, rate=1e-2, epochs=40, batch=50).fit_examples(data)
    assert probe.predict(torch.eye(LENGTH)) == pytest.approx(certain(data), abs=0.08)


def test_td_of_one_step_is_the_terminal_reward():
    data = made.planted(60, states=1)
    for shape in ("linear", "mlp"):
        td, terminal = (
            ValueProbe(t, shape=shape, **QUICK).fit_examples(data) for t in ("td", "terminal")
        )
        assert np.array_equal(td.predict(data.x), terminal.predict(data.x))


def test_td_lambda_lies_between_td_and_terminal():
    """At lambda 0 it is TD, at 1 terminal (but for gamma), and in between it moves from one to the
    other."""
    data, linear = walks(40, seed=1), {"shape": "linear", "ridge": 1e-6}
    states = torch.eye(LENGTH)
    td, terminal = (
        ValueProbe(t, **linear).fit_examples(data).predict(states) for t in ("td", "terminal")
    )
    by = {
        lam: ValueProbe("td-lambda", lam=lam, **linear).fit_examples(data).predict(states)
        for lam in (0.0, 0.5, 0.9, 1.0)
    }
    assert by[0] == pytest.approx(td, abs=1e-6) and by[1] == pytest.approx(terminal, abs=1e-3)
    away = [np.abs(by[lam] - terminal).max() for lam in (0.0, 0.5, 0.9, 1.0)]
    assert away == sorted(away, reverse=True)


def test_lambda_out_of_range():
    with pytest.raises(MechRewardError, match="lam is lambda"):
        ValueProbe("td-lambda", lam=1.5).fit_examples(made.planted(20))


def test_a_near_constant_fit_warns_with_its_figures():
    x, trajectory, step = torch.eye(5)[:, :2], [0, 0, 0, 1, 1], [0, 1, 2, 0, 1]
    acts = made.activations(x, trajectory=trajectory, step=step)
    values = made.two()
    said = (
        r"mc probe is near constant: its read-out has standard deviation \S+e-\d+ over the 3 rows"
    )
    with pytest.warns(ProbeWarning, match=said):
        ValueProbe("mc", "linear", ridge=1e6).fit(acts, values)
    with pytest.warns(ProbeWarning, match=r"td probe .*, or target='mc'\.$"):
        ValueProbe("td", "linear", ridge=1e6).fit(acts, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ValueProbe("mc", "linear", ridge=1e-6).fit(acts, values)


@pytest.mark.parametrize(("target", "column"), [("mc", "y"), ("terminal", "reward")])
def test_linear_is_sklearns_ridge_on_standardised_inputs(target, column):
    data = made.planted(150, states=2)
    data = replace(data, x=data.x * torch.linspace(0.1, 50, 32) + torch.linspace(-30, 30, 32))
    probe = ValueProbe(target, shape="linear", ridge=0.3).fit_examples(data)
    scaler = StandardScaler().fit(data.x.double().numpy())
    inputs = scaler.transform(data.x.double().numpy())
    reference = Ridge(alpha=0.3 * len(data)).fit(inputs, getattr(data, column))
    assert probe.predict(data.x) == pytest.approx(reference.predict(inputs), abs=1e-4)
    assert probe.scores_ == pytest.approx(np.abs(reference.coef_), abs=1e-4)
    other = made.planted(40, seed=9).x
    expected = reference.predict(scaler.transform(other.double().numpy()))
    assert probe.predict(other) == pytest.approx(expected, abs=1e-3), (
        "new rows must use the training split's scale"
    )


def test_scores_are_the_l1_norms_of_the_first_layers_columns():
    data = made.planted(60)
    mlp = ValueProbe(**QUICK).fit_examples(data)
    assert mlp.scores_ == pytest.approx(
        [sum(abs(float(w)) for w in column) for column in mlp.net_[0].weight.detach().T], rel=1e-5
    )
    assert tuple(mlp.net_[0].weight.shape) == (32, 32)


@pytest.mark.parametrize("target", ["mc", "terminal"])
@pytest.mark.parametrize("shape", ["linear", "mlp"])
def test_planted_coordinates_come_first(target, shape):
    data = made.planted(1500, carriers=(5, 17))
    probe = ValueProbe(target, shape=shape, hidden=64, rate=2e-3, epochs=6).fit_examples(data)
    assert set(np.argsort(-probe.scores_)[:2]) == {5, 17}
    test = made.planted(300, carriers=(5, 17), seed=1)
    assert np.corrcoef(probe.predict(test.x), test.y)[0, 1] > (0.85 if target == "mc" else 0.7)


@pytest.mark.parametrize("shape", ["linear", "mlp"])
def test_the_scale_of_a_neuron_does_not_change_its_rank(shape):
    data = made.planted(200, carriers=(5, 17))
    factor = torch.ones(32)
    factor[3], factor[5] = 1000.0, 0.001
    plain = ValueProbe(shape=shape, **QUICK).fit_examples(data)
    scaled = ValueProbe(shape=shape, **QUICK).fit_examples(
        replace(data, x=data.x * factor + 3 * factor)
    )
    assert scaled.scores_ == pytest.approx(plain.scores_, rel=1e-2, abs=1e-4)
    assert np.argsort(-scaled.scores_)[:2].tolist() == np.argsort(-plain.scores_)[:2].tolist()


@pytest.mark.parametrize("constant", [0.0, 1.0, 1234.567, -1e-3])
@pytest.mark.parametrize("shape", ["linear", "mlp"])
def test_a_constant_neuron_scores_0_and_is_not_read(shape, constant):
    data = made.planted(77)
    data.x[:, 9] = constant
    probe = ValueProbe(shape=shape, hidden=8, epochs=2).fit_examples(data)
    assert probe.scores_[9] == 0
    assert (np.delete(probe.scores_, 9) > 0).all()
    changed = data.x.clone()
    changed[:, 9] += 100
    assert np.array_equal(probe.predict(changed), probe.predict(data.x))


def test_a_fit_is_decided_by_its_seed_and_leaves_the_global_generator_alone():
    data = made.planted(60, states=3)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = ValueProbe("td", **QUICK, seed=4).fit_examples(data)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    again = ValueProbe("td", **QUICK, seed=4).fit_examples(data)
    other = ValueProbe("td", **QUICK, seed=5).fit_examples(data)
    assert np.array_equal(first.predict(data.x), again.predict(data.x))
    assert np.array_equal(first.scores_, again.scores_)
    assert not np.allclose(first.scores_, other.scores_)


@pytest.mark.parametrize(
    "probe",
    [
        ValueProbe("terminal", "linear", 7, 0.5, 1e-2, 3, 9, 11),
        DopamineProbe(0.3, "linear", 7, 0.5, 1e-2, 3, 9, 11),
    ],
)
def test_sklearn_clone_and_parameters(probe):
    parameters = probe.get_params()
    kept = {
        "shape": "linear",
        "hidden": 7,
        "ridge": 0.5,
        "rate": 1e-2,
        "epochs": 3,
        "batch": 9,
        "seed": 11,
    }
    assert parameters == kept | (
        {"cut": 0.3} if isinstance(probe, DopamineProbe) else {"target": "terminal", "lam": 0.9}
    )
    data = made.planted(30)
    fitted = probe.fit_examples(replace(data, y=data.y - 0.5))
    fresh = clone(fitted)
    assert type(fresh) is type(probe)
    assert fresh.get_params() == parameters
    assert not hasattr(fresh, "net_")
    assert fresh.set_params(hidden=5).hidden == 5
    assert fitted.score(data.x, fitted.predict(data.x)) == pytest.approx(1)


def test_fit_takes_activations_and_remembers_where_they_are_from():
    acts = made.activations(torch.randn(5, 3), trajectory=[0, 0, 0, 1, 1], step=[0, 1, 2, 0, 1])
    probe = ValueProbe("mc", "linear").fit(acts, made.two())
    assert (probe.site_, probe.model_id_) == (acts.site, acts.model_id)
    assert np.array_equal(probe.predict(acts), probe.predict(acts.x))
    assert np.array_equal(probe.predict(acts), probe.predict(acts.x.numpy()))
    steps = made.activations(torch.randn(3, 3), "steps", trajectory=[0, 0, 1], step=[1, 2, 1])
    dopamine = DopamineProbe(shape="linear").fit(steps, made.two())
    assert (dopamine.site_, dopamine.model_id_) == (steps.site, steps.model_id)
    with pytest.raises(MechRewardError, match="rows='states' are needed"):
        ValueProbe().fit(steps, made.two())


def test_a_failed_fit_leaves_the_fitted_probe_as_it_was():
    acts = made.activations(torch.randn(5, 3), trajectory=[0, 0, 0, 1, 1], step=[0, 1, 2, 0, 1])
    probe = ValueProbe("mc", "linear").fit(acts, made.two())
    elsewhere = replace(acts, model_id=made.OTHER)
    with pytest.raises(MechRewardError, match="right answers"):
        probe.fit(elsewhere, replace(made.two(), reward=np.ones(5, int)))
    assert probe.model_id_ == made.MODEL


def test_predict_before_fit_and_with_another_width():
    with pytest.raises(MechRewardError, match="not fitted yet"):
        ValueProbe().predict(torch.zeros(1, 3))
    probe = ValueProbe(shape="linear").fit_examples(made.planted(30))
    with pytest.raises(MechRewardError, match="reads 32 neurons; 31 were given"):
        probe.predict(torch.zeros(2, 31))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("probe", "told"),
    [
        (ValueProbe().set_params(target="mcc"), "unknown probe target 'mcc'; did you mean 'mc'"),
        (
            ValueProbe().set_params(shape="liner"),
            "unknown probe shape 'liner'; did you mean 'linear'",
        ),
        (DopamineProbe().set_params(shape="mpl"), "unknown probe shape 'mpl'; did you mean 'mlp'"),
    ],
)
def test_unknown_targets_and_shapes(probe, told):
    with pytest.raises(MechRewardError, match=told):
        probe.fit_examples(made.planted(30))


@pytest.mark.parametrize("reward", [0, 1])
def test_nothing_to_learn(reward):
    data = made.planted(30)
    for probe in (ValueProbe("td"), ValueProbe("mc"), DopamineProbe()):
        with pytest.raises(MechRewardError, match="all 30 states belong to"):
            probe.fit_examples(replace(data, reward=np.full(30, reward)))


def test_the_cut_of_the_dopamine_probe():
    data = made.planted(120)
    data = replace(data, y=data.y - 0.5)
    cut = DopamineProbe(0.3, "linear").fit_examples(data)
    by_hand = DopamineProbe(0.0, "linear").fit_examples(data.only(np.abs(data.y) > 0.3))
    assert np.array_equal(cut.scores_, by_hand.scores_)
    assert not np.allclose(cut.scores_, DopamineProbe(0.0, "linear").fit_examples(data).scores_)
    largest = np.abs(data.y).max()
    with pytest.raises(
        MechRewardError, match=rf"no step has \|delta\| > 0.9; the largest is {largest:.3f}"
    ):
        DopamineProbe(0.9).fit_examples(data)


def test_the_dopamine_probe_finds_the_planted_coordinates():
    data = made.planted(500, carriers=(5, 17))
    probe = DopamineProbe().fit_examples(replace(data, y=data.y - 0.5))
    assert set(np.argsort(-probe.scores_)[:2]) == {5, 17}
