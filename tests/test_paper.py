"""The paper's experiments on made-up rows and on the tiny model: each number against arithmetic
that shares no code."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import rows as made
import tiny
import torch
from scipy.stats import spearmanr

import mechreward as mr
from mechreward import MechRewardError, stats
from mechreward import experiments as paper
from mechreward.base.streams import rng
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.td_error import scaled
from mechreward.models.engine import Policy
from mechreward.models.site import Site
from mechreward.probing.overlap import overlap
from mechreward.probing.probe import ValueProbe

ABOUT = paper.shared("R0", "made-up", "rows", made.SITE, 0)
WIDTH = 100


class Made(paper.Split):
    """A split whose states and steps are made-up rows."""

    def __init__(self, seed: int, carriers: tuple[int, ...] = (42,)) -> None:
        data = made.planted(150, states=2, width=WIDTH, carriers=carriers, seed=seed, per=2)
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "runs", SimpleNamespace(problems=()))

    def states(self, site):
        return self.data

    def steps(self, site):
        return replace(self.data, y=self.data.y - 0.5)


def one(rows, **wanted):
    (row,) = [
        row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())
    ]
    return row


def test_R1_reads_good_from_bad_answers_to_one_problem(tiny_model):
    """Against arithmetic: the mean over mixed problems of scikit-learn's AUROC of the states before
    the end."""
    from sklearn.metrics import roc_auc_score

    from mechreward.experiments.value_probe import within_problems

    site, problems = Site(1, "resid_post"), tiny.Even().problems("test", 12, 0)
    runs = mr.sample(tiny_model, problems, k=4, seed=1, progress=False)
    acts = mr.record(tiny_model, runs, site, progress=False)[site]
    x = acts.x.numpy()
    probe = ValueProbe("mc", "linear").fit_examples(made.planted(40, width=x.shape[1], seed=0))
    row = one(within_problems(ABOUT, "value", probe, (runs, acts)), metric="auroc_within")
    read, wanted = probe.predict(x), []
    for group in set(runs.groups):
        rows = [
            i
            for i, t in enumerate(acts.trajectory.tolist())
            if runs.groups[t] == group and acts.step[i] < runs[t].steps
        ]
        labels = [runs[int(acts.trajectory[i])].reward for i in rows]
        if len(set(labels)) == 2:
            wanted.append(roc_auc_score(labels, read[rows]))
    assert (
        wanted
        and row.estimate == pytest.approx(np.mean(wanted))
        and row.low < row.estimate < row.high
    )
    assert row.detail["answers"] == 48 and within_problems(ABOUT, "value", probe, None) == []


def test_the_layer_with_the_best_mean_is_chosen_and_one_lucky_cell_is_not():
    from mechreward.experiments.split import SHARES

    def layer(number: int, full: float, few: list[float]) -> list[Row]:
        about = paper.shared("R3", "made-up", "rows", f"{number}.mlp", 0)
        cells = {1.0: full} | dict(zip(SHARES, few, strict=True))
        return rows_from(
            about,
            [
                ("value", "spearman", stats.Interval(v, v, v, 30), {"share": s})
                for s, v in cells.items()
            ],
        )

    rest = len(SHARES) - 3
    lucky = layer(0, 0.1, [0.4, 0.1, *[0.1] * (rest + 1)])
    good = layer(1, 0.6, [0.3, 0.5, 0.54, *[0.55] * rest])
    empty = layer(2, float("nan"), [float("nan")] * len(SHARES))
    assert paper.choose([*lucky, *empty, *good], "mlp") == (Site(1, "mlp"), SHARES[2]), (
        "0.54 is 90% of 0.6"
    )
    assert paper.choose(lucky, "mlp") == (Site(0, "mlp"), SHARES[0])
    seen = [replace(row, detail=row.detail | {"split": "validation"}) for row in lucky]
    test = [replace(row, detail=row.detail | {"split": "test"}) for row in good]
    assert paper.choose([*test, *seen], "mlp") == (Site(0, "mlp"), SHARES[0]), (
        "test rows are not looked at"
    )


class Grid(paper.Split):
    """Site 0 carries V-hat in neuron 42, site 1 is noise."""

    def __init__(self, seed: int) -> None:
        data = made.planted(60, states=3, width=WIDTH, carriers=(42,), seed=seed)
        noise = np.random.default_rng(seed + 50).normal(size=data.x.shape)
        sites = {"0.mlp": data, "1.mlp": replace(data, x=torch.tensor(noise, dtype=torch.float32))}
        object.__setattr__(self, "sites", sites)
        object.__setattr__(self, "runs", SimpleNamespace(problems=()))

    def states(self, site):
        return self.sites[str(site)]


def test_the_test_grid_holds_where_value_is_planted_and_nowhere_else():
    """p against a loop over SciPy's Spearman, Holm by hand; what validation gives is the same
    numbers without p."""
    from mechreward.experiments.layers import p_moved
    from mechreward.experiments.split import SHARES
    from mechreward.probing.pruning import shuffled

    train, held, sites = Grid(0), Grid(1), [Site(0, "mlp"), Site(1, "mlp")]
    rows = paper.R3(train, held, sites, ABOUT, "test", draws=199)
    seen = paper.R3(train, held, sites, ABOUT)
    assert [(row.site, row.detail["share"], row.interval) for row in rows] == [
        (row.site, row.detail["share"], row.interval) for row in seen
    ]
    assert len(rows) == 2 * (1 + len(SHARES)) and not any("p" in row.detail for row in seen)
    assert {row.detail["split"] for row in rows} == {"test"} and {
        row.detail["split"] for row in seen
    } == {"validation"}
    held_out = {row.site for row in rows if row.detail["p_holm"] < 0.05}
    planted = [row for row in rows if row.site == "0.mlp"]
    assert held_out == {"0.mlp"} and all(row.detail["p_holm"] < 0.05 for row in planted)
    p, running = sorted(row.detail["p"] for row in rows), 0.0
    for rank, value in enumerate(p):
        running = max(running, min(1.0, (len(p) - rank) * value))
        assert any(
            row.detail["p"] == value and row.detail["p_holm"] == pytest.approx(running)
            for row in rows
        )
    data = held.states(sites[1])
    reads = np.stack(
        [np.random.default_rng(s).normal(size=len(data)) for s in range(3)] + [np.zeros(len(data))]
    )
    reads[1] += 2 * data.y
    found = p_moved(reads, data, 39, 5)
    for read, value in zip(reads[:3], found, strict=False):
        null = [
            spearmanr(
                read, shuffled(data, rng("layers: moved targets", 5, d), by_length=True).y
            ).statistic
            for d in range(39)
        ]
        assert value == (1 + sum(n >= spearmanr(read, data.y).statistic for n in null)) / 40
    assert found[1] == 1 / 40 and found[3] == 1, "a constant read-out holds nothing"


def test_the_default_draws_let_holm_reach_05(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def p_moved(read, held, draws, seed):
        asked.append(draws)
        return np.ones(len(read))

    module = import_module("mechreward.experiments.layers")
    monkeypatch.setattr(module, "SHARES", ())
    monkeypatch.setattr(module, "p_moved", p_moved)
    monkeypatch.setattr(ValueProbe, "fit_examples", lambda self, data: self)
    monkeypatch.setattr(ValueProbe, "predict", lambda self, x: x[:, 42].numpy())
    for cells in (1, 60):
        paper.R3(Grid(0), Grid(1), [Site(0, "mlp")] * cells, ABOUT, "test")
    assert asked == [1999, 40 * 60 - 1] and all(n / (1 + 40 * n - 1) < 0.05 for n in (1, 60))


def test_R6_counts_the_neurons_both_probes_lean_on(monkeypatch: pytest.MonkeyPatch):
    split, x = Made(0), torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(0))
    scores = np.arange(WIDTH, dtype=float)
    scores[42] = 1000
    empty = mr.Rollouts((), (), Policy(), made.MODEL)
    monkeypatch.setattr("mechreward.experiments.next_token.next_token", lambda tokens, runs: scores)
    rows = paper.R6(split, made.tokens(x, 8), empty, ABOUT, shares=(0.01, 0.1))
    value = np.argsort(-ValueProbe("mc", "mlp").fit_examples(split.data).scores_, kind="stable")
    assert value[0] == 42
    first, second = sorted(rows, key=lambda row: row.detail["share"])
    assert (
        first.estimate == 1
        and first.detail["shared"] == 1
        and first.detail["p"] == pytest.approx(0.01)
    )
    token = {42, *range(91, 100)}
    both = len(token & set(value[:10].tolist()))
    assert second.detail["shared"] == both and second.estimate == pytest.approx(both / (20 - both))


def test_R9_finds_the_planted_neuron_and_its_null():
    rows = paper.R9(Made(0), Made(1), made.SITE, ABOUT, draws=19)
    own = one(rows, arm="dopamine", metric="spearman")
    assert own.detail["neuron"] == 42 and own.low > 0.9
    most, null = (
        one(rows, arm="dopamine", metric="max_spearman"),
        one(rows, arm="shuffled", metric="max_spearman"),
    )
    assert most.detail["p"] == 0.05 and most.estimate > 0.99 > 0.5 > null.high
    trace = [row for row in rows if row.metric == "trace"]
    data = Made(1).steps(made.SITE)
    assert [row.detail["delta"] for row in trace] == data.y[:8].tolist(), (
        "the first four answers, two steps each"
    )
    z = (data.x[:8, 42] - Made(0).data.x[:, 42].mean()) / Made(0).data.x[:, 42].std()
    assert [row.estimate for row in trace] == pytest.approx(z.tolist(), abs=1e-5)


def test_R9_says_nothing_of_noise():
    """The largest of 100 noise neurons looks good, and its p does not: of 10, more than 4 at .1 has
    p=.002."""
    p = []
    for seed in range(10):
        noise = [Made(2 * seed + side) for side in (0, 1)]
        for split in noise:
            split.data.x[:, 42] = torch.randn(
                len(split.data), generator=torch.Generator().manual_seed(seed)
            )
        rows = paper.R9(*noise, made.SITE, ABOUT, draws=9)
        most = one(rows, arm="dopamine", metric="max_spearman")
        assert most.estimate > 0.1
        p.append(most.detail["p"])
    assert sum(value <= 0.1 for value in p) <= 4


def test_steps_are_standardised_over_the_tokens_of_their_own_answer_by_hand():
    """Answer 0: a prompt token, steps of one and of two tokens, an end token; answer 1: two equal
    steps of one."""
    x = torch.tensor([[99.0], [1.0], [3.0], [8.0], [-50.0], [99.0], [5.0], [5.0]])
    acts = made.tokens(x, 1)
    each = {
        "trajectory": np.array([0, 0, 0, 0, 0, 1, 1, 1]),
        "step": np.array([0, 1, 2, 2, 3, 0, 1, 2]),
    }
    acts = replace(acts, **each)
    means = torch.tensor([[1.0], [5.5], [5.0], [5.0]])
    data = replace(
        made.planted(4), x=means, trajectory=np.array([0, 0, 1, 1]), step=np.array([1, 2, 1, 2])
    )
    whole = [np.mean((np.array(v) - 4) / np.std([1, 3, 8])) for v in ([1], [3, 8])]
    assert scaled(data, acts, "response").x[:, 0].tolist() == pytest.approx(
        [*whole, 0, 0], abs=1e-6
    )
    running = scaled(data, acts, "running")
    assert running.x[:, 0].tolist() == pytest.approx([0, whole[1], 0, 0], abs=1e-6)
    later = replace(acts, x=torch.where(x == 8, 100, x))
    assert torch.equal(scaled(data, later, "running").x[0], running.x[0]), "the future is not seen"
    with pytest.raises(MechRewardError, match="response"):
        scaled(data, acts, "respons")
    with pytest.raises(MechRewardError, match="tokens"):
        scaled(data, replace(acts, rows="states"), "running")
    with pytest.raises(MechRewardError, match="different rollouts"):
        scaled(data, replace(acts, step=np.array([0, 1, 1, 1, 3, 0, 1, 2])), "running")


@pytest.fixture(scope="module")
def rollouts(tiny_model):
    return mr.sample(tiny_model, tiny.Even().problems("train", 20), progress=False)


def test_R5_is_what_running_each_set_alone_gives(tiny_model, rollouts):
    site = Site(1, "resid_post")
    acts = mr.record(tiny_model, rollouts, site, progress=False)[site]
    sets = {
        name: mr.NeuronSet.of(acts, indices, name)
        for name, indices in {"mc": [1, 2, 3], "td": [3, 4, 5], "terminal": [5, 6, 7]}.items()
    }
    problems = tiny.Even().problems("test", 16)
    rows = paper.R5(tiny_model, problems, sets, ABOUT)
    alone = {
        name: np.array(
            mr.sample(tiny_model, problems, hooks=mr.zero(s).fwd_hooks(), progress=False).rewards
        )
        for name, s in sets.items()
    }
    for name, right in alone.items():
        assert one(rows, arm=name, metric="accuracy").estimate == pytest.approx(right.mean())
    gap = one(rows, arm="td", metric="gap")
    assert gap.estimate == pytest.approx((alone["terminal"] - alone["td"]).mean())
    assert gap.detail["p_mcnemar"] == stats.mcnemar(alone["terminal"], alone["td"])
    assert one(rows, arm="td", metric="iou").estimate == pytest.approx(1 / 5)
    assert not any(row.arm == "terminal" and row.metric in ("gap", "iou") for row in rows)


def home(model: str, carrier: int) -> paper.Home:
    train, test = (
        made.planted(150, states=2, width=WIDTH, carriers=(carrier,), seed=s, per=2) for s in (0, 1)
    )
    tokens = made.tokens(train.x, 2)
    return paper.Home(model, "rows", made.neurons(carrier, width=WIDTH), train, test, tokens)


def test_R12_tells_a_set_that_moves_from_one_that_does_not():
    homes = {"a": home("a", 42), "b": home("b", 42), "c": home("c", 7)}
    rows = paper.R12(homes, draws=5)
    assert len(rows) == 9 * 6

    def cell(source: str, goal: str, arm: str, metric: str):
        return one(
            [r for r in rows if r.detail["from_model"] == source],
            model=goal,
            arm=arm,
            metric=metric,
        )

    same, other = cell("a", "b", "value", "iou"), cell("a", "c", "value", "iou")
    assert (same.estimate, other.estimate) == (1, 0) and same.detail["p"] == pytest.approx(0.01)
    assert cell("a", "b", "value", "spearman").estimate > 0.99
    assert abs(cell("a", "c", "value", "spearman").estimate) < 0.25
    control = cell("a", "b", "matched", "spearman")
    assert control.n == 5 and control.high < 0.5, "matched sets of noise read nothing"
    data = homes["b"]
    assert cell("a", "b", "value", "spearman").estimate == pytest.approx(
        abs(spearmanr(data.test.x[:, 42], data.test.y).statistic)
    )


def test_R12_has_the_overlap_of_sets_as_large_as_the_goals_own():
    """By brute force: the goal's set is drawn again among neurons of its sizes, four and four. The
    loud quarter of the neurons holds both sets, so that chance among the loud is far above chance
    among all."""
    width, loud, carriers = 96, range(24), {"a": (0, 1, 2, 3, 4, 5), "b": (1, 6, 7, 8, 9, 10)}
    homes = {}
    for name, own in carriers.items():
        train, test = (
            made.planted(60, states=2, width=width, carriers=own, seed=s) for s in (0, 1)
        )
        x = torch.randn(600, width, generator=torch.Generator().manual_seed(3))
        x[:, list(loud)] *= 4
        homes[name] = paper.Home(
            name, "rows", made.neurons(*own, width=width), train, test, made.tokens(x, 2)
        )
    rows = paper.R12(homes, draws=19)
    pick = [
        row
        for row in rows
        if row.metric == "iou" and row.detail["from_model"] == "a" and row.model == "b"
    ]
    own, alike = one(pick, arm="value"), one(pick, arm="matched")
    order = np.argsort(homes["b"].tokens.rms().numpy())
    fours = [set(order[i : i + 4].tolist()) for i in range(0, width, 4)]
    rng, ious = np.random.default_rng(0), []
    for _ in range(4000):
        parts = [
            rng.choice(sorted(four), len(four & set(carriers["b"])), replace=False)
            for four in fours
        ]
        new = set(np.concatenate(parts).tolist())
        ious.append(len(new & set(carriers["a"])) / len(new | set(carriers["a"])))
    assert own.estimate == pytest.approx(1 / 11) and own.detail["expected"] < 0.05 < 0.1 < np.mean(
        ious
    )
    assert alike.estimate == pytest.approx(np.mean(ious), abs=0.01)
    assert (alike.low, alike.high) == tuple(np.quantile(ious, (0.025, 0.975)))
    assert alike.detail["p"] == pytest.approx(np.mean(np.array(ious) >= 1 / 11), abs=0.03)
    alone = torch.where(torch.arange(width) < 6, 9.0, 1.0)
    rows = paper.R12(
        {"a": replace(homes["a"], tokens=made.tokens(homes["a"].tokens.x * alone, 2))}, draws=3
    )
    off = [row for row in rows if row.arm == "matched" and row.metric != "iou"]
    assert len(off) == 2 and all(
        not row.detail["is_matched"] and row.detail["error"] > 1 for row in off
    )


def test_overlap_by_hand_and_its_refusals():
    a, b = made.neurons(1, 2, 3), made.neurons(3, 4, model=made.OTHER)
    with pytest.raises(MechRewardError, match=r"made on made-up .* Give other_model=True"):
        overlap(a, b)
    found = overlap(a, b, other_model=True)
    assert found.iou == pytest.approx(1 / 4)
    assert (found.expected, found.p) == pytest.approx(stats.hypergeometric_iou(3, 2, 16, 1))
    large = overlap(made.neurons(0, 5, width=8), made.neurons(1, 5, width=8), np.arange(8.0))
    assert large.law == pytest.approx((9 / 16, 6 / 16, 1 / 16)), (
        "each shares one in four, with the other of its size"
    )
    assert (large.shared, large.p) == (1, pytest.approx(7 / 16))
    assert large.chance.estimate == pytest.approx(6 / 16 / 3 + 1 / 16) and large.chance.high == 1
    with pytest.raises(MechRewardError, match="7 sizes were given for 8 neurons"):
        overlap(made.neurons(0, width=8), made.neurons(1, width=8), np.arange(7.0))
    with pytest.raises(MechRewardError, match="different sites"):
        overlap(a, made.neurons(1, site=Site(1, "mlp")))
    with pytest.raises(MechRewardError, match="different widths"):
        overlap(a, made.neurons(1, width=8))
    with pytest.raises(MechRewardError, match="empty"):
        overlap(a, made.neurons())


def test_R13_is_R2_and_R4_under_its_own_name():
    row = paper.R9(Made(0), Made(1), made.SITE, ABOUT, draws=3)[0]
    (again,) = paper.R13([row], [])
    assert (again.experiment, again.detail["as"]) == (
        "R13",
        "R0",
    ) and again.estimate == row.estimate
