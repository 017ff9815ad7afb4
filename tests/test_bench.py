"""The benchmark: its rows, its parity checks and its mistakes. Nothing here is timed."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from mechreward.base.errors import MechRewardError
from mechreward.bench.ground import ERROR, TOKENS, BenchSizes
from mechreward.experiments.rows import Results
from mechreward.report.bench_page import page
from mechreward.studies.bench import CONTESTS, bench

SMALL = BenchSizes(
    repeats=2,
    problems=3,
    batch=2,
    sites=3,
    k=2,
    trajectories=1,
    arms=2,
    texts=2,
    rows=150,
    width=6,
    fits=4,
    megabytes=1,
)
RIVALS = {
    "P1": {"bridge_forward", "huggingface_forward", "run_with_cache", "cache_all"},
    "P2": {"plain_decode"},
    "P3": {"generate", "huggingface_generate"},
    "P4": {"generate", "huggingface_generate"},
    "P6": {"raw_file"},
    "P7": {"scikit-learn", "one_by_one"},
    "P8": {"run_with_hooks", "generate"},
    "P9": {"plain_decode"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def results(folder: Path, said: list[str]) -> Results:
    bench(folder, sizes=SMALL, say=said.append)
    return Results.load(folder / "results.json")


@pytest.mark.parametrize("experiment", sorted(RIVALS))
def test_every_ratio_has_rates_and_a_parity_that_holds(results: Results, experiment: str):
    ratios = results.where(experiment=experiment, metric="ratio")
    assert {row.arm for row in ratios} == RIVALS[experiment]
    for row in ratios:
        work = row.detail["work"]
        assert row.n == SMALL.repeats and 0 < row.low <= row.estimate <= row.high
        (own,) = [
            r
            for r in results.where(experiment=experiment, arm="mechreward", metric="rate")
            if r.detail["work"] == work
        ]
        (their,) = [
            r
            for r in results.where(experiment=experiment, arm=row.arm, metric="rate")
            if r.detail["work"] == work
        ]
        assert own.detail["unit"] == their.detail["unit"] and own.n == SMALL.repeats
        # A ratio of each round lies between those of the extremes.
        bounds = own.low / their.high, own.high / their.low
        low, high = (1 / bounds[1], 1 / bounds[0]) if row.detail["times"] else bounds
        assert low * 0.999 <= row.estimate <= high * 1.001
    for row in results.where(experiment=experiment, metric="parity"):
        kind = row.detail["kind"]
        assert (kind == ERROR and row.estimate <= 1e-3) or (kind == TOKENS and row.estimate >= 0.99)
    assert any("target" in row.detail for row in ratios)


def test_work_is_counted(results: Results):
    prefill = {
        row.arm: row.estimate for row in results.where(experiment="P4", metric="prefill_tokens")
    }
    assert 0 < prefill["mechreward"] < prefill["huggingface_generate"] / SMALL.k
    size = {row.arm: row.estimate for row in results.where(experiment="P6", metric="bytes")}
    assert 0 < size["step_rows"] < size["all_tokens"]


def test_growth_says_what_stays_constant(results: Results):
    tokens = {
        row.arm: row.estimate for row in results.where(experiment="growth", metric="prefill_tokens")
    }
    assert {
        tokens[arm] for arm in ("width=64", "width=256", "k=1", "k=64", "length=16", "length=64")
    } == {63.0}
    assert tokens["interventions=16"] == 16 * 63, (
        "an intervention changes the prefix, so it is run for each"
    )


def test_what_limits_a_ratio_is_told(results: Results, tmp_path: Path):
    """Answers of n tokens take n passes, n + 1 where the last token is caught."""
    text = page(results, tmp_path / "performance.md").read_text().split("What limits them:")[1]
    assert [line[:4] for line in text.strip().splitlines()] == ["- P3", "- P4", "- P2", "- P9"]
    for name in ("P3", "P4"):
        shares = [
            row.estimate
            for row in results.rows
            if row.experiment == name and row.metric.startswith("share_")
        ]
        assert len(shares) == 3 and sum(shares) == pytest.approx(1) and shares[0] > 0 < shares[1]
    for name in ("P2", "P9"):
        passes = {
            row.arm: row.estimate for row in results.where(experiment=name, metric="row_passes")
        }
        assert passes["mechreward"] - passes["plain_decode"] == SMALL.problems


def test_the_run_says_its_sizes_and_machine(results: Results, said: list[str]):
    assert results.manifest["sizes"]["problems"] == SMALL.problems
    assert (
        results.manifest["machine"]["gpu"] == "not measured" and results.manifest["machine"]["cpu"]
    )
    assert sum("ratio" in line and ("error" in line or "equal" in line) for line in said) == len(
        results.where(metric="ratio")
    )


def test_the_page_holds_every_ratio(results: Results, tmp_path: Path):
    text = page(results, tmp_path / "performance.md").read_text()
    assert "GPU: not measured" in text and results.manifest["machine"]["versions"]["torch"] in text
    rows = [line for line in text.splitlines() if line.startswith("| P")]
    assert len(rows) == len(results.where(metric="ratio")) and all(
        line.count("|") == 7 for line in rows
    )
    assert not math.isnan(sum(row.estimate for row in results.where(metric="ratio")))


def test_only_and_sizes_are_arguments_of_the_command(tmp_path: Path):
    words = "--only P3 --problems 2 --batch 2 --repeats 1".split()
    out = ["--out", str(tmp_path / "b"), "--docs", str(tmp_path / "p.md")]
    done = subprocess.run(
        [sys.executable, "-m", "mechreward.cli", "bench", *words, *out],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path / "b" / "results.json")
    assert {row.experiment for row in results.rows} == {"P3"} and results.manifest["sizes"][
        "problems"
    ] == 2
    assert "P3 rollouts" in done.stdout and (tmp_path / "p.md").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"only": ["P5"]}, "unknown contest 'P5'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"sizes": BenchSizes(batch=0)}, "batch must be at least 1; 0 was given"),
        ({"model": "countdown-bse"}, "did you mean 'countdown-base'"),
    ],
)
def test_mistakes_are_told(wrong: dict, told: str, tmp_path: Path):
    with pytest.raises(MechRewardError, match=told):
        bench(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_every_contest_is_tested():
    assert {*RIVALS, "growth"} == set(CONTESTS)
