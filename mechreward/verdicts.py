"""What a calibration says: one line for each target, and docs/calibration.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mechreward import stats
from mechreward._files import write_atomic
from mechreward.causal.claims import CLAIMS
from mechreward.results import Results, Row
from mechreward.testbed.calibrate import RECOMMENDED
from mechreward.testbed.certify_rates import FALSE, SIZES
from mechreward.testbed.coverage import BAND

KINDS = ("value", "dopamine")
NEAR = {"sparse": 1, "redundant": 0, "distributed": 0}  # what sparsity beyond redundancy should be


def verdicts(results: Results) -> list[str]:
    """One line a target: reached or not, with the figures."""
    return [
        *(_recall(results, what) for what in KINDS),
        _alarms(results),
        *_recognised(results),
        _levels(results),
        *_certified(results),
        _coverage(results),
    ]


def covers(row: Row) -> str:
    """`yes`: 93 to 97% of the runs. Otherwise `too seldom` or `too often` if that is beyond the sampling error of the
    runs, else `unclear`."""
    if BAND[0] <= row.estimate <= BAND[1]:
        return "yes"
    return "too seldom" if row.high < BAND[0] else "too often" if row.low > BAND[1] else "unclear"


def _recall(results: Results, what: str) -> str:
    rows = results.where(metric="recall", arm=f"{what}: {RECOMMENDED}")
    whole, seeds = sum(row.detail["all"] for row in rows), sum(row.n for row in rows)
    fooled = sorted({name for row in rows for name in row.detail["fooled_by"]})
    return (
        f"{_reached(whole == seeds and not fooled)}: planted {what} neurons found by {RECOMMENDED}, the recommended "
        f"ranking: all of them in {stats.proportion(whole, seeds)} of planted sets; decoys taken: "
        f"{', '.join(fooled) or 'none'}."
    )


def _alarms(results: Results) -> str:
    rows = results.where(metric="false_alarm_rate")
    false, n = sum(round(row.estimate * row.n) for row in rows), sum(row.n for row in rows)
    rate = stats.proportion(false, n)
    near = "; the nominal level is within sampling error" if rate.estimate > 0.05 >= rate.low else ""
    return f"{_reached(rate.estimate <= 0.05)}: false alarms where there is no value: {rate}, nominally .05{near}."


def _recognised(results: Results) -> list[str]:
    lines = []
    for row in results.where(metric="recognition_rate"):
        said = f"; it said {_counts(row.detail['readings'])}" if "readings" in row.detail else ""
        lines.append(
            f"{_reached(row.estimate == 1)}: {row.model} is {row.detail['expected']}, by {row.arm}: {row.interval} of "
            f"seeds{said}."
        )
        if "sparsity" in row.detail:
            mean, goal = row.detail["sparsity"], NEAR[row.detail["expected"]]
            lines.append(f"{_reached(abs(mean - goal) <= 0.25)}: its mean sparsity is {mean:.2f}, near {goal} (.25).")
    return lines


def _levels(results: Results) -> str:
    rows = results.where(metric="null_rejection_rate")
    bad = [f"{row.arm} ({row.interval} at {row.detail['level']:g})" for row in rows if row.low > row.detail["level"]]
    return f"{_reached(not bad)}: {len(rows) - len(bad)} of {len(rows)} null rates keep their level{_list(bad)}."


def _certified(results: Results) -> list[str]:
    lines = []
    for row in results.where(metric="pass_rate", arm="all"):
        lines.append(
            f"{_reached(row.estimate >= 0.95)}: {row.model} passes all five claims in {row.interval} of seeds."
        )
    for row in results.where(metric="pass_rate", arm="causal"):
        if row.model.removeprefix("planted-") in FALSE:
            lines.append(f"{_reached(row.estimate <= 0.01)}: {row.model} passes `causal` in {row.interval} of seeds.")
    return lines


def _coverage(results: Results) -> str:
    rows = results.where(metric="interval_coverage")
    each = [covers(row) for row in rows]
    missed = [
        f"{row.arm} at n={row.detail['problems']} ({row.estimate:.3f})"
        for row, word in zip(rows, each, strict=True)
        if word.startswith("too")
    ]
    return (
        f"{_reached(not missed)}: {each.count('yes')} of {len(rows)} intervals cover in 93 to 97% of runs, "
        f"{each.count('unclear')} cannot be told from that with these runs{_list(missed)}."
    )


def page(results: Results, path: Path | str) -> Path:
    """`docs/calibration.md` from the results of a run."""
    plan, seconds = results.manifest["plan"], results.manifest["cpu_seconds"]
    sizes = plan["sizes"]
    lines = [
        "# Calibration",
        "",
        f"Made by `{results.manifest['command']} --docs docs/calibration.md` ({sum(seconds.values()) / 60:.0f} "
        "CPU-minutes). The models are `mr.testbed.planted(...)`: weights set by hand, so that value neurons, dopamine "
        "neurons, decoys, V and delta are known. Everything else goes through the package's own verbs: "
        f"{sizes['train']} problems to fit, {sizes['test']} to test, V-hat from {sizes['k']} continuations. Numbers "
        "are estimate [95% interval] and n. With few seeds the intervals are wide; read them, not the estimates.",
        "",
        *_missing(results),
        "## Verdicts",
        "",
        *(f"- {line}" for line in verdicts(results)),
        "",
        "## Which ranking to use",
        "",
        f"**{RECOMMENDED}** (`probing.rankings`), |Spearman's correlation| of each neuron alone with V-hat or delta: "
        "no probe, no seed, no scale. Recall of the planted neurons when as many are taken as were planted (precision "
        "is the same number then). Bounds are Wilson's with seeds as trials, rounded outwards. `fooled "
        "by` counts decoys among those taken, over all seeds of the row.",
        "",
    ]
    for what in KINDS:
        lines += _rankings(results, what)
    lines += [
        "",
        "The nets begin with first-layer weights a hundredth of PyTorch's. From its own, the L1 norm of a column stays "
        "that of the random weights it began with, however well the probe reads V.",
        "",
        "## What the printed evidence says",
        "",
        *_table(
            ("plant", "by", "should say", "share of seeds that do", "more"),
            (
                (row.model, row.arm, row.detail["expected"], row.interval, _more(row))
                for row in results.where(metric="recognition_rate")
            ),
        ),
        "",
        "`evidence` tells what can be read and how it is spread. It cannot tell `encoded` from `value`: both are "
        "sparse. That takes the ablation, where `used` means McNemar's p at most .05 and the lowest accuracy of all "
        "matched sets. An ablation without effect says that nothing reads these neurons; one with an effect says that "
        "something does, not that it reads V. KL alone is no such sign: next-token neurons move it as well.",
        "",
        "## False alarms",
        "",
        *_table(
            ("plant without value", "says anything but `nothing`", "readings"),
            (
                (row.model, row.interval, _counts(row.detail["readings"]))
                for row in results.where(metric="false_alarm_rate")
            ),
        ),
        "",
        "V-hat of these comes from its exact law, Binomial(k, .5).",
        "",
        "P-values where there is nothing. A discrete p cannot reach every level, and exact tests stay below it; what "
        "counts is that no rate is above its level. The last column is a one-sided Kolmogorov-Smirnov p against small "
        "values being too frequent.",
        "",
        *_table(
            ("p-value", "level", "share at or below it", "KS"),
            (
                (row.arm, f"{row.detail['level']:g}", row.interval, f"{row.detail['ks_too_small']:.2f}")
                for row in results.where(metric="null_rejection_rate")
            ),
        ),
        "",
        *_limits(results),
        *_certificates(results),
        "## Coverage of 95% intervals",
        "",
        "Simulated answers of the planted process, without a model; n counts simulated data sets. `above` and `below` "
        "count intervals that lie wholly on that side of the truth. `proportion` and paired outcomes are sums over all "
        "outcomes of so many problems: exact.",
        "",
        *_table(
            ("interval", "problems", "coverage", "above", "below", "93 to 97%"),
            (
                (row.arm, row.detail["problems"], row.interval, row.detail["above"], row.detail["below"], covers(row))
                for row in results.where(metric="interval_coverage")
            ),
        ),
        "",
        "Where a row says `too seldom`, read its interval as narrower than 95%. `unclear` means that this many runs "
        "cannot tell. AUROC over all states pools pairs, so that long answers weigh more than others, which may be why "
        "its intervals lie above the truth more often than below; AUROC within problems gives every problem the same "
        "weight. Wilson's interval and Tango's of paired outcomes are discrete: at single values they cover more or "
        "less than their level; at 40 problems none of five common ones (Wilson, Agresti-Coull, Jeffreys, mid-P, "
        "Clopper-Pearson) stays in 93 to 97% at every rate, and where one or two pairs differ no interval that a score "
        "or an exact test agrees with covers as seldom. The interval of `evidence`'s sparsity is that of other test "
        "problems; fit, random sets and bases are held fixed. "
        "Disattenuated correlations are held against what many problems show, which is within .01 of the correlation "
        "with the exact delta. Not calibrated here: intervals at fewer than 40 problems.",
    ]
    return write_atomic(path, "\n".join(lines) + "\n")


def _missing(results: Results) -> list[str]:
    missing = results.manifest.get("missing")
    return [f"**Not in this page yet**: {', '.join(missing)}. The same command makes them.", ""] if missing else []


def _rankings(results: Results, what: str) -> list[str]:
    rows = [row for row in results.where(metric="recall") if row.detail["planted"] == what]
    places = list(dict.fromkeys((row.model, row.site) for row in rows))
    body = []
    for arm in dict.fromkeys(row.arm for row in rows):
        own = {(row.model, row.site): row for row in rows if row.arm == arm}
        fooled: dict[str, int] = {}
        for row in own.values():
            for name, times in row.detail["fooled_by"].items():
                fooled[name] = fooled.get(name, 0) + times
        body.append((arm, *(own[place].interval if place in own else "" for place in places), _counts(fooled)))
    heads = [f"{model.removeprefix('planted-')}, {site}" for model, site in places]
    return [*_table(("ranking", *heads, "fooled by"), body), ""]


def _limits(results: Results) -> list[str]:
    rows = results.where(metric="detection_limit")
    places = list(dict.fromkeys((row.model, row.detail["problems"], row.detail["trajectories"]) for row in rows))
    names = list(dict.fromkeys(row.arm for row in rows))
    body = []
    for place in places:
        here = {r.arm: r for r in rows if (r.model, r.detail["problems"], r.detail["trajectories"]) == place}
        body.append((*place, *(_limit(here[name]) for name in names), here[names[0]].n))
    if not rows:
        return []
    return [
        "## Detection limits",
        "",
        "The smallest share of one coordinate's variance that must be V for a ranking to have it in its top 1% in 90% "
        "of repeats: that share, and in brackets the next smaller one on the grid, where power was missing. On the "
        "null twin (64 coordinates) V is that of other answers; on a trained model half of the continuations are "
        "planted and the other half ranked by.",
        "",
        *_table(("model", "problems", "trajectories", *names, "repeats"), body),
        "",
        "A linear probe also uses coordinates that share the planted one's noise, which the planted models have plenty "
        "of: its lower limits there do not carry over.",
        "",
    ]


def _certificates(results: Results) -> list[str]:
    rows = results.where(metric="pass_rate")
    if not rows:
        return []
    body = []
    for plant in dict.fromkeys(row.model for row in rows):
        own = {row.arm: row for row in rows if row.model == plant}
        body.append((plant, *(own[claim].interval if claim in own else "" for claim in (*CLAIMS, "all"))))
    sizes = ", ".join(f"{key} {value}" for key, value in SIZES.items())
    return [
        "## Certificates",
        "",
        f"How often each claim of `mr.certify` passes, over seeds of model, problems and certificate ({sizes}).",
        "`value` and `value-mlp` are certified whole, for the neurons that carry V. Of the others causal and specific",
        "are tried: for neurons that carry V and are not read (`encoded`), that change words and not outcomes",
        "(`null`), and that are large at position 0 or everywhere (`sink`, `large`).",
        "",
        *_table(("plant", *CLAIMS, "all five"), body),
        "",
    ]


def _limit(row: Row) -> str:
    return "none of the grid" if row.estimate != row.estimate else f"{row.estimate:g} ({row.low:g})"


def _more(row: Row) -> str:
    if "readings" in row.detail:
        return f"{_counts(row.detail['readings'])}; mean sparsity {row.detail['sparsity']:.2f}"
    change, base, kl = (row.detail[key] for key in ("change", "baseline", "kl"))
    return f"accuracy {base:.2f}, changed by {change:+.2f}; KL {kl:.2g}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {times}" for name, times in counts.items()) or "none"


def _list(names: Sequence[str]) -> str:
    return f"; not: {', '.join(names)}" if names else ""


def _reached(yes: bool) -> str:
    return "reached" if yes else "NOT reached"


def _table(heads: Sequence[str], body: Iterable[Sequence[object]]) -> list[str]:
    rows = [heads, ["---"] * len(heads), *body]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
