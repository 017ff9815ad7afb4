"""The page of one neuron: what it follows, what writes it, what it says, and where it is high."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward import stats
from mechreward.base.errors import of_kind, require, whole
from mechreward.base.plain import visible
from mechreward.base.streams import rng
from mechreward.models.site import Site, all_sites, lacking
from mechreward.models.text import joined_pieces, pieces
from mechreward.probing.activations import Recording, record
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values
from mechreward.show.answers import check_values, signed
from mechreward.show.forest import Estimate, Forest
from mechreward.show.picture import Panel, Picture
from mechreward.show.style import Reference, decimals
from mechreward.show.written import Among, Points, Said, Text, Words
from mechreward.stats import Interval

HIGHEST, BLIND = 6, 4  # steps that are shown at either end, and drawn blind
CONTEXT = 14  # tokens of context before a step
WORDS = 8  # that the unembedding makes likelier, and as many less likely
OTHERS = (5, 95)  # percentiles of all coordinates that are shown beside a part of the correlation


@dataclass(frozen=True)
class Followed:
    """One neuron at every state that goes on.

    Attributes
    ----------
    row : array [state]
        Numbers of the rows of the values.
    x : array [state width]
        All neurons of the site.
    value : array [state]
        V-hat.
    rho : array [width]
        Spearman of every neuron with V-hat.
    index : int
        Which it is.
    score : Interval
        Its own Spearman, clustered by problem.
    """

    row: np.ndarray
    x: Float[np.ndarray, "state width"]
    value: Float[np.ndarray, " state"]
    rho: Float[np.ndarray, " width"]
    index: int
    score: Interval

    @property
    def place(self) -> int:
        """Rank of its Spearman by size among all neurons; 1 the largest."""
        sizes = np.nan_to_num(np.abs(self.rho))
        return int((sizes > sizes[self.index]).sum()) + 1

    @property
    def width(self) -> int:
        """How many neurons the site has."""
        return self.x.shape[1]


def neuron(model: Any, site: Site | str, index: int, runs: Rollouts, vals: Values) -> Picture:
    """All about one neuron: what it follows, its rank among all, what writes it, what it does to
    words, and the steps where it is highest, lowest, and drawn blind.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answered.
    site : Site or str
        Where, such as "2.resid_post".
    index : int
        Which neuron, from 0.
    runs : Rollouts
        Answers, of problems that the neuron was not chosen on.
    vals : Values
        Their V-hat.

    Returns
    -------
    Picture

    Raises
    ------
    MechRewardError
        No such site or neuron, rollouts of another model, values of other rollouts, or no state
        that goes on.

    Notes
    -----
    What writes a coordinate of the residual stream: each attention and MLP adds a part to it, and
    the covariance of that part with V-hat over both standard deviations is its part of Pearson's r.
    The parts add up to r exactly. Beside each stands the range of the same part over all other
    coordinates, from the 5th to the 95th percentile (our choice): a part inside it is what any
    coordinate gets.
    """
    site = Site.parse(site)
    site.check(model)
    of_kind("runs", runs, Rollouts, "what mr.sample(...) gives")
    check_values(runs, vals)
    index = whole("index", index, 0)
    width = site.width(model)
    require(index < width, f"index: {site} has neurons 0 to {width - 1}; {index} was given.")
    sites = [site, *_stream(model, site)]
    acts = record(model, runs, sites, progress=False)
    followed = _followed(acts, site, index, vals)
    steps = np.flatnonzero(vals.is_step)
    x = acts[site].x[:, index].numpy().astype(float)
    rho = followed.rho[index]
    at = f"rank {followed.place} of {width}"
    panels: list[Panel] = [
        Points("Activation and V-hat", followed.value, followed.x[:, index], "V-hat", "activation"),
        Points(
            "Activation and delta",
            vals.delta[steps],
            x[steps],
            "delta of the step that ends there",
            "activation",
            "dopamine",
        ),
        Among(
            "Among all neurons of the site",
            followed.rho,
            float(rho),
            f"{index}: {at} by size",
            "Spearman with V-hat",
            "neurons",
        ),
    ]
    written = _written(model, acts, site, followed)
    if written:
        reference = Reference(0.0, "nothing")
        title = "What writes it: parts of its correlation with V-hat"
        panels.append(Forest(title, {"": written}, "part of r", reference, wide=True))
    panels += _examples(model, site, index, runs, vals, x)
    words = _words(model, site, index)
    if words:
        panels.append(Words("Read directly by the unembedding", words))
    delta = stats.spearman(x[steps], vals.delta[steps])
    problems = len(set(vals.group[followed.row].tolist()))
    caption = (
        f"{len(followed.row)} states of {problems} problems. Spearman with V-hat "
        f"{followed.score}, 95% interval by problem; {at} by its size; with delta "
        f"{decimals(delta)}. What writes it: every attention and MLP before the site, by its part "
        "of Pearson's r with V-hat, which add up to r; small dots: the 5th and 95th percentile of "
        "the same part over all other coordinates. Steps: highest, lowest, and drawn blind, one a "
        "problem; tokens are tinted by the activation at each, blue above 0, vermillion below, "
        "context in grey. Words: those that the unembedding row makes likelier and less likely, "
        "norms and later layers left out."
    )
    follows = f"follows V-hat with Spearman {decimals(float(rho))}, {at} by size"
    alt = f"Neuron {index} of {site} {follows}."
    title = f"Neuron {index} of {site}, {runs.model_id.name}"
    return Picture(title, panels, caption, alt)


def _followed(acts: Recording, site: Site, index: int, vals: Values) -> Followed:
    row = np.flatnonzero(vals.live)
    require(len(row) > 1, "no state goes on: there is nothing that a neuron could follow.")
    x = acts[site].x.numpy().astype(float)[row]
    value = vals.mean[row]
    score = stats.clustered(stats.spearman, [x[:, index], value], vals.group[row])
    return Followed(row, x, value, stats.spearmans(x, value), index, score)


def _stream(model: Any, site: Site) -> list[Site]:
    """Sites of the residual stream from the embedding to here; none of an MLP's own units."""
    if site.kind == "mlp":
        return []
    stream = [Site(0, "resid_pre")]
    absent = lacking(model)
    for here in all_sites(model, ("resid_post",), range(site.layer + 1)):
        middle = Site(here.layer, "resid_mid")
        is_here = here.layer == site.layer
        if middle not in absent and not (is_here and site.kind == "resid_pre"):
            stream.append(middle)
        if not is_here or site.kind == "resid_post":
            stream.append(here)
    return [each for each in dict.fromkeys(stream) if each != site]


def _written(model: Any, acts: Recording, site: Site, followed: Followed) -> list[Estimate]:
    """What each attention and MLP adds to the correlation with V-hat, beside other coordinates."""
    stream = _stream(model, site)
    if not stream:
        return []
    before = np.zeros_like(followed.x)
    v = followed.value - followed.value.mean()
    deviation = followed.x.std(0) * v.std()
    lines = []
    for here in [*stream, site]:
        after = acts[here].x.numpy().astype(float)[followed.row]
        part = after - before
        before = after
        cov = v @ (part - part.mean(0)) / len(v)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(deviation > 0, cov / deviation, np.nan)
        others = np.delete(share, followed.index)
        others = others[np.isfinite(others)]
        ends = tuple(float(end) for end in np.percentile(others, OTHERS)) if len(others) else ()
        score = Interval(float(share[followed.index]), math.nan, math.nan, len(v))
        lines.append(Estimate(_writer(here, stream), score, draws=ends))
    return lines


def _writer(here: Site, stream: list[Site]) -> str:
    """What stands between a site of the stream and the one before it."""
    if here == Site(0, "resid_pre"):
        return "embedding"
    if here.kind == "resid_mid":
        return f"attention {here.layer}"
    if Site(here.layer, "resid_mid") in stream:
        return f"MLP {here.layer}"
    return f"block {here.layer if here.kind == 'resid_post' else here.layer - 1}"


def _examples(
    model: Any, site: Site, index: int, runs: Rollouts, vals: Values, x: np.ndarray
) -> list[Panel]:
    """Steps by activation at their end, one a problem, and as many drawn blind."""
    steps = np.flatnonzero(vals.is_step)
    order = steps[np.argsort(x[steps], kind="stable")]
    blind = rng("steps of a neuron", index, str(site)).permutation(steps)
    chosen = {
        "Steps where it is highest": _one_each(order[::-1], vals, HIGHEST),
        "Steps where it is lowest": _one_each(order, vals, HIGHEST),
        "Steps drawn blind": _one_each(blind, vals, BLIND),
    }
    answers = sorted({int(vals.trajectory[row]) for rows in chosen.values() for row in rows})
    name = str(site)
    acts = record(model, runs.subset(answers), name, rows="tokens", progress=False)[name]
    most = float(acts.x[:, index].abs().max()) or 1.0
    panels: list[Panel] = []
    for title, rows in chosen.items():
        parts = []
        for row in rows:
            answer = int(vals.trajectory[row])
            here = acts.trajectory == answers.index(answer)
            read = acts.x[torch.from_numpy(here), index].numpy().astype(float)
            label = f"{signed(x[row])}, V {decimals(vals.mean[row])}"
            parts.append(_said(model, runs, answer, int(vals.step[row]), read, most, label))
        margin = max(len(part.label) for part in parts) + 2 if parts else 0
        if parts:
            panels.append(Text(title, parts, margin))
    return panels


def _said(
    model: Any,
    runs: Rollouts,
    answer: int,
    step: int,
    read: np.ndarray,
    most: float,
    label: str,
) -> Said:
    """A step behind a little context, each token tinted by the activation at it."""
    run = runs[answer]
    span = run.span(step)
    start = max(0, span.start - CONTEXT)
    texts = [text.replace("\n", "↵") for text in joined_pieces(model, run.tokens)]
    numbers = read[start : span.stop].tolist()
    shades = [number / most for number in numbers]
    return Said(label, "", False, texts[start : span.stop], numbers, shades, span.start - start)


def _one_each(rows: np.ndarray, vals: Values, most: int) -> list[int]:
    """The first rows of each problem."""
    seen, kept = set(), []
    for row in rows.tolist():
        problem = int(vals.group[row])
        if problem not in seen and len(kept) < most:
            seen.add(problem)
            kept.append(row)
    return kept


def _words(model: Any, site: Site, index: int) -> dict[str, str]:
    """Tokens that the unembedding of a neuron's direction makes likelier and less likely."""
    unembed = getattr(getattr(model, "unembed", None), "W_U", None)
    if unembed is None:
        return {}
    direction = unembed[index] if site.kind != "mlp" else _write_of(model, site, index, unembed)
    if direction is None:
        return {}
    logits = direction.detach().float().cpu()
    vocabulary = len(model.tokenizer)
    order = logits[:vocabulary].argsort(descending=True, stable=True).tolist()
    lines = {}
    for name, tokens in (("more", order[:WORDS]), ("less", order[::-1][:WORDS])):
        texts = [visible(text.replace("\n", "↵")) or "⟨⟩" for text in pieces(model, tokens)]
        lines[name] = "  ".join(texts)
    return lines


def _write_of(model: Any, site: Site, index: int, unembed: torch.Tensor) -> torch.Tensor | None:
    """What an MLP unit writes, as logits; None where its block has no such weights."""
    out = getattr(getattr(model.blocks[site.layer], "mlp", None), "W_out", None)
    return None if out is None else out[index] @ unembed


__all__ = ["neuron"]
