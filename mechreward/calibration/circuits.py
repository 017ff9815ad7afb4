"""How often the circuit map shows a planted writer and reader, and a null twin none."""

from __future__ import annotations

from collections.abc import Sequence

from mechreward import stats
from mechreward.calibration.certificates import suspects
from mechreward.calibration.data import gather
from mechreward.calibration.rows import calibration_row
from mechreward.causal.edges import edges
from mechreward.experiments.rows import Row
from mechreward.testbed import planted

PLANTS = {"value": "circuit", "null": "none"}  # what is planted
PROBLEMS = 40
K = 16


def circuits(name: str, seeds: Sequence[int], draws: int = 99) -> list[Row]:
    """Maps of one plant, each on problems of its own.

    Parameters
    ----------
    name : str
        One of `PLANTS`.
    seeds : sequence of int
        A planted model each; V-hat has its exact law.
    draws : int, default 99
        Matched sets. With 19 the level is reached only where no draw deviates more in any cell.

    Returns
    -------
    list of Row
        The share of maps whose title says that there is a circuit. It should be .95 or more of
        `value`, and .10 or less of `null` (our choice; the level is .05).
    """
    verdicts = []
    for seed in seeds:
        plant = planted(name, seed)
        found = gather(plant, "test", PROBLEMS, K, seed, exact=True)
        neurons = suspects(plant)
        made = edges(
            plant.model, neurons, found.runs, found.values, draws, seed=seed, progress=False
        )
        verdicts.append(made.verdict)
    lit = verdicts.count("circuit")
    detail = {
        "n": "planted models",
        "expected": PLANTS[name],
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "problems": PROBLEMS,
        "draws": draws,
    }
    share = stats.proportion(lit, len(verdicts))
    site = str(neurons.site)
    return [
        calibration_row(f"planted-{name}", "edges", "own_circuit_rate", share, detail, site=site)
    ]
