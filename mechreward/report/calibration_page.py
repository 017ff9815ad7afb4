"""docs/calibration.md: what a calibration found, and how it was found. Its verdicts are those of
`verdicts`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mechreward.base.files import write_atomic
from mechreward.calibration.certificates import SIZES
from mechreward.calibration.pipeline import RECOMMENDED
from mechreward.causal.claims import CLAIMS
from mechreward.experiments.rows import Results, Row
from mechreward.probing.overlap import GROUP
from mechreward.report.verdicts import KINDS, counted, covers, over_seeds, verdicts

KS = ("ks_too_small", "ks_uniform")
UNCALIBRATED = [
    "## What is not calibrated",
    "",
    "- Rankings: probes of other sizes, lambdas and penalties than the defaults; the dopamine probe on z-scores within "
    "a response (R8); read-outs by other criteria than the share of planted neurons found.",
    "- Intervals: at fewer than 40 problems; of what a set adds to its controls where it is steered or patched "
    "(certificate), whose like here is the paired difference to matched sets; of V-hat steered (R14), a mean by "
    "problem as V-hat's; of the difference of two models, but for its p. Bounds called lowest and highest draw are no "
    "intervals.",
    "- P-values: ranks of a set among matched ones (R4, R10, R14, certificate) hold where the set is one of its "
    "matches but for chance. `rank_among` is calibrated, that assumption is not, but by the certificates of plants "
    "that must not pass; nor what a set reads elsewhere above all of its matched sets (R12). Families after Holm are "
    "bounded by it whatever depends on what; one of ten independent p is simulated.",
    "- Detection limits: of nets on a trained model, of MLP units, and of sets of several neurons.",
    "- All of it is about these plants: one process, 64 coordinates, planted neurons without rivals but the decoys.",
]


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
        f"{sizes['train']} problems to fit, {sizes['test']} to test, V-hat from {sizes['k']} continuations. Rates are "
        "estimate [95% interval] and n; what has no interval is called by its name (a limit, a mean, a p). With few "
        "seeds the intervals are wide; read them, not the estimates.",
        "",
        *_missing(results),
        "## Verdicts",
        "",
        *(f"- {line}" for line in verdicts(results)),
        "",
        "## Which ranking to use",
        "",
        f"**{RECOMMENDED}** (`probing.rankings`), |Spearman's correlation| of each neuron alone with V-hat or delta: "
        'no probe, no seed, no scale; `select(probe, by="correlation")`. Without that, `select` goes by the L1 norm of '
        "the probe's first-layer columns, as the paper does, and so do the experiments. Recall of the "
        "planted neurons when as many are taken as were planted (precision is the same number then). Bounds are "
        "Wilson's with seeds as trials, rounded outwards. `fooled by` counts decoys among those taken, over all seeds "
        "of the row.",
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
        "V-hat of the rows of `evidence` comes from its exact law, Binomial(k, V), so that there can be many seeds; "
        "that of the others from the model's own continuations.",
        "",
        "`evidence` holds the few that correlate best with V-hat, of all coordinates and of random bases. It tells "
        "what can be read and how it is spread. It cannot tell `encoded` from `value`: both are "
        "sparse. That takes the ablation, where `used` means McNemar's p at most .05 and the lowest accuracy of all "
        "matched sets. An ablation without effect says that nothing reads these neurons; one with an effect says that "
        "something does, not that it reads V. KL alone is no such sign: next-token neurons move it as well.",
        "",
        "## False alarms",
        "",
        *_table(
            ("plant without value", "says anything but `nothing`", "readings"),
            (
                (row.model, row.interval, counted(row.detail["readings"]))
                for row in results.where(metric="false_alarm_rate")
            ),
        ),
        "",
        "V-hat of these comes from its exact law, Binomial(k, .5).",
        "",
        *_levels(results),
        *_limits(results),
        *_certificates(results),
        "## Coverage of 95% intervals",
        "",
        "Simulated answers of the planted process, without a model but for `sparsity`, which is read off the plant it "
        "names; n counts simulated data sets. `above` and `below` count intervals that lie wholly on that side of the "
        "truth. `proportion` and paired outcomes are sums over all outcomes of so many problems: exact, without an "
        "interval of their own. Bootstraps have 200 draws, the fewest that the package takes.",
        "",
        *_table(
            ("interval", "problems", "coverage", "above", "below", "93 to 97%"),
            (
                (row.arm, row.detail["problems"], *_covered(row), covers(row))
                for row in results.where(metric="interval_coverage")
            ),
        ),
        "",
        "Where a row says `too seldom`, read its interval as narrower than 95%. `unclear` means that this many runs "
        "cannot tell. AUROC has Obuchowski's interval for clustered rows on the logit scale; AUROC within problems "
        "and all others but those of outcomes have a bootstrap by problem. Wilson's interval and Tango's of paired "
        "outcomes are discrete: at single values they cover more or less than their level; at 40 problems none of "
        "five common ones (Wilson, Agresti-Coull, Jeffreys, mid-P, Clopper-Pearson) stays in 93 to 97% at every rate, "
        "and where one or two pairs differ no interval that a score or an exact test agrees with covers as seldom. "
        "The interval of `evidence`'s sparsity is that of other test problems; fit, random sets and bases are held "
        "fixed. Disattenuated correlations are held against what many problems show, which is within .01 of the "
        "correlation with the exact delta.",
        "",
        *UNCALIBRATED,
    ]
    return write_atomic(path, "\n".join(lines) + "\n")


def _missing(results: Results) -> list[str]:
    missing = results.manifest.get("missing")
    return (
        [f"**Not in this page yet**: {', '.join(missing)}. The same command makes them.", ""]
        if missing
        else []
    )


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
        body.append(
            (
                arm,
                *(own[place].interval if place in own else "" for place in places),
                counted(fooled),
            )
        )
    heads = [f"{model.removeprefix('planted-')}, {site}" for model, site in places]
    return [*_table(("ranking", *heads, "fooled by"), body), ""]


def _limits(results: Results) -> list[str]:
    tables = [line for what in KINDS for line in _limits_of(results, what)]
    if not tables:
        return []
    return [
        "## Detection limits",
        "",
        "The smallest share of one coordinate's variance that must be V (or delta, over the tokens of a step) for a "
        "ranking to have it in its top 1% in 90% of repeats: that share, and in brackets the next smaller one on the "
        "grid, where power was missing. On the null twin (64 coordinates) V and delta are those of other answers; on a "
        "trained model half of the continuations are planted and the other half ranked by.",
        "",
        *tables,
        "A linear probe also uses coordinates that share the planted one's noise, which the planted models have plenty "
        "of: its lower limits there do not carry over.",
        "",
    ]


def _limits_of(results: Results, what: str) -> list[str]:
    rows = [row for row in results.where(metric="detection_limit") if row.detail["planted"] == what]
    if not rows:
        return []
    names = list(dict.fromkeys(row.arm for row in rows))
    cells: dict[tuple[str, int, int], dict[str, Row]] = {}
    for row in rows:
        place = (row.model, row.detail["problems"], row.detail["trajectories"])
        cells.setdefault(place, {})[row.arm] = row
    body = [
        (
            *place,
            *(_limit(here[name]) if name in here else "" for name in names),
            ", ".join(str(n) for n in dict.fromkeys(row.n for row in here.values())),
        )
        for place, here in cells.items()
    ]
    heads = (f"{what} planted in", "problems", "trajectories", *names, "repeats")
    return [*_table(heads, body), ""]


def _certificates(results: Results) -> list[str]:
    rows = results.where(metric="pass_rate")
    if not rows:
        return []
    body = []
    for plant in dict.fromkeys(row.model for row in rows):
        own = {row.arm: row for row in rows if row.model == plant}
        body.append(
            (plant, *(own[claim].interval if claim in own else "" for claim in (*CLAIMS, "all")))
        )
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
        return (
            f"{counted(row.detail['readings'])}; mean sparsity {over_seeds(row.detail['sparsity'])}"
        )
    change, base, kl = (row.detail[key] for key in ("change", "baseline", "kl"))
    return f"accuracy {base:.2f}, changed by {change:+.2f}; KL {kl:.2g}"


def _covered(row: Row) -> tuple[object, object, object]:
    if row.detail.get("exact"):
        return f"{row.estimate:.3f}", "-", "-"
    return row.interval, row.detail["above"], row.detail["below"]


def _levels(results: Results) -> list[str]:
    return [
        "P-values where there is nothing. A discrete p cannot reach every level, and exact tests stay below it; what "
        "counts first is that no rate is above its level. The first Kolmogorov-Smirnov p is one-sided, against values "
        "being too small anywhere between 0 and 1. The second asks more: that a p drawn between what it is and what "
        "it would be without its own mass is uniform (two-sided), as it is for an exact test, discrete or not.",
        "",
        "Exact: `rank_among`, McNemar, the hypergeometric, and R3 and R9, which move targets among answers of equal "
        "length. Holm's smallest of a family is bounded by its level and not uniform, by construction. Approximate: "
        "`evidence`, whose targets are laid over all answers without regard to length; R12's overlap of sets as "
        f"large, exact within groups of {GROUP} neurons next in size; the difference of two models, normal from "
        "bootstrapped bounds.",
        "",
        *_table(
            ("p-value", "level", "share at or below it", "KS, too small", "KS, uniform"),
            (
                (
                    row.arm,
                    f"{row.detail['level']:g}",
                    row.interval,
                    *(_p(row.detail[key]) for key in KS),
                )
                for row in results.where(metric="null_rejection_rate")
            ),
        ),
        "",
    ]


def _p(p: float) -> str:
    return "<1e-9" if p < 1e-9 else f"{p:.2g}" if p < 0.01 else f"{p:.2f}"


def _table(heads: Sequence[str], body: Iterable[Sequence[object]]) -> list[str]:
    rows = [heads, ["---"] * len(heads), *body]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
