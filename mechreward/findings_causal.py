"""From the rows of ablations, patches and steering (R4, R10, R14) to sentences, by the rules of `findings`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechreward import stats
from mechreward.results import Results, Row


def kind_of(row: Row) -> str:
    """Kind of neuron a row is about."""
    return row.site.partition(".")[2]


def ablated(results: Results) -> list[tuple[bool, str]]:
    """R4: one sentence for each operation and kind of neuron."""
    rows = results.where(experiment="R4", arm="value", metric="accuracy")
    if not rows:
        return []
    adjusted = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
    told = []
    for row, p in zip(rows, adjusted, strict=True):
        d = row.detail
        change = next(
            r
            for r in results.where(experiment="R4", arm="value", metric="change", site=row.site)
            if r.detail["op"] == d["op"]
        )
        good = p < 0.05 and d["rank"] == 1 and d["matched"]
        match = "" if d["matched"] else f"; the controls do not match (error {d['match_error']:.2f})"
        told.append(
            (
                bool(good),
                f"{d['op'].capitalize()} ablation of {d['neurons']} value neurons at {row.site} changes accuracy by "
                f"{change.interval}; McNemar p={p:.3g} after Holm over {len(rows)} ablations; rank {d['rank']} of "
                f"{d['draws'] + 1} among matched sets (p={d['p_rank']:.2g}, not corrected){match} (R4).",
            )
        )
    return told


def _depends(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = _of(results.where(experiment="R10"), kind)
    if not rows:
        return []
    clean = next(row for row in rows if row.arm == "baseline")
    change = next(row for row in rows if row.arm == "value" and row.metric == "change")
    beyond = next(row for row in rows if row.metric == "beyond_matched")
    d = beyond.detail
    good = beyond.high < 0 and d["rank"] == 1
    return [
        (
            bool(good),
            f"Zeroing the {change.detail['zeroed']} value neurons of {change.detail['layers']} earlier layers changes "
            f"the Spearman with which the dopamine neurons among the {name} at {clean.site} are read "
            f"({clean.interval}) by {change.interval}; beyond as many matched neurons: {beyond.interval}, rank "
            f"{d['rank']} of {d['draws'] + 1} (p={d['p_rank']:.2g}) (R10).",
        )
    ]


def _steers(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    told = []
    for arm, control in (("value", "matched"), ("dopamine", "matched_dopamine")):
        rows = _of(results.where(experiment="R14", arm=arm, metric="contrast"), kind)
        if not rows:
            continue
        p = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
        most = int(np.argmax([row.estimate for row in rows]))
        row, value, where = rows[most], p[most], (rows[most].detail["place"], rows[most].detail["strength"])
        beside = results.where(experiment="R14", arm=control, metric="contrast", site=row.site)
        other = next((one for one in beside if (one.detail["place"], one.detail["strength"]) == where), None)
        good = bool(value < 0.05 and row.estimate > 0 and other is not None and ranked(other))
        places = {one.detail["place"]: 0.0 for one in rows}
        each = {at: max(one.estimate for one in rows if one.detail["place"] == at) for at in places}
        largest = ", ".join(f"{at} {gap:+.2f}" for at, gap in each.items())
        told.append(
            (
                good,
                f"Steering {arm} neurons ({name}) up instead of down, at strength {row.detail['strength']} (standard "
                f"deviations) and {row.detail['place']} positions, changes accuracy by {row.interval}: McNemar "
                f"p={value:.2g} after Holm over {len(rows)} strengths and places{_among(other)}; largest at each "
                f"place: {largest} (R14).",
            )
        )
    return told


def ranked(other: Row) -> bool:
    """Whether a set is first among all of its matched sets, at .05."""
    return other.detail.get("p_rank", 1.0) <= 0.05


def _among(other: Row | None) -> str:
    if other is None:
        return ""
    rank = f" (rank p={other.detail['p_rank']:.2g})" if "p_rank" in other.detail else ""
    return (
        f"; {other.detail['sets']} matched sets at the same displacement by {other.low:.2f} to {other.high:.2f}{rank}"
    )


def _same_damage(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    every = results.where(experiment="R14", metric="contrast_at_kl")
    sets = [row for row in every if "p_mcnemar" in row.detail]
    corrected = stats.holm(np.array([row.detail["p_mcnemar"] for row in sets])) if sets else []
    told = []
    for row, p in zip(sets, corrected, strict=True):
        controls = {"value": ("matched", "random"), "dopamine": ("matched_dopamine",)}[row.arm]
        others = [one for one in _of(every, kind) if one.arm in controls]
        if kind_of(row) != kind or not others:
            continue
        good = bool(p < 0.05 and row.estimate > max(one.high for one in others))
        said = "; ".join(
            f"{one.detail['sets']} {one.arm.partition('_')[0]} sets, {one.detail['factor']:.1f} times as strong, by "
            f"{one.low:.2f} to {one.high:.2f}"
            for one in others
        )
        told.append(
            (
                good,
                f"At one damage (KL {row.detail['kl']:.2g} nats per token), steering {row.arm} neurons ({name}) up "
                f"instead of down at strength {row.detail['strength']} changes accuracy by {row.interval}: McNemar "
                f"p={p:.2g} after Holm over {len(sets)} sets; {said} (R14).",
            )
        )
    return told


def _by_share(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = _of(results.where(experiment="R14", arm="value", metric="contrast_at_share"), kind)
    if not rows:
        return []
    p = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
    most = int(np.argmax([row.estimate for row in rows]))
    row, other = rows[most], _beside(results, rows[most], "contrast_at_share", "share")
    good = bool(p[most] < 0.05 and row.estimate > 0 and other is not None and ranked(other))
    shares = ", ".join(f"{one.detail['share']:.1%}" for one in rows)
    return [
        (
            good,
            f"Of {shares} of the {name} at {row.site}, the best {row.detail['share']:.1%} "
            f"({row.detail['neurons']}) move accuracy most when steered up instead of "
            f"down by one standard deviation: {row.interval}, McNemar "
            f"p={p[most]:.2g} after Holm over the shares{_among(other)} (R14).",
        )
    ]


def _patched(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    told = []
    for arm, control in (("value", "matched"), ("dopamine", "matched_dopamine")):
        rows = {
            (row.arm, row.detail["into"]): row
            for row in _of(results.where(experiment="R14", metric="patched"), kind)
            if row.arm in (arm, control, "all neurons")
        }
        if not {(arm, "low"), (arm, "high")} <= set(rows):
            continue
        up, down = rows[arm, "low"], rows[arm, "high"]
        above, below = rows.get((control, "low")), rows.get((control, "high"))
        good = up.low > 0 and down.high < 0
        good = good and (above is None or up.estimate > above.high) and (below is None or down.estimate < below.low)
        whole = [rows["all neurons", into] for into in ("low", "high") if ("all neurons", into) in rows]
        both = " and ".join(f"{row.estimate:+.2f}" for row in whole)
        beside = f"; all neurons of the site by {both}" if arm == "value" and whole else ""
        told.append(
            (
                bool(good),
                f"Patching {arm} neurons ({name} at {up.detail['at']}) from high- into low-V states of one problem "
                f"changes V-hat by {up.interval}, from low- into high-V ones by {down.interval}{beside} (R14).",
            )
        )
    return told


def _repaired(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = _of(results.where(experiment="R4", arm="value", metric="restored"), kind)
    if not rows:
        return []
    last = max(int(row.detail["at"].partition(".")[0]) for row in rows)
    rows = [row for row in rows if row.detail["at"].startswith(f"{last}.")]
    beside = [_beside(results, row, "restored", "at") for row in rows]
    p = stats.holm(np.array([_rank_p(row, other) for row, other in zip(rows, beside, strict=True)]))
    said = []
    for row, other, value in zip(rows, beside, p, strict=True):
        sets = f", {other.detail['sets']} matched sets up to {other.high:.2f}" if other else ""
        rank = f" (rank p={value:.2g})" if other and "p_rank" in other.detail else ""
        said.append(f"{row.site} {row.estimate:.2f} [{row.low:.2f}, {row.high:.2f}]{sets}{rank}")
    good = bool(p.min() <= 0.05)
    return [
        (
            good,
            f"Self-repair: the part that layer {last} has undone of what zeroing the value {name} of an earlier layer "
            f"takes from the read-out of V-hat, by layer: {'; '.join(said)}; {'' if good else 'not '}shown to be above "
            f"0 and above matched sets, Holm over {len(rows)} layers (R4).",
        )
    ]


def _rank_p(row: Row, other: Row | None) -> float:
    """Rank p of what lies above 0 among its matched sets; 1 where it does not, or was not ranked."""
    return other.detail.get("p_rank", 1.0) if other and row.low > 0 else 1.0


def _rankings(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = [row for row in _of(results.where(experiment="R4", metric="gap"), kind) if "p" in row.detail]
    if not rows:
        return []
    p = stats.holm(np.array([row.detail["p"] for row in rows]))
    zeroed = [(row, value) for row, value in zip(rows, p, strict=True) if row.detail["op"] == "zero"]
    good = all(row.estimate > 0 and value < 0.05 for row, value in zeroed)
    said = "; ".join(f"{row.arm.replace('_', ' ')} {row.estimate:+.2f} (p={value:.2g})" for row, value in zeroed)
    words = "costs more accuracy than zeroing" if good else "is not shown to cost more accuracy than zeroing each of"
    return [
        (
            good,
            f"Zeroing the value neurons ({name}) {words} as many of other rankings: {said}; McNemar, Holm over "
            f"{len(rows)} (R4).",
        )
    ]


def _elsewhere(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = _of(results.where(experiment="R4", arm="value", metric="change_elsewhere"), kind)
    if not rows:
        return []
    p = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
    said, good = [], False
    for row, value in zip(rows, p, strict=True):
        beside = results.where(experiment="R4", metric="accuracy_elsewhere", site=row.site)
        same = {one.arm: one for one in beside if one.detail.get("op") == row.detail["op"] and _on(one) == _on(row)}
        own, other = same["value"], same["matched"]
        good = good or bool(value < 0.05 and own.estimate < other.low)
        said.append(
            f"{_on(row)}, {row.detail['op']} {row.estimate:+.2f} [{row.low:+.2f}, {row.high:+.2f}] (p={value:.2g}) to "
            f"{own.estimate:.2f}, {other.detail['sets']} matched sets to {other.low:.2f} to {other.high:.2f}"
        )
    words = "is felt" if good else "is not shown to be felt"
    return [(good, f"Ablating the value neurons ({name}) {words} on other tasks: {'; '.join(said)}; Holm (R4).")]


def _on(row: Row) -> str:
    return row.detail["on"]


CAUSAL = (_rankings, _elsewhere, _repaired, _depends, _steers, _same_damage, _by_share, _patched)


def _of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if kind_of(row) == kind]


def _beside(results: Results, row: Row, metric: str, key: str) -> Row | None:
    """The matched sets' row at the same place."""
    found = results.where(experiment=row.experiment, arm="matched", metric=metric, site=row.site)
    return next((one for one in found if one.detail[key] == row.detail[key]), None)
