"""Made-up nouns for pictures, with numbers as a real run has them; no model."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from rows import MODEL, neurons

from mechreward.causal.certificate import Certificate
from mechreward.causal.patching import PatchingSweep
from mechreward.causal.verdict import Claim
from mechreward.experiments.rows import Detail, Results, Row
from mechreward.models.policy import Policy
from mechreward.models.site import Site
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.tasks import Problem, Verdict
from mechreward.uses.confidence import Confidence
from mechreward.uses.confidence.fitted import Fitted
from mechreward.uses.confidence.groups import Arm, Group
from mechreward.uses.confidence.reader import Reader
from mechreward.uses.early_exit import EarlyExit, Exit, Points
from mechreward.uses.siblings import Siblings


def confidence(problems: int = 60, each: int = 4, verified: bool = True) -> Confidence:
    """Three stages; the value arm knows more than the baseline, and is too sure of itself."""
    rng = np.random.default_rng(0)
    groups = {}
    for number, stage in enumerate(("prompt", "partial", "answer")):
        problem = np.repeat(np.arange(problems), each)
        truth = 1 / (1 + np.exp(-rng.normal(0.3, 1.5, problems)[problem]))
        reward = (rng.random(len(truth)) < truth).astype(int)
        arms = []
        known = (("value", "value", 0.5), ("prompt_length", "surface", 1.6))
        for name, role, noise in (*known, ("full_linear", "probe", 0.4 + 0.2 * number)):
            logit = np.log(truth / (1 - truth)) + rng.normal(0, noise, len(truth))
            sure = 1 / (1 + np.exp(-(1.5 if name == "value" else 0.7) * logit))
            arms.append(Arm(name, role, 0, 8, np.nan, logit, sure, None))
        groups[stage] = Group(
            stage, np.arange(len(problem)), np.full(len(problem), number), problem, reward,
            tuple(arms), "prompt_length", {},
        )  # fmt: skip
    fitted = Fitted(
        Site(3, "resid_post"), "8 neurons", Reader((), {}), {}, "isotonic", (), (40, 20)
    )
    ids = tuple(f"p{number}" for number in range(problems))
    return Confidence(groups, {"k answers": "one"}, ids, MODEL, "countdown", verified, 0, fitted)


def siblings(states: int = 40, k: int = 4) -> Siblings:
    rng = np.random.default_rng(1)
    worth = rng.beta(1.2, 1.2, states * k)
    n = np.full(states * k, 32)
    scores = {}
    for name, noise in (("value neurons", 0.25), ("dopamine neurons", 0.5), ("value probe", 0.2)):
        scores[name] = worth + rng.normal(0, noise, states * k)
    scores["logprob"] = rng.normal(size=states * k) + 0.3 * worth
    return Siblings(
        state=np.repeat(np.arange(states), k),
        candidate=np.tile(np.arange(k), states),
        first=rng.binomial(16, worth) / 16,
        second=rng.binomial(16, worth) / 16,
        n=n,
        scores=scores,
        texts=tuple(f"step {number}" for number in range(states * k)),
        problem_ids=tuple(f"p{number}" for number in range(states)),
        steps=(1,) * states,
        k=k,
        seed=0,
        policy=Policy(),
        model_id=MODEL,
    )


def row(experiment: str, arm: str, metric: str, numbers: Any, **detail: Any) -> Row:
    """A row of one made-up setting; `numbers` are estimate, low and high."""
    site = detail.pop("site", "3.resid_post")
    estimate, low, high = (float(number) for number in numbers)
    return Row(
        experiment, "made-up", "countdown", site, arm, metric, estimate, low, high, 200, 0,
        Detail(**detail),
    )  # fmt: skip


def search() -> Results:
    """Four scorers; beams cost four times as much as an answer."""
    rows = [
        row("R11", "greedy", "accuracy", (0.42, 0.36, 0.48), algorithm="greedy", k=1, tokens=40.0)
    ]
    skill = {
        "value neurons": 0.05,
        "dopamine neurons": 0.04,
        "matched neurons": 0.005,
        "value probe": 0.06,
        "logprob": 0.02,
        "random": 0.0,
        "oracle": 0.12,
    }
    for arm, gain in skill.items():
        for power in range(4):
            y = 0.40 + gain * power
            detail = {"algorithm": "best_of_n", "k": 2**power, "tokens": 40.0 * 2**power}
            rows.append(row("R11", arm, "accuracy", (y, y - 0.05, y + 0.05), **detail))
        if arm != "oracle":
            y = 0.40 + 2.4 * gain
            detail = {"algorithm": "beam", "k": 4, "tokens": 170.0 + 100 * gain}
            rows.append(row("R11", arm, "accuracy", (y, y - 0.05, y + 0.05), **detail))
        if arm not in ("oracle", "random"):
            for beyond in ("beam by random", "best_of_n by logprob", "majority"):
                y = 2 * gain - 0.02 * (beyond == "majority")
                detail = {"beyond": beyond, "p_holm": 0.5 - 4 * gain, "tokens": 170.0}
                rows.append(row("R11", arm, "gain", (y, y - 0.04, y + 0.04), **detail))
    for power in range(4):
        y = 0.40 + 0.045 * power
        detail = {"algorithm": "majority", "k": 2**power, "tokens": 40.0 * 2**power}
        rows.append(row("R11", "majority", "accuracy", (y, y - 0.05, y + 0.05), **detail))
    return Results({}, tuple(rows))


def trajectory(
    number: int, length: int, reward: int, steps: int = 4, prompt: int = 6
) -> Trajectory:
    ends = [prompt - 1 + (length * step) // steps for step in range(steps + 1)]
    verdict = Verdict("correct" if reward else "incorrect")
    return Trajectory(
        f"p{number}", torch.arange(prompt + length) % 16, prompt, tuple(ends), verdict,
        torch.zeros(length), True,
    )  # fmt: skip


def early_exit(rollouts: int = 80, signals: tuple[str, ...] = ("value", "logprob")) -> EarlyExit:
    rng = np.random.default_rng(2)
    runs, problems, where, tokens = [], [], [], []
    columns: dict[str, list[float]] = {name: [] for name in (*signals, "random")}
    for number in range(rollouts):
        reward = int(rng.random() < 0.6)
        length = int(rng.integers(20, 60))
        runs.append(trajectory(number, length, reward))
        problems.append(Problem(f"p{number}", f"{number} = ?", "", {}))
        for point in range(1, 4):
            where.append(number)
            tokens.append(length * point // 4)
            for place, name in enumerate(columns):
                strength = 0.0 if name == "random" else (1.6 - 0.7 * place) * point / 2
                columns[name].append(strength * (reward - 0.5) + rng.normal(0, 0.6))
    points = Points(
        np.array(where), np.array(tokens),
        {name: np.array(column) for name, column in columns.items()},
        ("",) * len(where), np.zeros(len(where), int), np.full(len(where), np.nan),
    )  # fmt: skip
    made = Rollouts(tuple(runs), tuple(problems), Policy(), MODEL)
    return EarlyExit((Exit("value", -0.6),), made, points, marks=MappingProxyType({}))


def certificate() -> Certificate:
    """Six claims with every verdict."""
    numbers: dict[str, tuple[str, dict[str, Any], str]] = {
        "decodable": (
            "pass", {"spearman": 0.50, "spearman_low": 0.39, "spearman_high": 0.59},
            "Spearman with V-hat 0.56 on held-out problems; step, position and prompt length alone "
            "read 0.52, and beyond them the set reads 0.50 [0.39, 0.59], p=0.0005 by signs of "
            "problems.",
        ),
        "sparse": (
            "inconclusive", {"sparsity": 0.44, "sparsity_low": -0.01, "sparsity_high": 0.89},
            "13 neurons read 0.38, as many random ones 0.20, the best of other bases 0.34, all "
            "0.59; the set closes 0.44 [-0.01, 0.89] of the gap, and .5 is not settled: run "
            "test=320.",
        ),
        "causal": (
            "fail",
            {
                "contrast": 0.01, "contrast_low": -0.02, "contrast_high": 0.05,
                "largest_matched": {"reward": 0.03},
            },
            "accuracy 0.58 steered up, 0.57 down; a difference of 0.1 is excluded.",
        ),
        "specific": (
            "inconclusive", {"net": 0.015, "net_low": -0.015, "net_high": 0.045},
            "settle causal first.",
        ),
        "sufficient": (
            "inconclusive",
            {
                "share": 0.35, "share_low": 0.1, "share_high": 0.62, "whole": 0.4,
                "matched": [0.02, 0.06, 0.1],
            },
            "share 0.35 [0.10, 0.62], and .5 is not settled: run pairs=240.",
        ),
        "stable": ("not run", {}, "This certificate is older than the claim: certify again."),
    }  # fmt: skip
    claims = []
    for name, (verdict, figures, reason) in numbers.items():
        claims.append(Claim(name, verdict, reason, figures))
    return Certificate(tuple(claims), neurons(3, 8, 11), "countdown", {"test": 80, "n": 200})


def pruning() -> Results:
    """Seven arms: the value ranking, four nulls of which two are drawn, two other rankings."""
    rows = []
    rng = np.random.default_rng(3)
    arms = {"value": 0.15, "magnitude": 0.3, "random": 0.5, "rotated": 0.45, "shuffled": 0.0}
    for arm, fall in (arms | {"correlation": 0.1, "mean_difference": 0.12}).items():
        for ratio in (0.0, 0.5, 0.9, 0.99):
            y = 0.6 - fall * ratio if arm != "shuffled" else 0.05
            detail = {"ratio": ratio, "shape": "mlp", "fit": "retrained"}
            detail["neurons"] = int(256 * (1 - ratio))
            is_drawn = arm in ("random", "rotated", "shuffled")
            for draw in range(3 if is_drawn else 1):
                here = y + rng.normal(0, 0.03)
                known = detail | ({"draw": draw} if is_drawn else {})
                rows.append(row("R2", arm, "spearman", (here, here - 0.1, here + 0.1), **known))
    return Results({}, tuple(rows))


def layers() -> Results:
    rows = []
    for layer in range(3):
        for kind in ("resid_post", "mlp"):
            for share in (1.0, 0.01):
                y = 0.2 * layer + 0.1 * share - 0.05 * (kind == "mlp")
                detail = {"split": "test", "share": share, "p": 0.01, "p_holm": 0.2 - 0.1 * layer}
                detail["site"] = f"{layer}.{kind}"
                rows.append(row("R3", "value", "spearman", (y, y - 0.1, y + 0.1), **detail))
    return Results({}, tuple(rows))


def ablation() -> Results:
    rows = [row("R4", "baseline", "accuracy", (0.6, 0.5, 0.7))]
    rows.append(row("R4", "baseline", "length", (30.0, np.nan, np.nan)))
    rank = {"op": "zero", "neurons": 13, "rank": 1, "draws": 4, "p_rank": 0.2}
    rows.append(row("R4", "value", "accuracy", (0.4, 0.3, 0.5), **rank))
    rows.append(row("R4", "value", "change", (-0.2, -0.3, -0.1), op="zero"))
    rows.append(row("R4", "value", "kl", (0.02, np.nan, np.nan), op="zero"))
    rows.append(row("R4", "value", "length", (28.0, np.nan, np.nan), op="zero"))
    rows.append(row("R4", "matched", "accuracy", (0.575, 0.5, 0.65), op="zero", sets=4))
    for draw, y in enumerate((0.55, 0.58, 0.6, 0.57)):
        rows.append(row("R4", "matched", "accuracy", (y, 0.4, 0.7), op="zero", draw=draw))
    rows.append(row("R4", "matched", "kl", (0.01, 0.005, 0.02), op="zero", sets=4))
    rows.append(row("R4", "correlation", "accuracy", (0.5, 0.4, 0.6), op="zero"))
    elsewhere = {"op": "zero", "on": "chain"}
    rows.append(row("R4", "value", "length", (9.0, np.nan, np.nan), **elsewhere))
    return Results({}, tuple(rows))


def dose() -> Results:
    rows = [row("R14", "baseline", "change", (0.0, -0.03, 0.03), strength=0.0)]
    for arm, turn in (("value", 0.05), ("dopamine", 0.02), ("matched", 0.01)):
        known = {"sets": 2} if arm == "matched" else {}
        for strength in (-2.0, -1.0, 1.0, 2.0):
            detail = {"strength": strength, "place": "all"} | known
            y = turn * strength
            rows.append(row("R14", arm, "change", (y, y - 0.04, y + 0.06), **detail))
            kl = (0.01 * abs(strength), np.nan, np.nan)
            rows.append(row("R14", arm, "kl", kl, **detail))
        if arm != "dopamine":
            for share in (0.001, 0.01, 0.05):
                detail = {"share": share} | known
                y = 5 * turn * share
                numbers = (y, y - 0.05, y + 0.05)
                rows.append(row("R14", arm, "contrast_at_share", numbers, **detail))
    return Results({}, tuple(rows))


def overlap() -> Results:
    rows = []
    for share in (0.01, 0.05):
        detail = {"share": share, "expected": share / 2, "p": 0.4}
        rows.append(row("R6", "next_token", "iou", (share, np.nan, np.nan), **detail))
    for source in ("countdown", "chain"):
        detail = {"from_model": "made-up", "from_task": source, "expected": 0.03, "p": 0.001}
        y = 1.0 if source == "countdown" else 0.2
        rows.append(row("R12", "value", "iou", (y, np.nan, np.nan), **detail))
    return Results({}, tuple(rows))


def sweep() -> PatchingSweep:
    sites = (Site(0, "resid_post"), Site(1, "resid_post"))
    effect = np.array([[0.0, 0.8, 0.05], [0.1, -0.2, 1.0]])
    return PatchingSweep(sites, (0, 1, 2), (0, 1, 2), 1.0 + 2.0 * effect, 3.0, 1.0, "all", MODEL)
