"""What R4, R10 and R14 are given, from one split: sets of other rankings, sets to zero in earlier layers, directions to
steer along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mechreward._check import require
from mechreward.causal.controls import matched
from mechreward.causal.intervene import mean
from mechreward.causal.push import Push, matched_pushes, own_push, random_pushes
from mechreward.models.site import Site
from mechreward.paper.split import Split
from mechreward.probing.activations import Activations, Recording, record
from mechreward.probing.neurons import NeuronSet, ranking, select
from mechreward.probing.probe import ValueProbe
from mechreward.probing.pruning import shuffled
from mechreward.probing.rankings import correlation, magnitude, mean_difference, next_token, wanda, weight_magnitude

DOSES = (0.001, 0.01, 0.05, 0.2)  # shares of the neurons, for the dose


def zeroed_below(
    model: Any,
    train: Split,
    dopamine: NeuronSet,
    sites: Sequence[Site],
    draws: int = 19,
    seed: int = 0,
    top: float = 0.2,
) -> dict[str, list[list[NeuronSet]]]:
    """R10's arms: the `top` value neurons of every earlier layer of the dopamine neurons' kind, zeroed together
    (paper: 20%); `matched`, as many neurons of equal rms in each of those layers, drawn `draws` times; and
    `value_apart`, in the residual stream, the value neurons without the coordinates that are dopamine neurons.

    Raises:
        MechRewardError: no earlier layer, or too few other neurons.
    """
    below = [site for site in sites if site.kind == dopamine.site.kind and site.layer < dopamine.site.layer]
    require(len(below) > 0, f"no layer lies below the dopamine neurons of {dopamine.site}.")
    tokens = record(model, train.runs, below, rows="tokens", what=None)
    own = [select(ValueProbe("mc", "mlp").fit(train.at_states[str(site)], train.values), top) for site in below]
    others = [matched(one, tokens[str(one.site)], draws, seed) for one in own]
    arms = {"value": [own], "matched": [[sets[draw].neurons for sets in others] for draw in range(draws)]}
    if dopamine.site.kind != "mlp":
        apart = [
            NeuronSet.of(tokens[str(one.site)], set(one.indices) - set(dopamine.indices), f"{one.how}, not dopamine")
            for one in own
        ]
        arms["value_apart"] = [[one for one in apart if len(one)]]
    return arms


def rivals(
    model: Any, train: Split, own: NeuronSet, draws: int = 5, seed: int = 0
) -> tuple[dict[str, list[NeuronSet]], Activations]:
    """R4's other rankings: as many neurons as `own` has, best by each, whatever they share with it.

    `next_token` (probe), `magnitude` (rms activation at states), `weight_magnitude`, `wanda`, `mean_difference` and
    `correlation` (no probe), `shuffled` (the paper's probe fitted to targets of other problems); and `draws` sets
    `matched_displacement`, matched one to one on what a mean ablation moves. Also the activations at every token.
    """
    site, fit = own.site, train.states(own.site)
    tokens = record(model, train.runs, site, rows="tokens", what=None)[str(site)]
    scores = {
        "next_token": next_token(tokens, train.runs),
        "magnitude": magnitude(fit),
        "weight_magnitude": weight_magnitude(model, site),
        "wanda": wanda(model, tokens),
        "mean_difference": mean_difference(fit),
        "correlation": correlation(fit),
        "shuffled": ValueProbe("mc", "mlp").fit_examples(shuffled(fit, seed)).scores_,
    }
    found = {arm: [NeuronSet.of(tokens, ranking(score)[: len(own)], arm)] for arm, score in scores.items()}
    moved = matched(own, tokens, draws, seed, on="displacement", change=lambda neurons: mean(neurons, tokens))
    return found | {"matched_displacement": [one.neurons for one in moved]}, tokens


def by_share(
    model: Any,
    train: Split,
    probe: ValueProbe,
    site: Site,
    shares: Sequence[float] = DOSES,
    draws: int = 19,
    seed: int = 0,
) -> dict[float, list[Push]]:
    """R14's dose by share: for each, the best neurons of a probe's ranking with their way up, then `draws` sets matched
    in rms at the displacement of that. Of shares that come to as many neurons the first is kept."""
    tokens = record(model, train.runs, site, rows="tokens", what=None)[str(site)]
    acts, toward = train.at_states[str(site)], np.where(train.values.live, train.values.mean, np.nan)
    found: dict[int, tuple[float, list[Push]]] = {}
    for share in shares:
        own = own_push(select(probe, share), acts, toward)
        if len(own.neurons) not in found:
            others = matched_pushes(own, tokens, acts, toward, draws, seed)
            found[len(own.neurons)] = share, [own, *others]
    return dict(found.values())


def steering_arms(
    model: Any, train: Split, value: NeuronSet, dopamine: NeuronSet, draws: int = 19, randoms: int = 3, seed: int = 0
) -> tuple[list[Push], Recording]:
    """R14's arms: `value` toward V-hat and `dopamine` toward delta, by one standard deviation of each neuron over the
    training split's states or steps; beside each, `draws` sets matched in rms (`matched`, `matched_dopamine`), and
    `randoms` beside the value neurons, all at the displacement of the set they stand for. Also the activations at
    every token of the training rollouts, at both sites."""
    tokens = record(model, train.runs, list({value.site, dopamine.site}), rows="tokens", what=None)
    toward = np.where(train.values.live, train.values.mean, np.nan)
    acts = train.at_states[str(value.site)]
    up = own_push(value, acts, toward)
    pushes = [up, *matched_pushes(up, tokens[str(value.site)], acts, toward, draws, seed)]
    pushes += random_pushes(up, tokens[str(value.site)], acts, toward, randoms, seed)
    delta, moved = train.values.delta[train.values.is_step], train.over_steps[str(dopamine.site)]
    surprise = own_push(dopamine, moved, delta, "dopamine")
    others = matched_pushes(surprise, tokens[str(dopamine.site)], moved, delta, draws, seed)
    named = [Push("matched_dopamine", one.draw, one.neurons, one.direction, one.error) for one in others]
    return [*pushes, surprise, *named], tokens
