"""Words of the pages: names of kinds, arms and readings, and parts of sentences."""

from __future__ import annotations

import math

from mechreward.experiments.rows import Results, Row
from mechreward.report.formats import p_value, signed, two
from mechreward.report.select import RANKED

NAMES = {"resid_post": "residual-stream coordinates", "mlp": "MLP units"}
ARMS = {
    "baseline": "nothing",
    "value": "value",
    "value_apart": "value without dopamine coordinates",
}
WORDS = {
    "nothing": "not shown to be there",
    "sparse": "sparse",
    "redundant": "redundant (any neurons will do)",
    "distributed": "distributed (few coordinates of neither this basis nor random ones hold it)",
    "unclear": "neither clearly sparse nor clearly not",
}


def words(name: str) -> str:
    """A name as words."""
    return name.replace("_", " ")


def arm_name(arm: str) -> str:
    """What an arm is called."""
    return ARMS.get(arm, words(arm))


def of_share(share: float) -> str:
    """Which neurons a share of the ranking holds."""
    return "all neurons" if share == 1 else f"the top {share:.0%}"


def cite(results: Results, experiment: str, kind: str) -> str:
    """An experiment's name; that of R13 too, where it is the same rows of MLP units."""
    if kind == "mlp":
        for row in results.where(experiment="R13"):
            if row.detail.get("as") == experiment:
                return f"{experiment}, R13"
    return experiment


def bounds(row: Row) -> str:
    """An interval as a sentence has it among others: two digits, the sign, no n."""
    if math.isnan(row.low) or math.isnan(row.high):
        return signed(row.estimate)
    return f"{signed(row.estimate)} [{signed(row.low)}, {signed(row.high)}]"


def few(draws: int) -> str:
    """What is said of controls that are too few to rank a set among."""
    if draws >= RANKED:
        return ""
    return f"; {draws or 'no'} matched sets cannot rank it ({RANKED} are needed)"


def among(matched: Row | None) -> str:
    """What is said of the matched sets beside a contrast."""
    if matched is None:
        return ""
    sets = f"{matched.detail['sets']} matched sets at the same displacement by {span(matched)}"
    if "p_rank" not in matched.detail:
        return f"; {sets}"
    return f"; {sets} (rank p={p_value(matched.detail['p_rank'])})"


def span(row: Row) -> str:
    """From the lowest to the highest draw."""
    return f"{two(row.low)} to {two(row.high)}"
