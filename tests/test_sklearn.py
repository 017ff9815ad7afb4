"""The contract of scikit-learn: its own checks, its tools, and plain arrays beside activations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import rows as made
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from mechreward.base.errors import MechRewardError
from mechreward.probing.activations import Recording
from mechreward.probing.probe import DopamineProbe, ValueProbe

# Checks that do not apply, with the reason. All do.
EXPECTED_FAILURES: dict[str, str] = {}
# Needs SCIPY_ARRAY_API set before scipy is imported; it looks at estimators that take GPU arrays.
SKIPPED = {"check_array_api_input"}
PROBES = [
    ValueProbe("mc", "linear"),
    DopamineProbe(shape="linear"),
    ValueProbe(hidden=16, rate=1e-2),
    DopamineProbe(hidden=16, rate=1e-2),
]
LINEAR = PROBES[:2]


def columns(problems: int = 24, width: int = 18) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and problems of rows of which two neurons tell the target."""
    data = made.planted(problems, states=3, width=width)
    return data.x.double().numpy(), data.y, data.group


@pytest.mark.unchecked
@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_scikit_learns_own_checks(probe):
    """Every check passes that is not named above."""
    results = check_estimator(
        probe, expected_failed_checks=EXPECTED_FAILURES, on_fail=None, on_skip=None
    )
    missed = {}
    for result in results:
        if result["status"] not in ("passed", "xfail"):
            missed[result["check_name"]] = str(result["exception"])
    assert set(missed) <= SKIPPED, missed
    assert len(results) > 45


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_arrays_are_fitted_as_the_same_rows_are(probe):
    data = made.planted(40, states=3)
    rows = np.arange(len(data))  # each a trajectory, as rows of arrays are
    alone = type(data)(data.x, data.y, data.reward, data.group, rows, data.step, data.last)
    expected = clone(probe).fit_examples(alone).predict(data.x)
    names = np.array([f"problem {number}" for number in data.group])
    for x, y, groups in (
        (data.x.numpy(), data.y, data.group),
        (data.x, torch.from_numpy(data.y), names),
        (data.x.tolist(), data.y.tolist(), names.tolist()),
    ):
        fitted = clone(probe).fit(x, y, groups)
        assert np.array_equal(fitted.predict(x), expected)
        assert np.array_equal(fitted.predict(data.x), expected)


def test_groups_decide_the_ridge():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    x = rng.normal(size=(20, 60))[groups] + 0.1 * rng.normal(size=(200, 60))
    y = rng.normal(size=20)[groups]
    for probe in LINEAR:
        assert clone(probe).fit(x, y, groups).ridge_ > 100 * clone(probe).fit(x, y).ridge_


@pytest.mark.parametrize("probe", LINEAR, ids=str)
def test_pipelines_searches_and_cross_validation(probe):
    x, y, groups = columns()
    pipe = make_pipeline(StandardScaler(), clone(probe)).fit(x, y)
    assert pipe.score(x, y) > 0.5
    name = f"{type(probe).__name__.lower()}__ridge"
    search = GridSearchCV(
        pipe, {name: [0.01, 100.0]}, cv=LeaveOneGroupOut(), scoring="neg_mean_squared_error"
    ).fit(x, y, groups=groups)
    assert search.best_params_ == {name: 0.01}
    scores = cross_val_score(clone(probe), x, y, groups=groups, cv=GroupKFold(4))
    assert len(scores) == 4 and scores.mean() > 0.5


def test_groups_reach_the_fits_inside_of_a_cross_validation():
    """By scikit-learn's own routing of metadata, so that the ridge is chosen by problem there
    too."""
    x, y, groups = columns()
    folds = list(GroupKFold(3).split(x, y, groups))
    by_hand = []
    for fit, held in folds:
        probe = ValueProbe("mc", "linear").fit(x[fit], y[fit], groups[fit])
        by_hand.append(probe.score(x[held], y[held]))
    with sklearn.config_context(enable_metadata_routing=True):
        probe = ValueProbe("mc", "linear").set_fit_request(groups=True)
        scores = cross_val_score(probe, x, y, cv=folds, params={"groups": groups})
    assert scores.tolist() == by_hand


def test_names_of_columns_are_remembered_and_checked():
    x, y, groups = columns()
    names = [f"neuron {number}" for number in range(18)]
    frame = pd.DataFrame(x, columns=pd.Index(names))
    probe = ValueProbe("mc", "linear").fit(frame, pd.Series(y), pd.Series(groups))
    assert probe.feature_names_in_.tolist() == names
    with pytest.raises(MechRewardError, match="feature names should match"):
        probe.predict(frame[names[::-1]])
    probe.fit_examples(made.planted(30))
    assert not hasattr(probe, "feature_names_in_")
    assert probe.n_features_in_ == 32


def test_a_probe_that_is_not_fitted_says_so_to_both():
    with pytest.raises(NotFittedError):
        ValueProbe().predict(np.zeros((1, 3)))
    with pytest.raises(MechRewardError, match="not fitted yet"):
        ValueProbe().predict(np.zeros((1, 3)))


def test_arrays_leave_nothing_of_an_earlier_fit():
    acts = made.activations(torch.randn(5, 3), trajectory=[0, 0, 0, 1, 1], step=[0, 1, 2, 0, 1])
    for again in (
        lambda probe: probe.fit(*columns()),
        lambda probe: probe.fit_examples(made.planted(30)),
    ):
        probe = ValueProbe("mc", "linear").fit(acts, made.two())
        again(probe)
        for name in ("site_", "model_id_", "direction_", "correlation_", "correlated_"):
            assert not hasattr(probe, name), name


@pytest.mark.unchecked
def test_mixtures_are_refused():
    acts = made.activations(torch.randn(5, 3), trajectory=[0, 0, 0, 1, 1], step=[0, 1, 2, 0, 1])
    x, y, groups = columns()
    mixtures = [
        (acts, y),
        (x, made.two()),
        (acts, made.two(), groups),
        (Recording({str(acts.site): acts}), made.two()),
        (Recording({str(acts.site): acts}), y),
    ]
    for given in mixtures:
        for probe in (ValueProbe("mc", "linear"), DopamineProbe(shape="linear")):
            with pytest.raises(MechRewardError, match="activations of one site"):
                probe.fit(*given)


@pytest.mark.unchecked
def test_arrays_that_hold_nothing_to_learn():
    x, y, groups = columns()
    for target in ("td", "td-lambda", "terminal"):
        with pytest.raises(MechRewardError, match=f"no rewards for target '{target}'"):
            ValueProbe(target, "linear").fit(x, y)
    with pytest.raises(MechRewardError, match=r"the target is 0.500 in all 72 rows"):
        ValueProbe("mc", "linear").fit(x, 0 * y + 0.5)
    with pytest.raises(MechRewardError, match="unknown probe shape 'liner'"):
        ValueProbe(shape="liner").fit(x, y)
    with pytest.raises(MechRewardError, match="inconsistent numbers of samples"):
        ValueProbe("mc", "linear").fit(x, y, groups[1:])
    with pytest.raises(MechRewardError, match="contains NaN"):
        ValueProbe("mc", "linear").fit(np.where(x == x[0, 0], np.nan, x), y)
    with pytest.raises(MechRewardError, match=r"no step has \|delta\| > 2"):
        DopamineProbe(2.0, "linear").fit(x, y)
    with pytest.raises(TypeError):
        ValueProbe("mc", "linear").fit([[{}], [{}]], [0.0, 1.0])
