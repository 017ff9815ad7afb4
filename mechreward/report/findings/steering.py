"""Rules about steering and patching (R14): do the neurons move accuracy and V-hat both ways?"""

from __future__ import annotations

from mechreward.experiments.rows import Results, Row
from mechreward.report.findings.finding import Finding, first, with_detail, with_holm
from mechreward.report.select import LEVEL, kind_of, of, of_matched, ranked
from mechreward.report.words import among, bounds, few, span

# Steered and patched sets, and the arm of the sets matched to them.
MATCHED = {"value": "matched", "dopamine": "matched_dopamine"}


def steers(results: Results, kind: str, name: str) -> list[Finding]:
    """R14: up instead of down, at the place and strength where accuracy moves most."""
    findings = []
    for arm, control in MATCHED.items():
        rows = of(results.where(experiment="R14", arm=arm, metric="contrast"), kind)
        if not rows:
            continue
        row, p = _largest(with_holm(rows))
        place = row.detail["place"]
        strength = row.detail["strength"]
        controls = results.where(experiment="R14", arm=control, metric="contrast", site=row.site)
        matched = first(with_detail(controls, place=place, strength=strength))

        holds = p < LEVEL and row.estimate > 0 and matched is not None and ranked(matched)

        sentence = (
            f"Steering {arm} neurons ({name}) up instead of down, at strength {strength} "
            f"(standard deviations) and {place} positions, changes accuracy by {row.interval}: "
            f"McNemar p={p:.2g} after Holm over {len(rows)} strengths and places{among(matched)}; "
            f"largest at each place: {_by_place(rows)} (R14)."
        )
        findings.append(Finding(holds, sentence))
    return findings


def _largest(tested: list[tuple[Row, float]]) -> tuple[Row, float]:
    """The row with the largest estimate, and its p."""
    return max(tested, key=lambda pair: pair[0].estimate)


def _by_place(rows: list[Row]) -> str:
    """The largest contrast at each place."""
    largest: dict[str, Row] = {}
    for row in rows:
        place = row.detail["place"]
        if place not in largest or row.estimate > largest[place].estimate:
            largest[place] = row
    return ", ".join(f"{place} {bounds(row)}" for place, row in largest.items())


def at_one_damage(results: Results, kind: str, name: str) -> list[Finding]:
    """R14: each set beside controls steered so far that they do as much damage."""
    rows = results.where(experiment="R14", metric="contrast_at_kl")
    tested = [row for row in rows if "p_mcnemar" in row.detail]
    findings = []
    for row, p in with_holm(tested):
        if kind_of(row) != kind:
            continue
        arms = [MATCHED[row.arm]]
        if row.arm == "value":
            arms.append("random")
        controls = [control for control in of(rows, kind) if control.arm in arms]
        if not controls:
            continue
        matched = first([control for control in controls if control.arm == MATCHED[row.arm]])
        sets = 0 if matched is None else matched.detail["sets"]  # random sets come on top

        beyond = p < LEVEL and row.estimate > max(control.high for control in controls)
        # Where nothing is seen, more sets would change nothing.
        too_few = few(sets) if beyond else ""
        holds = beyond and not too_few

        effects = []
        for control in controls:
            effects.append(
                f"{control.detail['sets']} {control.arm.partition('_')[0]} sets, "
                f"{control.detail['factor']:.1f} times as strong, by {span(control)}"
            )
        sentence = (
            f"At one damage (KL {row.detail['kl']:.2g} nats per token), steering {row.arm} neurons "
            f"({name}) up instead of down at strength {row.detail['strength']} changes accuracy by "
            f"{row.interval}: McNemar p={p:.2g} after Holm over {len(tested)} sets; "
            f"{'; '.join(effects)}{too_few} (R14)."
        )
        findings.append(Finding(holds, sentence))
    return findings


def by_share(results: Results, kind: str, name: str) -> list[Finding]:
    """R14: up instead of down, at the share of neurons that moves accuracy most."""
    rows = of(results.where(experiment="R14", arm="value", metric="contrast_at_share"), kind)
    if not rows:
        return []
    row, p = _largest(with_holm(rows))
    matched = of_matched(results, row, "contrast_at_share", "share")

    holds = p < LEVEL and row.estimate > 0 and matched is not None and ranked(matched)

    shares = ", ".join(f"{steered.detail['share']:.1%}" for steered in rows)
    sentence = (
        f"Of {shares} of the {name} at {row.site}, the best {row.detail['share']:.1%} "
        f"({row.detail['neurons']}) move accuracy most when steered up instead of down by one "
        f"standard deviation: {row.interval}, McNemar p={p:.2g} after Holm over the shares"
        f"{among(matched)} (R14)."
    )
    return [Finding(holds, sentence)]


def patched(results: Results, kind: str, name: str) -> list[Finding]:
    """R14: V-hat after patching from high- into low-V states of one problem, and back."""
    findings = []
    for arm, control in MATCHED.items():
        up = _patched_into("low", arm, results, kind)
        down = _patched_into("high", arm, results, kind)
        if up is None or down is None:
            continue
        matched_up = _patched_into("low", control, results, kind)
        matched_down = _patched_into("high", control, results, kind)

        beyond = up.low > 0 and down.high < 0
        beyond = beyond and (matched_up is None or up.estimate > matched_up.high)
        beyond = beyond and (matched_down is None or down.estimate < matched_down.low)
        draws = 0
        if matched_up is not None and matched_down is not None:
            draws = min(matched_up.n, matched_down.n)
        # Where nothing is seen, more sets would change nothing.
        too_few = few(draws) if beyond else ""
        holds = beyond and not too_few

        beside = ""
        if arm == "value":
            beside += _whole_site(results, kind)
        if matched_up is not None and matched_down is not None:
            beside += f"; matched sets by {span(matched_up)} and {span(matched_down)}"
        sentence = (
            f"Patching {arm} neurons ({name} at {up.detail['at']}) from high- into low-V states of "
            f"one problem changes V-hat by {up.interval}, from low- into high-V ones by "
            f"{down.interval}{beside}{too_few} (R14)."
        )
        findings.append(Finding(holds, sentence))
    return findings


def _patched_into(into: str, arm: str, results: Results, kind: str) -> Row | None:
    """The row of an arm patched into states of low or high V."""
    rows = of(results.where(experiment="R14", metric="patched", arm=arm), kind)
    return first(with_detail(rows, into=into))


def _whole_site(results: Results, kind: str) -> str:
    """What patching all neurons of the site does; nothing where that was not done."""
    effects = []
    for into in ("low", "high"):
        row = _patched_into(into, "all neurons", results, kind)
        if row is not None:
            effects.append(bounds(row))
    return f"; all neurons of the site by {' and '.join(effects)}" if effects else ""
