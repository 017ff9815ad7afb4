"""What can be read, and from how few neurons: R1, R2, R3, R6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from mechreward import stats
from mechreward.models.adapter import model_id, randomised
from mechreward.models.site import Site
from mechreward.paper.split import SHARES, Split, bare, curve, measured
from mechreward.probing.activations import Activations, record
from mechreward.probing.evidence import evidence
from mechreward.probing.neurons import count, ranking
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import measures, restrict, shuffled
from mechreward.probing.rankings import next_token
from mechreward.probing.surface import increment
from mechreward.probing.targets import TARGETS, Examples, states, tokens
from mechreward.results import Row, rows_from
from mechreward.rollouts.trajectory import Rollouts
from mechreward.stats import Interval


def R1(
    train: Split,
    validation: Split,
    test: Split,
    site: Site,
    about: dict[str, Any],
    several: tuple[Rollouts, Activations] | None = None,
    every: Activations | None = None,
) -> list[Row]:
    """A value probe works: every target under both shapes, the paper's with shuffled labels, and what it adds.

    `shuffled` knows nothing of the answer; `same_length` has targets moved among answers of equal length, and so shows
    what length and step tell (`pruning.shuffled`): hard problems may take longer. One shuffle of each; R3 tests.

    `every`: activations at every token of the training rollouts, for TD over tokens as the paper has it, read at states
    like all others (`td over tokens`); our other targets take one row a state.

    `several`: more answers to each test problem and their activations at the states of `site`, for the AUROC within a
    problem (`auroc_within`, over the states before the end of problems with answers of both outcomes).

    `spread` is the standard deviation of the read-out over that of V-hat: near 0, a probe says the same of every
    state, which TD on few trajectories often does. `increment` is the AUROC that the read-out (mc, mlp) adds to the
    surface of the answer so far, fitted on validation.
    """
    fit, held = train.states(site), test.states(site)
    kinds: list[tuple[str, Any, Any, Examples]] = [(t, t, shape, fit) for shape in ("mlp", "linear") for t in TARGETS]
    if every is not None:
        kinds.insert(2, ("td over tokens", "td", "mlp", tokens(every, train.values)))
    rows = []
    for name, target, shape, data in kinds:
        probe = ValueProbe(target, shape).fit_examples(data)
        detail = {"target": name, "shape": shape}
        rows += measured(about, "value", measures(probe, held, draws=200), detail)
        spread = stats.cluster_bootstrap(_spread, [probe.predict(held.x), held.y], held.group, draws=200)
        rows += rows_from(about, [("value", "spread", spread, detail)])
        if (target, shape) == ("mc", "mlp"):
            rows += _increment(probe, validation, test, site, about)
            rows += _within(about, "value", probe, several)
    for arm, by_length in (("shuffled", False), ("same_length", True)):
        probe = ValueProbe("mc", "mlp").fit_examples(shuffled(fit, about["seed"], by_length))
        rows += measured(about, arm, measures(probe, held), {"target": "mc", "shape": "mlp"})
        rows += _within(about, arm, probe, several)
    return rows


def random_weights(model: Any, train: Split, test: Split, site: Site, about: dict[str, Any]) -> list[Row]:
    """R1 where nothing was learnt: the same probes on the same answers and V-hat, read by a model of random weights.

    What such a model shows of V-hat is in the tokens, which any activations carry.
    """
    other = randomised(model, about["seed"])
    fit, held = (
        states(record(other, replace(split.runs, model_id=model_id(other)), site, what=None)[str(site)], split.values)
        for split in (train, test)
    )
    rows = []
    for shape in ("mlp", "linear"):
        found = measures(ValueProbe("mc", shape).fit_examples(fit), held, draws=200)
        rows += measured(about, "random_weights", found, {"target": "mc", "shape": shape})
    return rows


def R2(
    train: Split,
    test: Split,
    site: Site,
    about: dict[str, Any],
    draws: int = 3,
    every: Activations | None = None,
) -> list[Row]:
    """Sparse: the pruning curve beside every null, for the paper's net and for a linear probe, and what it comes to.

    The set is that of the net fitted to V-hat, here and everywhere. `every`, activations at every token of the training
    rollouts, adds the paper's own ranking, that of the net fitted by TD over tokens (`td_over_tokens`).
    `sparsity` (linear, the top 1% by correlation) is the part of the gap between redundancy or another basis and the
    full probe that the few neurons close; its detail holds the reading in a word and the rank of the full probe among
    shuffles.
    """
    fit, held = train.states(site), test.states(site)
    others = {}
    if every is not None:
        others["td_over_tokens"] = ValueProbe("td", "mlp").fit_examples(tokens(every, train.values)).scores_
    rows = curve(ValueProbe("mc", "mlp"), fit, held, about, draws, others)
    rows += curve(ValueProbe("mc", "linear"), fit, held, about, draws, others)
    found = evidence(fit, held, top=count(fit.x.shape[1], SHARES[0]), seed=about["seed"])
    detail = {"neurons": found.neurons, "shape": "linear", "reading": found.reading, "p": found.p, "p_few": found.p_few}
    detail |= {"random": float(np.mean(found.random)), "rotated": float(np.mean(found.rotated))}
    detail |= {"few": found.few.estimate, "full": found.full.estimate}
    return rows + rows_from(about, [("value", "sparsity", found.sparsity, detail)])


def R3(
    train: Split,
    held: Split,
    sites: Sequence[Site],
    about: dict[str, Any],
    split: str = "validation",
    draws: int | None = None,
) -> list[Row]:
    """Over layers: Spearman with V-hat on `held` at every site, for all neurons (share 1) and each share of the top.

    On "validation" the rows serve to choose. On "test" no cell is picked, and `detail` holds what each is worth: `p`,
    one-sided, of the cell's Spearman among those with targets moved between answers (`pruning.shuffled` of the held
    rows; nothing is refitted), and `p_holm`, Holm over all cells of these sites. The null moves whole trajectories
    among those of equal length: it keeps the shape of V-hat in time and what the length tells, so a read-out that only
    follows the step number, or the length, does not hold. Unreadable cells (a constant read-out) have p 1. The test is
    our own choice.

    Args:
        split: the name of `held`, in `detail`.
        draws: shuffles; by default 1999, or 40 a cell if that is more, so that Holm over the grid can reach .025.
    """
    found: list[tuple[Site, Interval, dict[str, Any]]] = []
    read = []
    for site in sites:
        fit, data = train.states(site), held.states(site)
        full = ValueProbe("mc", "mlp").fit_examples(fit)
        reads = {1.0: full.predict(data.x)}
        for share in SHARES:
            top = ranking(full.scores_)[: count(fit.x.shape[1], share)]
            few = ValueProbe("mc", "mlp").fit_examples(restrict(fit, top))
            reads[share] = few.predict(restrict(data, top).x)
        for share, said in reads.items():
            score = stats.cluster_bootstrap(stats.spearman, [said, data.y], data.group, draws=200)
            found.append((site, score, {"share": share, "split": split}))
            read.append(said)
    if split == "test" and found:
        p = p_moved(np.stack(read), held.states(sites[0]), draws or max(1999, 40 * len(found) - 1), about["seed"])
        for (_, _, detail), one, holm in zip(found, p, stats.holm(p), strict=True):
            detail |= {"p": float(one), "p_holm": float(holm)}
    return [
        row
        for site, score, detail in found
        for row in rows_from(about | {"site": str(site)}, [("value", "spearman", score, detail)])
    ]


def choose(rows: Sequence[Row], kind: str) -> tuple[Site, float]:
    """Layer and share for one kind of neuron, from R3's validation rows (those of another split are not looked at): the
    layer with the best mean Spearman over all its shares (one share of few problems is too noisy to choose by), then
    the smallest share that keeps 90% of that layer's best (the largest share, if none does)."""
    seen = [row for row in rows if row.detail.get("split", "validation") == "validation"]
    own = [row for row in seen if Site.parse(row.site).kind == kind]
    scores: dict[str, list[float]] = {}
    for row in own:
        scores.setdefault(row.site, []).append(float(np.nan_to_num(row.estimate)))
    site = max(scores, key=lambda site: float(np.mean(scores[site])))
    here = {row.detail["share"]: row.estimate for row in own if row.site == site}
    enough = [share for share in SHARES if here[share] >= 0.9 * max(here.values())]
    return Site.parse(site), min(enough, default=SHARES[-1])


def R6(
    train: Split,
    every: Activations,
    runs: Rollouts,
    about: dict[str, Any],
    shares: Sequence[float] = (0.01, 0.05, 0.2),
) -> list[Row]:
    """Not next-token neurons: overlap of the value set with the set a next-token probe leans on, against chance.

    `every`: recorded from `runs` with rows="tokens" at the site of the value set. A small overlap says that the two
    sets differ, not that value neurons carry no token.
    """
    site, width = every.site, every.width
    value = ranking(ValueProbe("mc", "mlp").fit_examples(train.states(site)).scores_)
    token = ranking(next_token(every, runs))
    rows = []
    for share in shares:
        k = count(width, share)
        both = len(set(value[:k].tolist()) & set(token[:k].tolist()))
        expected, p = stats.hypergeometric_iou(k, k, width, both)
        detail = {"share": share, "neurons": k, "shared": both, "expected": expected, "p": p}
        rows += rows_from(about, [("next_token", "iou", bare(both / (2 * k - both), width), detail)])
    return rows


def _increment(probe: ValueProbe, validation: Split, test: Split, site: Site, about: dict[str, Any]) -> list[Row]:
    sides = []
    for split in (validation, test):
        data = split.states(site)
        sides.append((split.surface[split.values.live], probe.predict(data.x), data.reward))
    scores = increment(sides[0], sides[1], test.states(site).group, seed=about["seed"])
    gain = scores.pop("increment")
    rows = rows_from(about, [(arm, "auroc_all", score, {"fitted": "validation"}) for arm, score in scores.items()])
    return rows + rows_from(about, [("value", "increment", gain, {"beyond": "surface"})])


def _within(
    about: dict[str, Any], arm: str, probe: ValueProbe, several: tuple[Rollouts, Activations] | None
) -> list[Row]:
    if several is None:
        return []
    runs, acts = several
    going = acts.step < np.array([run.steps for run in runs])[acts.trajectory]
    reward, group = (np.array(each)[acts.trajectory[going]] for each in (runs.rewards, runs.groups))
    read = probe.predict(acts.x[torch.from_numpy(going)])
    score = stats.cluster_bootstrap(stats.within_auroc, [read, reward], group, with_cluster=True, seed=about["seed"])
    detail = {"target": "mc", "shape": "mlp", "answers": len(runs), "problems": len(set(runs.groups))}
    return rows_from(about, [(arm, "auroc_within", score, detail)])


def p_moved(read: np.ndarray, held: Examples, draws: int, seed: int) -> np.ndarray:
    """Randomisation p [cell], one-sided, of the Spearman of every read-out [cell row] with the targets of `held`, among
    `draws` with targets moved between trajectories; the same moves for all cells, ranked once."""
    moved = [shuffled(held, seed * draws + draw, by_length=True).y for draw in range(draws)]
    own, null = _ranked(read), _ranked(np.stack([held.y, *moved]))
    rho = own @ null.T
    reached = ~(rho[:, 1:] < rho[:, :1] - 1e-12)  # NaN counts against the cell
    return (1 + reached.sum(1)) / (1 + draws)


def _ranked(columns: np.ndarray) -> np.ndarray:
    """Ranks within every row of [column n], of mean 0 and length 1: products are Spearman's; NaN for a constant."""
    ranks = rankdata(columns, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return ranks / np.where(length > 0, length, np.nan)


def _spread(read: np.ndarray, y: np.ndarray) -> float:
    return float(read.std() / y.std()) if y.std() > 0 else float("nan")
