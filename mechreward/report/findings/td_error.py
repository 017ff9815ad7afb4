"""TD errors, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from mechreward.experiments.rows import Results, Row
from mechreward.report.select import RANKED, apart, kind_of, of
from mechreward.report.words import few


def _dopamine(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [
        row
        for row in results.where(experiment="R8", arm="dopamine", metric="spearman")
        if kind_of(row) == kind
        and row.detail.get("fitted") == "all steps"
        and row.detail.get("tested") == "all steps"
    ]
    if not rows:
        return []
    (row,) = rows
    good = row.low > 0
    words = "is readable" if good else "is not shown to be readable"
    return [
        (
            good,
            f"The TD error {words} from {name} at {row.site}: Spearman {row.interval} over all steps (R8).",
        )
    ]


def _single(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [row for row in results.where(experiment="R9") if kind_of(row) == kind]
    if not rows:
        return []
    own = next(row for row in rows if row.metric == "spearman")
    most, null = (
        next(row for row in rows if row.metric == "max_spearman" and row.arm == arm)
        for arm in ("dopamine", "shuffled")
    )
    beyond = own.estimate > null.high
    good = bool(own.low > 0 and beyond)
    words = "follows delta on test" if good else "is not shown to follow delta on test"
    return [
        (
            good,
            f"Neuron {own.detail['neuron']} of the {name} at {own.site}, chosen on train, {words}: Spearman "
            f"{own.interval}, {'above' if beyond else 'not above'} {null.high:.3f}, the 97.5% quantile of the largest "
            f"of all {most.n} neurons under shuffles. The largest on test, whichever neuron that is, has "
            f"{most.estimate:.3f} (p={most.detail['p']:.2g} against the same shuffles; R9).",
        )
    ]


def _depends(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = of(results.where(experiment="R10"), kind)
    if not rows:
        return []
    clean = next(row for row in rows if row.arm == "baseline")
    change = next(row for row in rows if row.arm == "value" and row.metric == "change")
    beyond = next(row for row in rows if row.metric == "beyond_matched")
    d = beyond.detail
    below = f"{change.detail['layers']} earlier layer{'s' if change.detail['layers'] > 1 else ''}"
    if not clean.low > 0:
        return [
            (
                False,
                f"Whether value neurons of {below} feed the dopamine neurons among "
                f"the {name} at {clean.site}, the test cannot tell: with nothing zeroed these are read with Spearman "
                f"{clean.interval}, not shown to be above 0, so that there is nothing to lose (zeroing "
                f"{change.detail['zeroed']} value neurons changes it by {change.interval}; R10).",
            )
        ]
    good = beyond.high < 0 and d["rank"] == 1 and d["draws"] >= RANKED
    return [
        (
            bool(good),
            f"Zeroing the {change.detail['zeroed']} value neurons of {below} changes "
            f"the Spearman with which the dopamine neurons among the {name} at {clean.site} are read "
            f"({clean.interval}) by {change.interval}; beyond as many matched neurons: {beyond.interval}, rank "
            f"{d['rank']} of {d['draws'] + 1} (p={d['p_rank']:.2g}){few(d['draws'])} (R10).",
        )
    ]


UNCUT = "all steps"


def _cut(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    """R8: fitted and tested with the paper's cut, and without it."""
    rows = _steps(results, kind, "spearman")
    cut = next(
        (row for row in rows if UNCUT not in (row.detail["fitted"], row.detail["tested"])), None
    )
    plain = next(
        (row for row in rows if row.detail["fitted"] == row.detail["tested"] == UNCUT), None
    )
    if cut is None or plain is None:
        return []
    mixed = next(
        (row for row in rows if row.detail["fitted"] != UNCUT == row.detail["tested"]), None
    )
    also = f"; fitted with the cut but tested without it: {mixed.interval}" if mixed else ""
    side = {1: "higher with the cut", -1: "lower with the cut", 0: "not told apart"}[
        apart(cut, plain)
    ]
    return [
        (
            side != "not told apart",
            f"With the paper's cut ({cut.detail['fitted']}, fitted and tested), Spearman with delta from {name} at "
            f"{cut.site} is {cut.interval}, without it {plain.interval}{also}: {side} (R8).",
        )
    ]


def _future(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    """R8: standardised over the whole response, which holds the future, and over what has been said
    so far."""
    rows = [row for row in _steps(results, kind, "spearman_z") if row.detail["tested"] == UNCUT]
    ways = {row.detail["z"]: row for row in rows}
    if not {"response", "running"} <= set(ways):
        return []
    whole, running = ways["response"], ways["running"]
    plain = [
        row
        for row in _steps(results, kind, "spearman")
        if row.detail["fitted"] == row.detail["tested"] == UNCUT
    ]
    also = "".join(
        f", on the training split, which sees no future either, {row.interval}" for row in plain
    )
    above = apart(whole, running) > 0
    leak = above and all(apart(whole, row) > 0 for row in plain)
    side = (
        "higher with the future in it: a leak, which no online reader has"
        if leak
        else "not told apart"
    )
    if above and not leak:
        side = "higher than running, where the first step of an answer is 0 by construction; not told from the other"
    return [
        (
            leak,
            f"Standardised over the whole response, as in the paper, Spearman with delta from {name} at {whole.site} "
            f"is {whole.interval}, over no more than what has been said so far {running.interval}{also}: {side} (R8).",
        )
    ]


def _steps(results: Results, kind: str, metric: str) -> Sequence[Row]:
    """R8's rows that say what they were fitted and tested on."""
    rows = results.where(experiment="R8", arm="dopamine", metric=metric)
    return [row for row in rows if kind_of(row) == kind and {"fitted", "tested"} <= set(row.detail)]
