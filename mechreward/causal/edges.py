"""The circuit map of a neuron set: who writes it and who reads it, each edge exact, each beside
matched sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base import streams
from mechreward.base.errors import of_kind, require, whole
from mechreward.base.progress import bar, named
from mechreward.base.progress import under as named_under
from mechreward.causal.controls import Control, matched, sinks
from mechreward.causal.edges_measure import mean_intervals, share_intervals, shares
from mechreward.causal.edges_noun import NOTHING, Edge, Edges, Reading
from mechreward.causal.edges_read import path_patched, readers
from mechreward.causal.edges_screen import screened
from mechreward.causal.edges_units import preactivations
from mechreward.causal.edges_weights import fitted_weights
from mechreward.causal.edges_written import Parts, written
from mechreward.causal.intervene import Intervention
from mechreward.models.checks import check_model
from mechreward.models.identity import model_id
from mechreward.models.text import pieces
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.targets import Examples, states
from mechreward.rollouts.continuations import BACK
from mechreward.rollouts.trajectory import Rollouts, task_of
from mechreward.rollouts.value import Values
from mechreward.stats.beyond import Known
from mechreward.stats.corrected import max_statistic

LEAST = 8  # problems: fewer than four to fit to, and four to look at, say nothing (our choice)


def edges(
    model: Any,
    sets: NeuronSet | Mapping[str, NeuronSet],
    runs: Rollouts,
    vals: Values,
    draws: int = 99,
    *,
    under: Sequence[Intervention] = (),
    seed: int = 0,
    batch: int = 64,
    progress: bool | str = True,
) -> Edges:
    """Who writes a neuron set and who reads it.

    Half of the problems fit the read-out of V-hat (ridge regression), for the set and for every
    matched set alike; on the other half all is measured.

    A writer is a component of the model: the embedding, a head, an MLP. Its number is its part of
    Pearson's r between the read-out and V-hat: the parts add up to r. A set of MLP units is read at
    its pre-activation, gate and up apart, with the norm's scale held as it was.

    A reader is what takes the residual stream in: a head's queries, the keys and values of a
    key-value head, an MLP, the unembedding. Its number is the change of the next token (KL
    divergence from the model as it is, at the states) when its input alone has the set at its mean,
    at all positions, and everything behind it is run again. Of more than 30 readers those are
    computed that a gradient on the first half of the problems says matter most
    (`causal.edges_screen`).

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that made the runs.
    sets : NeuronSet or mapping of str to NeuronSet
        The map is of the first one. Others, of MLP units, are cells of it, as parts of their MLPs.
    runs : Rollouts
        Of problems that the set was not chosen on.
    vals : Values
        Of the same runs.
    draws : int, default 99
        Matched sets (`causal.controls.matched`); 19 reach p = .05. Fewer where the site has
        no more.
    under : sequence of Intervention, default ()
        Interventions that stay on meanwhile, at every position: the map as they leave it. V-hat is
        still that of `vals`.
    seed : int, default 0
        Of split, draws and bootstrap.
    batch : int, default 64
        Trajectories recorded at once.
    progress : bool or str, default True
        Whether bars are shown, or their title.

    Returns
    -------
    Edges
        Every edge with its interval and its rank among the matched sets.

    Raises
    ------
    MechRewardError
        No set, sets of another model or of no use here, fewer than 8 problems, runs and values that
        do not belong together, a site with no room for matched sets, or an architecture whose
        stream is no sum of its parts.

    Notes
    -----
    Estimands and corrections are our choice, fixed before they were looked at: shares of variance
    light up other heads, and shares in percent explode where r is near 0.
    """
    check_model(model)
    of_kind("runs", runs, Rollouts, "sample makes them of problems")
    of_kind("vals", vals, Values, "estimate makes them of runs")
    draws = whole("draws", draws, 1, "matched sets")
    title = named(progress, "edges")
    names = _named(sets)
    (name, neurons), *rest = names.items()
    others = dict(rest)
    identity = model_id(model)
    for each in names.values():
        each.model_id.check(identity, "neuron set")
        each.site.check(model)
    _check_others(others)
    hooks: list[Any] = []
    for change in under:
        of_kind("under", change, Intervention, "a sequence of them, as [zero(neurons)]")
        change.check(model)
        hooks += change.fwd_hooks()
    subject = _subject(model, neurons, runs, vals, draws, seed, batch, title, hooks)
    found, readings = _writers(subject, others, named_under(title, "writers"), batch)
    reading, left_out = _readers(subject, others, named_under(title, "readers"))
    return Edges(
        neurons=neurons,
        name=name,
        edges=(*found, *reading),
        readings=readings,
        others=others,
        states=len(subject.test),
        problems=len(np.unique(subject.test.group)),
        means=tuple(subject.means[0].tolist()),
        match_error=float(np.mean([control.error for control in subject.controls])),
        task=task_of(runs.problems).name,
        screened=left_out,
        under="; ".join(map(_words, under)),
        shape=(
            int(model.cfg.n_layers),
            int(model.cfg.n_heads),
            int(getattr(model.cfg, "d_mlp", 0) or 0),
        ),
    )


@dataclass(frozen=True)
class _Subject:
    """A set with its controls, and the states it is looked at on."""

    model: Any
    neurons: NeuronSet
    controls: list[Control]
    tokens: Activations
    train: Examples
    test: Examples
    fitted: Rollouts
    held: Rollouts
    seed: int
    hooks: list[Any]

    @property
    def sets(self) -> list[NeuronSet]:
        """The set, then the matched ones."""
        return [self.neurons, *(control.neurons for control in self.controls)]

    @property
    def means(self) -> list[torch.Tensor]:
        """Of the neurons of each set, over all tokens."""
        values = self.tokens.x.mean(0)
        return [values[list(neurons.indices)] for neurons in self.sets]


def _named(sets: Any) -> dict[str, NeuronSet]:
    named_sets = dict(sets) if isinstance(sets, Mapping) else {"neurons": sets}
    require(len(named_sets) > 0, "no neuron set was given; select makes one of a probe.")
    for name, neurons in named_sets.items():
        of_kind(f"the set {name!r}", neurons, NeuronSet, "select makes one of a probe")
        require(len(neurons) > 0, f"the set {name!r} is empty: nobody writes or reads it.")
    return named_sets


def _check_others(others: Mapping[str, NeuronSet]) -> None:
    for name, neurons in others.items():
        require(
            neurons.site.kind == "mlp",
            f"further sets are cells of the map and must be MLP units; {name!r} is of "
            f"{neurons.site}: draw a map of its own.",
        )


def _subject(
    model: Any,
    neurons: NeuronSet,
    runs: Rollouts,
    vals: Values,
    draws: int,
    seed: int,
    batch: int,
    title: bool | str,
    hooks: list[Any],
) -> _Subject:
    site = neurons.site
    about: dict[str, Any] = {"batch": batch, "progress": title, "hooks": hooks}
    tokens = record(model, runs, site, rows="tokens", **about)[site]
    data = states(record(model, runs, site, rows="states", **about)[site], vals)
    problems = np.unique(data.group)
    require(
        len(problems) >= LEAST,
        f"half of the problems fit the read-out, the other half test it: {LEAST} are needed, these "
        f"runs have {len(problems)}.",
    )
    order = streams.rng("edges: problems to fit", seed).permutation(problems)
    fit = np.isin(data.group, order[: len(order) // 2])
    of_run = dict(zip(data.trajectory.tolist(), fit.tolist(), strict=True))
    numbers = {True: [], False: []}
    for number, fits in of_run.items():
        numbers[fits].append(number)
    return _Subject(
        model=model,
        neurons=neurons,
        controls=_controls(neurons, tokens, draws, seed),
        tokens=tokens,
        train=data.only(fit),
        test=data.only(~fit),
        fitted=runs.subset(numbers[True]),
        held=runs.subset(numbers[False]),
        seed=seed,
        hooks=hooks,
    )


def _controls(neurons: NeuronSet, tokens: Activations, draws: int, seed: int) -> list[Control]:
    """As many matched sets as the site has, of the nearest neighbours that suffice for them."""
    k = len(neurons)
    free = tokens.width - len({*neurons.indices, *sinks(tokens)})
    draws = min(draws, comb(free, k) // 2 if k > 1 else free - 1)
    most = free - k
    require(
        min(draws, most) >= 1,
        f"{k} of {tokens.width} neurons leave {free} to match them: too few for a control.",
    )
    reach = next((r for r in range(4, most) if comb(r + k - 1, k) >= 2 * draws), most)
    return matched(neurons, tokens, draws, seed, reach=reach)


def _parts(
    subject: _Subject, others: Mapping[str, NeuronSet], about: Any
) -> tuple[dict[str, Parts], dict[str, np.ndarray]]:
    """By what is written of the set: read-outs of it and the controls, split; its weights."""
    site, data = subject.neurons.site, subject.train
    if site.kind == "mlp":
        return preactivations(
            subject.model, subject.fitted, subject.held, subject.sets, data, others, **about
        )
    weights = np.zeros((subject.neurons.width, len(subject.sets)))
    x = data.x.double().numpy()
    for column, neurons in enumerate(subject.sets):
        chosen = list(neurons.indices)
        weights[chosen, column] = fitted_weights(x[:, chosen], data.y, data.group)
    units = list(others.values())
    split = written(subject.model, subject.held, site, weights, units=units, **about)
    return {"": split}, {"": weights[list(subject.neurons.indices), 0]}


def _writers(
    subject: _Subject, others: Mapping[str, NeuronSet], title: bool | str, batch: int
) -> tuple[list[Edge], dict[str, Reading]]:
    data = subject.test
    about = (data.group, subject.seed)
    known = Known(data.known, data.group)
    splits, weights = _parts(
        subject, others, {"batch": batch, "progress": title, "hooks": subject.hooks}
    )
    tables = {part: _shares_of_sets(split, data.y) for part, split in splits.items()}
    every = np.hstack(list(tables.values()))
    alone, corrected = max_statistic(every[0], every[1:])
    found: list[Edge] = []
    readings = {}
    for part, split in splits.items():
        scores = tables[part]
        both = np.vstack([split.parts[:, :, 0], split.whole[:, 0]])
        intervals = share_intervals(both, both[-1], data.y, *about)
        left = known.taken_off(np.vstack([both, data.y]).T).T
        beyond = share_intervals(left[:-1], left[-2], left[-1], *about)
        for row, component in enumerate(split.components):
            cell = len(found)
            edge = Edge(
                side="writer",
                component=component,
                score=intervals[row],
                draws=tuple(scores[1:, row].tolist()),
                p_alone=float(alone[cell]),
                p=float(corrected[cell]),
                beyond=beyond[row],
                part=part,
                within=component.kind == "set",
            )
            found.append(edge)
        columns = range(1, len(scores))
        r_of_draws = [_r(split.whole[:, column], data.y) for column in columns]
        readings[part] = Reading(
            intervals[-1], tuple(r_of_draws), beyond[-1].estimate, tuple(weights[part].tolist())
        )
    return found, readings


def _shares_of_sets(
    split: Parts, y: Float[np.ndarray, " state"]
) -> Float[np.ndarray, "set component"]:
    rows = []
    for column in range(split.whole.shape[1]):
        rows.append(shares(split.parts[:, :, column], split.whole[:, column], y))
    return np.array(rows)


def _r(whole: Float[np.ndarray, " state"], y: Float[np.ndarray, " state"]) -> float:
    return float(shares(whole[None], whole, y)[0])


def _readers(
    subject: _Subject, others: Mapping[str, NeuronSet], title: bool | str
) -> tuple[list[Edge], int]:
    """Readers, and how many the gradient left out."""
    model, units = subject.model, list(others.values())
    every = readers(model, subject.neurons.site, units)
    who = screened(model, subject.fitted, subject.sets, subject.means, every, units, subject.hooks)
    back = turning_back(model, subject.held)
    changes = []  # of every trajectory, [set reader state] in nats
    turns = []  # and in the probability of turning back
    counter = bar(title, "readers", "trajectory", total=len(subject.held))
    with counter:
        for run in subject.held:
            at = run.step_ends[:-1]
            some, turned = [], []
            for clean, patched in path_patched(
                model, run.tokens, subject.sets, subject.means, who, at, units, subject.hooks
            ):
                if back:
                    moved = patched[..., back].exp().sum(-1) - clean[:, back].exp().sum(-1)
                    turned.append(moved.numpy())
                some.append((clean.exp() * (clean - patched)).sum(-1).numpy())
            changes.append(np.concatenate(some))
            if back:
                turns.append(np.concatenate(turned))
            counter.update(1)
    group = subject.test.group
    change = np.concatenate(changes, axis=-1).clip(min=0)
    scores = change.mean(-1)
    alone, corrected = max_statistic(scores[0], scores[1:])
    intervals = mean_intervals(change[0], group, subject.seed)
    of_back = [NOTHING] * len(who)
    turned_by = np.zeros((0, len(who)))
    if turns:
        turn = np.concatenate(turns, axis=-1)
        of_back = mean_intervals(turn[0], group, subject.seed)
        turned_by = turn[1:].mean(-1)
    found = []
    for row, component in enumerate(who):
        edge = Edge(
            side="reader",
            component=component,
            score=intervals[row],
            draws=tuple(scores[1:, row].tolist()),
            p_alone=float(alone[row]),
            p=float(corrected[row]),
            back=of_back[row],
            back_draws=tuple(turned_by[:, row].tolist()),
            within=component.kind == "units",
        )
        found.append(edge)
    return found, len(every) - len(who)


def _words(change: Intervention) -> str:
    neurons = change.neurons
    return f"{change.op} of {len(neurons)} of {neurons.width} neurons at {neurons.site}"


def turning_back(model: Any, runs: Rollouts) -> list[int]:
    """Tokens that begin the word with which answers turn back; none where no answer has one."""
    words = range(int(model.cfg.d_vocab))
    texts = pieces(model, list(words))
    tokens = [number for number in words if texts[number].strip().startswith(BACK)]
    seen = {int(token) for run in runs for token in run.tokens[run.prompt_len :]}
    return tokens if seen & set(tokens) else []
