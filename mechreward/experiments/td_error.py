"""TD errors: the dopamine probe and its nulls (R8), and traces of single neurons (R9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mechreward import stats
from mechreward.base.errors import one_of, require
from mechreward.experiments.rows import Row, rows_from
from mechreward.experiments.split import CUT, Split, curve
from mechreward.models.site import Site
from mechreward.probing.activations import Activations
from mechreward.probing.probe import DopamineProbe
from mechreward.probing.pruning import measures, noiseless_spearman
from mechreward.probing.targets import Examples

SCALES = ("response", "running")
ITEMS = 4


def R8(
    train: Split,
    test: Split,
    site: Site,
    about: dict[str, Any],
    draws: int = 3,
    every: tuple[Activations, Activations] | None = None,
) -> list[Row]:
    """Dopamine neurons: Spearman of the read-out with delta, with and without the paper's cut, and
    against pruning.

    The paper's z-score of each neuron over its whole response (Appendix F) sees the future;
    `response` repeats it, with the paper's cut (its whole protocol) and without, `running` uses
    only the tokens so far, and all else here standardises on the training split. `every`:
    activations at every token of the training and of the test rollouts, without which these three
    are left out.
    """
    fit, held = train.steps(site), test.steps(site)
    halves = [half[test.values.is_step] for half in test.values.delta_halves()]
    reliable = {"reliability": round(stats.split_half_reliability(*halves), 4)}
    rows = []
    for cut in (0.0, CUT):
        probe = DopamineProbe(cut=cut).fit_examples(fit)
        for tested, data in (
            ("all steps", held),
            (f"|delta| > {CUT}", held.only(np.abs(held.y) > CUT)),
        ):
            detail = {"fitted": f"|delta| > {cut}" if cut else "all steps", "tested": tested}
            rows += rows_from(
                about, [("dopamine", "spearman", measures(probe, data)["spearman"], detail)]
            )
        columns = [probe.predict(held.x), held.y, *halves]
        fixed = stats.cluster_bootstrap(noiseless_spearman, columns, held.group, draws=300)
        detail = {"fitted": f"|delta| > {cut}" if cut else "all steps", "tested": "all steps"}
        rows += rows_from(about, [("dopamine", "spearman_disattenuated", fixed, detail | reliable)])
    for how, cut in (("response", CUT), ("response", 0.0), ("running", 0.0)) if every else ():
        known, data = (
            scaled(each, acts, how) for each, acts in zip((fit, held), every or (), strict=True)
        )
        probe = DopamineProbe(cut=cut).fit_examples(known)
        name = f"|delta| > {cut}" if cut else "all steps"
        score = measures(probe, data.only(np.abs(data.y) > cut) if cut else data)["spearman"]
        detail = {"fitted": name, "tested": name, "z": how}
        rows += rows_from(about, [("dopamine", "spearman_z", score, detail)])
    return rows + curve(DopamineProbe(), fit, held, about, draws)


def scaled(data: Examples, every: Activations, how: str) -> Examples:
    """Means over a step's tokens, with every neuron standardised over the tokens of its own answer
    first.

    `response` by mean and deviation over all tokens of the answer's steps, those to come included
    (paper, Appendix F); `running` over the tokens up to the step's end, which an online reader has.

    Args:
        data: steps, in the order of their trajectories.
        every: activations at every token of the same rollouts.
    """
    one_of("way to standardise", how, SCALES)
    require(
        every.rows == "tokens",
        f"activations with rows='tokens' are needed; these have {every.rows!r}.",
    )
    x = torch.empty_like(data.x)
    for answer in np.unique(data.trajectory):
        rows = data.trajectory == answer
        steps = data.step[rows]
        said = (every.trajectory == answer) & (every.step >= 1) & (every.step <= steps.max())
        tokens, ends = (
            every.x[torch.from_numpy(said)].double(),
            np.searchsorted(every.step[said], steps, "right"),
        )
        require(
            bool((np.diff(ends, prepend=0) > 0).all()),
            "steps and tokens belong to different rollouts.",
        )
        seen = np.full(len(ends), len(tokens)) if how == "response" else ends
        mean, square = (tokens**power for power in (1, 2))
        mean, square = (
            part.cumsum(0)[seen - 1] / torch.from_numpy(seen)[:, None] for part in (mean, square)
        )
        deviation = (square - mean.square()).clamp(min=1e-8).sqrt()
        x[torch.from_numpy(rows)] = (
            (data.x[torch.from_numpy(rows)].double() - mean) / deviation
        ).float()
    return replace(data, x=x)


def best_dopamine(train: Split, validation: Split, sites: Sequence[Site], kind: str) -> Site:
    """The site of one kind whose dopamine probe has the best validation Spearman with delta."""
    own = [site for site in sites if site.kind == kind]

    def score(site: Site) -> float:
        probe = DopamineProbe().fit_examples(train.steps(site))
        held = validation.steps(site)
        return stats.spearman(probe.predict(held.x), held.y)

    return max(own, key=score)
