"""The linear probe on k neurons against the k-sparse probe of TransformerLens 4, on data with
planted coordinates.

TransformerLens fits a logistic regression, weighted to equal classes, on the k coordinates whose
class means differ most; this package a ridge regression of the reward (or of V-hat) on the k first
of a ranking. Where inputs are Gaussian and the label depends on one weighted sum of them, least
squares and logistic regression estimate the same direction but for its length (Brillinger 1982; Li
and Duan 1989), so that the two must read alike though neither is the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import restrict
from mechreward.probing.rankings import mean_difference
from mechreward.probing.targets import Examples

lens = pytest.importorskip(
    "transformer_lens.tools.analysis.sparse_probing", reason="new in transformer-lens 4"
)

WIDTH, KS = 40, (1, 2, 4)
PLANTED = {
    23: 2.4,
    7: -1.7,
    31: 1.2,
    12: -0.8,
}  # in order: gaps of many standard errors at 1,400 rows
OPTIONS = {"groups": None, "preprocess": "standardize", "std_floor": 0.0}


@pytest.fixture(scope="module")
def data() -> Examples:
    """2,000 states of 1,000 problems; the reward is drawn with the chance sigmoid(planted sum)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, WIDTH))
    value = 1 / (1 + np.exp(-x[:, list(PLANTED)] @ np.array(list(PLANTED.values()))))
    row = np.arange(2000)
    reward = (rng.random(2000) < value).astype(int)
    return Examples(torch.tensor(x).float(), value, reward, row // 2, row, 0 * row, row >= 0)


@pytest.fixture(scope="module")
def theirs(data):
    options = OPTIONS | {"groups": torch.from_numpy(data.group)}
    return lens.sweep_sparse_probe(
        data.x, torch.from_numpy(data.reward), ks=KS, n_random_subsets=10, **options
    )


@pytest.fixture(scope="module")
def split(data, theirs) -> tuple[Examples, Examples]:
    """Their split of the problems, as ours."""
    train = np.isin(np.arange(len(data)), theirs.results[0].train_indices.numpy())
    assert not set(data.group[train]) & set(data.group[~train]), "no problem on both sides"
    return data.only(train), data.only(~train)


def ours(split, neurons, target: str) -> tuple[ValueProbe, np.ndarray]:
    """The probe on these neurons alone, and its read-out [row] of the held-out rows."""
    train, test = (restrict(part, neurons) for part in split)
    probe = ValueProbe(target, "linear").fit_examples(train)
    return probe, probe.predict(test.x)


def test_both_rank_by_the_same_difference_of_means(split, theirs):
    """Theirs is in raw units (and float32), ours in standard deviations of the neuron (of the
    training rows)."""
    train = replace(split[0], y=split[0].reward.astype(float))
    score = mean_difference(train)
    raw = theirs.results[0].feature_scores.abs().numpy()
    np.testing.assert_allclose(
        score, raw / train.x.double().std(0, correction=0).numpy(), atol=1e-6
    )
    for result in theirs.results:
        assert (
            result.selected_features.tolist()
            == list(PLANTED)[: result.k]
            == np.argsort(-score)[: result.k].tolist()
        )


@pytest.mark.parametrize("target", ["terminal", "mc"])
def test_the_probes_own_ranking_picks_the_coordinates_that_theirs_picks(split, theirs, target):
    first = np.argsort(-ValueProbe(target, "linear").fit_examples(split[0]).scores_)
    for result in theirs.results:
        assert first[: result.k].tolist() == result.selected_features.tolist()


@pytest.mark.parametrize("target", ["terminal", "mc"])
@pytest.mark.parametrize("place", range(len(KS)))
def test_both_read_alike(split, theirs, place, target):
    """AUROC on the same held-out problems within .002 (one coordinate: equal, for only its order
    counts; 600 rows put .02 of sampling error on either alone), accuracy within .01 (6 rows: their
    threshold is that of equal classes, ours .5 of a read-out that need not be a chance), and the
    weights within 3 degrees of one direction."""
    result, test = theirs.results[place], split[1]
    neurons = result.selected_features.numpy()
    probe, read = ours(split, neurons, target)
    auroc, accuracy = roc_auc_score(test.reward, read), np.mean((read > 0.5) == test.reward)
    assert auroc == pytest.approx(result.metrics.roc_auc, abs=1e-9 if result.k == 1 else 0.002)
    assert accuracy == pytest.approx(result.metrics.accuracy, abs=0.01)
    assert min(auroc, accuracy) > 0.7, "there is something to agree on"
    own = probe.net_.weight[0].detach().double().numpy()  # `restrict` keeps index order
    their = result.coefficients.numpy()[np.argsort(neurons)]
    assert own @ their / np.linalg.norm(own) / np.linalg.norm(their) > np.cos(np.radians(3))


def test_random_coordinates_read_alike_too(split, theirs):
    """The control of both: at most the planted coordinates that chance drew."""
    for control in theirs.random_coordinate_controls:
        assert len(control.supports) == 10 and not theirs.rejections
        for support, auroc in zip(control.supports.numpy(), control.roc_auc.tolist(), strict=True):
            _, read = ours(split, support, "terminal")
            assert roc_auc_score(split[1].reward, read) == pytest.approx(auroc, abs=0.002)
            if not set(support) & set(PLANTED):
                assert abs(auroc - 0.5) < 0.1  # 4 standard errors


def test_a_loud_neuron_is_first_in_their_raw_units_and_not_in_ours(data):
    """The one choice in which the two differ, and why this package divides by the deviation: by raw
    differences a neuron of a thousand times the deviation comes first by chance alone, whatever
    `preprocess` says."""
    loud = replace(
        data,
        x=data.x * torch.where(torch.arange(WIDTH) == 15, 1000.0, 1.0),
        y=data.reward.astype(float),
    )
    options = OPTIONS | {"groups": torch.from_numpy(data.group)}
    result = lens.fit_sparse_probe(loud.x, torch.from_numpy(data.reward), k=1, **options)
    assert result.selected_features.tolist() == [15] and abs(result.metrics.roc_auc - 0.5) < 0.1
    assert np.argsort(-mean_difference(loud))[:4].tolist() == list(PLANTED)
