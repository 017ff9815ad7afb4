"""From the rows of steering and patching (R14) to sentences, by the rules of `findings`."""

from __future__ import annotations

import numpy as np

from mechreward import stats
from mechreward.experiments.rows import Results
from mechreward.report.select import kind_of, of, of_matched, ranked
from mechreward.report.words import among, bounds, few, span


def _steers(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    told = []
    for arm, control in (("value", "matched"), ("dopamine", "matched_dopamine")):
        rows = of(results.where(experiment="R14", arm=arm, metric="contrast"), kind)
        if not rows:
            continue
        p = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
        most = int(np.argmax([row.estimate for row in rows]))
        row, value, where = (
            rows[most],
            p[most],
            (rows[most].detail["place"], rows[most].detail["strength"]),
        )
        beside = results.where(experiment="R14", arm=control, metric="contrast", site=row.site)
        other = next(
            (one for one in beside if (one.detail["place"], one.detail["strength"]) == where), None
        )
        good = bool(value < 0.05 and row.estimate > 0 and other is not None and ranked(other))
        largest = ", ".join(
            f"{at} {bounds(max((one for one in rows if one.detail['place'] == at), key=lambda one: one.estimate))}"
            for at in dict.fromkeys(one.detail["place"] for one in rows)
        )
        told.append(
            (
                good,
                f"Steering {arm} neurons ({name}) up instead of down, at strength {row.detail['strength']} (standard "
                f"deviations) and {row.detail['place']} positions, changes accuracy by {row.interval}: McNemar "
                f"p={value:.2g} after Holm over {len(rows)} strengths and places{among(other)}; largest at each "
                f"place: {largest} (R14).",
            )
        )
    return told


def _same_damage(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    every = results.where(experiment="R14", metric="contrast_at_kl")
    sets = [row for row in every if "p_mcnemar" in row.detail]
    corrected = stats.holm(np.array([row.detail["p_mcnemar"] for row in sets])) if sets else []
    told = []
    for row, p in zip(sets, corrected, strict=True):
        controls = {"value": ("matched", "random"), "dopamine": ("matched_dopamine",)}[row.arm]
        others = [one for one in of(every, kind) if one.arm in controls]
        if kind_of(row) != kind or not others:
            continue
        matched = next((one for one in others if one.arm == controls[0]), None)
        sets_ranked = 0 if matched is None else matched.detail["sets"]  # random sets come on top
        beyond = bool(p < 0.05 and row.estimate > max(one.high for one in others))
        short = (
            few(sets_ranked) if beyond else ""
        )  # where nothing is seen, more sets would change nothing
        said = "; ".join(
            f"{one.detail['sets']} {one.arm.partition('_')[0]} sets, {one.detail['factor']:.1f} times as strong, by "
            f"{one.low:.2f} to {one.high:.2f}"
            for one in others
        )
        told.append(
            (
                beyond and not short,
                f"At one damage (KL {row.detail['kl']:.2g} nats per token), steering {row.arm} neurons ({name}) up "
                f"instead of down at strength {row.detail['strength']} changes accuracy by {row.interval}: McNemar "
                f"p={p:.2g} after Holm over {len(sets)} sets; {said}{short} (R14).",
            )
        )
    return told


def _by_share(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    rows = of(results.where(experiment="R14", arm="value", metric="contrast_at_share"), kind)
    if not rows:
        return []
    p = stats.holm(np.array([row.detail["p_mcnemar"] for row in rows]))
    most = int(np.argmax([row.estimate for row in rows]))
    row, other = rows[most], of_matched(results, rows[most], "contrast_at_share", "share")
    good = bool(p[most] < 0.05 and row.estimate > 0 and other is not None and ranked(other))
    shares = ", ".join(f"{one.detail['share']:.1%}" for one in rows)
    return [
        (
            good,
            f"Of {shares} of the {name} at {row.site}, the best {row.detail['share']:.1%} "
            f"({row.detail['neurons']}) move accuracy most when steered up instead of "
            f"down by one standard deviation: {row.interval}, McNemar "
            f"p={p[most]:.2g} after Holm over the shares{among(other)} (R14).",
        )
    ]


def _patched(results: Results, kind: str, name: str) -> list[tuple[bool, str]]:
    told = []
    for arm, control in (("value", "matched"), ("dopamine", "matched_dopamine")):
        rows = {
            (row.arm, row.detail["into"]): row
            for row in of(results.where(experiment="R14", metric="patched"), kind)
            if row.arm in (arm, control, "all neurons")
        }
        if not {(arm, "low"), (arm, "high")} <= set(rows):
            continue
        up, down = rows[arm, "low"], rows[arm, "high"]
        above, below = rows.get((control, "low")), rows.get((control, "high"))
        beyond = up.low > 0 and down.high < 0
        beyond = beyond and (above is None or up.estimate > above.high)
        beyond = beyond and (below is None or down.estimate < below.low)
        draws = min(0 if row is None else row.n for row in (above, below))
        short = few(draws) if beyond else ""
        controls = (
            "; matched sets by " + " and ".join(span(row) for row in (above, below) if row)
            if draws
            else ""
        )
        whole = [
            rows["all neurons", into] for into in ("low", "high") if ("all neurons", into) in rows
        ]
        both = " and ".join(map(bounds, whole))
        beside = f"; all neurons of the site by {both}" if arm == "value" and whole else ""
        told.append(
            (
                bool(beyond and not short),
                f"Patching {arm} neurons ({name} at {up.detail['at']}) from high- into low-V states of one problem "
                f"changes V-hat by {up.interval}, from low- into high-V ones by {down.interval}{beside}"
                f"{controls}{short} (R14).",
            )
        )
    return told


STEERED = (_steers, _same_damage, _by_share, _patched)
