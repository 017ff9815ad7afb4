"""Rules about TD errors: are they readable, from one neuron, dependent on value (R8 to R10)?"""

from __future__ import annotations

from mechreward.experiments.rows import Results, Row
from mechreward.report.findings.finding import Finding, first, with_detail
from mechreward.report.findings.value import sparse
from mechreward.report.select import RANKED, apart, of
from mechreward.report.words import few

UNCUT = "all steps"  # fitted or tested without the paper's cut of small TD errors


def dopamine(results: Results, kind: str, name: str) -> list[Finding]:
    """R8: delta, read from all neurons over all steps."""
    rows = with_detail(_read(results, kind, "spearman"), fitted=UNCUT, tested=UNCUT)
    if not rows:
        return []
    (row,) = rows

    holds = row.low > 0

    is_readable = "is readable" if holds else "is not shown to be readable"
    sentence = (
        f"The TD error {is_readable} from {name} at {row.site}: Spearman {row.interval} over "
        "all steps (R8)."
    )
    return [Finding(holds, sentence)]


def sparse_dopamine(results: Results, kind: str, name: str) -> list[Finding]:
    """R8: the few neurons left at the smallest share, for delta."""
    return sparse(results, "R8", "dopamine", "delta", kind, name)


def single_neuron(results: Results, kind: str, name: str) -> list[Finding]:
    """R9: the neuron chosen on train, held against the largest of all under shuffles."""
    chosen = first(of(results.where(experiment="R9", metric="spearman"), kind))
    if chosen is None:
        return []
    largest = of(results.where(experiment="R9", metric="max_spearman", arm="dopamine"), kind)[0]
    shuffled = of(results.where(experiment="R9", metric="max_spearman", arm="shuffled"), kind)[0]

    beyond = chosen.estimate > shuffled.high
    holds = chosen.low > 0 and beyond

    follows = "follows delta on test" if holds else "is not shown to follow delta on test"
    above = "above" if beyond else "not above"
    sentence = (
        f"Neuron {chosen.detail['neuron']} of the {name} at {chosen.site}, chosen on train, "
        f"{follows}: Spearman {chosen.interval}, {above} {shuffled.high:.3f}, the 97.5% quantile "
        f"of the largest of all {largest.n} neurons under shuffles. The largest on test, whichever "
        f"neuron that is, has {largest.estimate:.3f} (p={largest.detail['p']:.2g} against the same "
        "shuffles; R9)."
    )
    return [Finding(holds, sentence)]


def depends(results: Results, kind: str, name: str) -> list[Finding]:
    """R10: what zeroing value neurons of earlier layers takes from the dopamine read-out."""
    clean = first(of(results.where(experiment="R10", arm="baseline"), kind))
    if clean is None:
        return []
    change = of(results.where(experiment="R10", arm="value", metric="change"), kind)[0]
    beyond = of(results.where(experiment="R10", metric="beyond_matched"), kind)[0]
    rank = beyond.detail["rank"]
    draws = beyond.detail["draws"]
    layers = change.detail["layers"]
    earlier = f"{layers} earlier layer{'s' if layers > 1 else ''}"

    can_tell = clean.low > 0
    holds = can_tell and beyond.high < 0 and rank == 1 and draws >= RANKED

    if can_tell:
        sentence = (
            f"Zeroing the {change.detail['zeroed']} value neurons of {earlier} changes the "
            f"Spearman with which the dopamine neurons among the {name} at {clean.site} are read "
            f"({clean.interval}) by {change.interval}; beyond as many matched neurons: "
            f"{beyond.interval}, rank {rank} of {draws + 1} (p={beyond.detail['p_rank']:.2g})"
            f"{few(draws)} (R10)."
        )
    else:
        sentence = (
            f"Whether value neurons of {earlier} feed the dopamine neurons among the {name} at "
            f"{clean.site}, the test cannot tell: with nothing zeroed these are read with Spearman "
            f"{clean.interval}, not shown to be above 0, so that there is nothing to lose (zeroing "
            f"{change.detail['zeroed']} value neurons changes it by {change.interval}; R10)."
        )
    return [Finding(holds, sentence)]


def cut(results: Results, kind: str, name: str) -> list[Finding]:
    """R8: fitted and tested with the paper's cut, and without it."""
    with_cut = without = mixed = None
    for row in _read(results, kind, "spearman"):
        fitted_uncut = row.detail["fitted"] == UNCUT
        tested_uncut = row.detail["tested"] == UNCUT
        if fitted_uncut and tested_uncut:
            without = row
        elif tested_uncut:
            mixed = row
        elif not fitted_uncut:
            with_cut = row
    if with_cut is None or without is None:
        return []

    side = apart(with_cut, without)
    holds = side != 0

    mixture = ""
    if mixed is not None:
        mixture = f"; fitted with the cut but tested without it: {mixed.interval}"
    told_apart = {1: "higher with the cut", -1: "lower with the cut", 0: "not told apart"}[side]
    sentence = (
        f"With the paper's cut ({with_cut.detail['fitted']}, fitted and tested), Spearman with "
        f"delta from {name} at {with_cut.site} is {with_cut.interval}, without it "
        f"{without.interval}{mixture}: {told_apart} (R8)."
    )
    return [Finding(holds, sentence)]


def future(results: Results, kind: str, name: str) -> list[Finding]:
    """R8: standardised over the whole response, which holds the future, and over what has been said
    so far."""
    z_scored = with_detail(_read(results, kind, "spearman_z"), tested=UNCUT)
    response = first(with_detail(z_scored, z="response"))
    running = first(with_detail(z_scored, z="running"))
    if response is None or running is None:
        return []
    training = with_detail(_read(results, kind, "spearman"), fitted=UNCUT, tested=UNCUT)

    above_running = apart(response, running) > 0
    above_training = all(apart(response, row) > 0 for row in training)
    leak = above_running and above_training

    other_standard = ""
    for row in training:
        other_standard += f", on the training split, which sees no future either, {row.interval}"
    if leak:
        told_apart = "higher with the future in it: a leak, which no online reader has"
    elif above_running:
        told_apart = (
            "higher than running, where the first step of an answer is 0 by construction; "
            "not told from the other"
        )
    else:
        told_apart = "not told apart"
    sentence = (
        f"Standardised over the whole response, as in the paper, Spearman with delta from {name} "
        f"at {response.site} is {response.interval}, over no more than what has been said so far "
        f"{running.interval}{other_standard}: {told_apart} (R8)."
    )
    return [Finding(leak, sentence)]


def _read(results: Results, kind: str, metric: str) -> list[Row]:
    """R8's rows of all neurons: those that say what they were fitted and tested on."""
    rows = of(results.where(experiment="R8", arm="dopamine", metric=metric), kind)
    return [row for row in rows if {"fitted", "tested"} <= set(row.detail)]
