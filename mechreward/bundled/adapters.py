"""From a taught adapter to package data, and what the words models are like:
`python -m mechreward.bundled.adapters`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from jaxtyping import Bool
from safetensors.torch import save_file
from scipy.stats import norm

from mechreward import stats
from mechreward.base.errors import one_of, require
from mechreward.base.files import read_json, write_atomic, write_json
from mechreward.bundled.card import log_table
from mechreward.bundled.checkpoint import go_on, log_of
from mechreward.bundled.teach import LESSONS, TASK, Lesson, Pupil
from mechreward.models.load import load
from mechreward.models.policy import Policy
from mechreward.models.real import NAME
from mechreward.models.sources import WEIGHTS
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values, estimate

SHARED = 600  # test problems on which all models are compared
ANSWERS = 4  # to each
VALUED = 150  # validation problems whose states are valued
K = 32
LARGE = 0.3  # |delta| of a large TD error
LEVEL = 0.01
HOW = {
    "supervised": "Supervised on right solutions",
    "policy gradient": "Group-relative policy gradient on verified reward",
    "expert iteration": "Expert iteration: supervised on its own right answers",
}


def ship(lesson: Lesson, work: Path, at: int | None = None) -> Path:
    """Keep an adapter, in bfloat16, and its training log.

    Parameters
    ----------
    lesson : Lesson
        What was taught.
    work : Path
        Folder with the checkpoints.
    at : int or None, default None
        The update it was stopped at; None: the lesson's last.

    Raises
    ------
    MechRewardError
        The checkpoint is of another update.
    """
    from peft import get_peft_model_state_dict

    pupil = Pupil(lesson, "cpu")
    optimizer = torch.optim.AdamW(pupil.parameters.values())
    done, seconds = go_on(work / lesson.name, pupil.parameters, optimizer, lesson)
    wanted = lesson.steps if at is None else at
    require(
        done == wanted,
        f"{work / lesson.name} has {done} of {wanted} updates: run the teacher again.",
    )
    folder = WEIGHTS / lesson.name
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    named = get_peft_model_state_dict(pupil.learner, save_embedding_layers=False)
    for name, tensor in named.items():
        tensors[name] = tensor.to(torch.bfloat16).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = pupil.learner.peft_config["default"]
    config.base_model_name_or_path = NAME
    config.inference_mode = True
    config.save_pretrained(folder)
    log = log_of(work / lesson.name)
    write_atomic(folder / "training.jsonl", "".join(json.dumps(row) + "\n" for row in log))
    write_json(folder / "recipe.json", asdict(lesson) | {"done": done, "seconds": round(seconds)})
    return folder


def measure(name: str, work: Path) -> Iterator[dict[str, Any]]:
    """What a model is like: accuracy on shared test problems, and what its values look like on
    validation problems. Answers are kept under `work`, and taken up from there."""
    model = load(name)
    problems = TASK.problems("test", SHARED, seed=7)
    for mode, k in (("T=1", ANSWERS), ("greedy", 1)):
        policy = Policy(0.0 if mode == "greedy" else 1.0)
        runs = sample(
            model, problems, k=k, policy=policy, seed=7, progress=f"{name} {mode}", out=work / mode
        )
        about = {"task": TASK.name, "split": "test", "mode": mode, "answers": k}
        yield about | _accuracy(runs)
    runs = sample(model, TASK.problems("validation", VALUED, seed=8), seed=8)
    values = estimate(model, runs, k=K, seed=8, progress=f"{name} values", out=work / "values")
    yield {"task": TASK.name, "split": "validation", **_values(values)}


def _accuracy(runs: Rollouts) -> dict[str, Any]:
    rewards = np.array(runs.rewards, float)
    groups = np.array(runs.groups)
    interval = stats.cluster_bootstrap(np.mean, rewards, groups, span=(0, 1))
    levels = np.array([problem.difficulty for problem in runs.problems])
    unread = [run.verdict.outcome == "unverifiable" for run in runs]
    by_level = {str(level): float(rewards[levels == level].mean()) for level in np.unique(levels)}
    order = np.argsort(groups, kind="stable")
    return {
        **asdict(interval),
        "unverifiable": float(np.mean(unread)),
        "ended": float(np.mean([run.ended for run in runs])),
        "length": float(np.mean([run.length for run in runs])),
        "by_operations": by_level,
        # Mean reward of every problem, for paired comparisons.
        "rewards": rewards[order].reshape(SHARED, -1).mean(1).tolist(),
    }


def _values(values: Values) -> dict[str, Any]:
    live, step = values.live, values.is_step
    mean = values.mean[live]
    noise = float(np.mean(mean * (1 - mean) / (values.k[live] - 1)))
    large = large_steps(values)
    delta, groups = values.delta[step], values.group[step]
    share = stats.cluster_bootstrap(np.mean, large.astype(float), groups, span=(0, 1))
    return {
        "states": int(live.sum()),
        "k": values.least,
        "value_mean": float(mean.mean()),
        "value_sd": float(mean.std()),
        "value_sd_corrected": float(np.sqrt(max(0.0, mean.var() - noise))),
        "steps": int(step.sum()),
        "large_delta": [share.estimate, share.low, share.high],
        "delta_up": float((large & (delta > 0)).mean()),
        "delta_down": float((large & (delta < 0)).mean()),
        "reliability": values.reliability(),
    }


def large_steps(values: Values) -> Bool[np.ndarray, " step"]:
    """Which steps have |delta| above `LARGE` and different proportions of right continuations
    before and behind (two-sided, p below `LEVEL`); an end counts as so many equal continuations
    as there are before it."""
    after = np.flatnonzero(values.is_step)
    before = after - 1
    k_before = values.k[before]
    k_after = np.where(values.live[after], values.k[after], k_before)
    right = k_before * values.mean[before] + k_after * values.mean[after]
    pooled = right / (k_before + k_after)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / k_before + 1 / k_after), 1e-12))
    z = (values.mean[after] - values.mean[before]) / spread
    p = 2 * norm.sf(np.abs(z))
    return (np.abs(values.delta[after]) > LARGE) & (p < LEVEL)


def compared(mode: str, base: str = "words-base", other: str = "words-rl") -> dict[str, float]:
    """Accuracy of `other` minus that of `base` on the shared problems, paired by problem; `mode` is
    "T=1" or "greedy"."""
    rewards = []
    for name in (other, base):
        rows = read_json(WEIGHTS / name / "measured.json", "measurements")["rows"]
        rewards.append(np.array(next(row["rewards"] for row in rows if row.get("mode") == mode)))
    ids = np.arange(SHARED)
    return asdict(stats.paired_difference(rewards[0], rewards[1], ids))


def card() -> list[str]:
    """Lines of the card of every adapter that is shipped, from its log and measurements."""
    shipped = [name for name in LESSONS if (WEIGHTS / name / "measured.json").exists()]
    if not shipped:
        return []
    lines = [
        "# The words models",
        "",
        "LoRA adapters on all linear layers of SmolLM2-135M-Instruct (Apache-2.0; `make real`), "
        "shipped in bfloat16 and merged at load. Every figure is that of the rounded adapter.",
        "Training data: random word problems of the training split only. "
        "Retrain with `python -m mechreward.bundled.teach`.",
        f"Accuracy on {SHARED} test problems, the same for all models; at T=1 {ANSWERS} answers to "
        "each. Intervals are bootstraps over problems.",
        "",
    ]
    for name in shipped:
        lines += _section(name)
    if {"words-base", "words-rl"} <= set(shipped):
        gaps = []
        for mode in ("T=1", "greedy"):
            gap = compared(mode)
            gaps.append(f"{mode} {gap['estimate']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]")
        lines += [
            "Accuracy of `words-rl` minus that of `words-base`, paired by problem: "
            f"{', '.join(gaps)}.",
            "",
        ]
    return lines


def _section(name: str) -> list[str]:
    folder = WEIGHTS / name
    recipe = read_json(folder / "recipe.json", "recipe")
    rows = read_json(folder / "measured.json", "measurements")["rows"]
    method = recipe["method"]
    done = recipe.get("done", recipe["steps"])
    count = str(done) if done == recipe["steps"] else f"the first {done} of {recipe['steps']}"
    updates = f"{count} updates of {recipe['batch']} problems"
    if recipe["samples"]:
        updates += f" with {recipe['samples']} answers each"
    if recipe["rounds"] > 1:
        updates += f", from {recipe['rounds']} rounds of {recipe['pool']} problems"
    lines = [
        f"## {name}",
        "",
        f"{HOW[method]}, from `{recipe['parent']}`; rank {recipe['rank']}; {updates}, "
        f"learning rate {recipe['learning_rate']:g}, seed {recipe['seed']}; "
        f"{recipe['seconds'] / 60:.0f} minutes on 2 CPU cores.",
        "",
        *log_table(folder),
        "",
        "| sampling | accuracy [95%] | problems | unverifiable | ended | mean length "
        "| by operations |",
        "|" + " --- |" * 7,
    ]
    for row in rows:
        if "mode" in row:
            lines.append(_accuracy_line(row))
    if all("mode" in row for row in rows):
        return [*lines, "", "Its values have not been measured yet.", ""]
    lines += [
        "",
        "| V-hat sd without noise (mean) | steps with abs(delta) > .3 at p < .01 [95%] | up | down "
        "| reliability V, delta | states, K |",
        "|" + " --- |" * 6,
    ]
    for row in rows:
        if "mode" not in row:
            lines.append(_values_line(row))
    return [*lines, ""]


def _accuracy_line(row: dict[str, Any]) -> str:
    levels = [f"{level}: {share:.2f}" for level, share in row["by_operations"].items()]
    cells = [
        row["mode"],
        f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
        str(row["n"]),
        f"{row['unverifiable']:.3f}",
        f"{row['ended']:.3f}",
        f"{row['length']:.1f}",
        ", ".join(levels),
    ]
    return f"| {' | '.join(cells)} |"


def _values_line(row: dict[str, Any]) -> str:
    reliability = row["reliability"]
    cells = [
        f"{row['value_sd_corrected']:.3f} ({row['value_mean']:.2f})",
        "{:.3f} [{:.3f}, {:.3f}]".format(*row["large_delta"]),
        f"{row['delta_up']:.3f}",
        f"{row['delta_down']:.3f}",
        f"{reliability['value']:.2f}, {reliability['delta']:.2f}",
        f"{row['states']}, {row['k']}",
    ]
    return f"| {' | '.join(cells)} |"


def main(
    names: list[str] = typer.Argument(None, help="Models; all if none is named."),
    work: Path = typer.Option(Path("runs/train"), help="Folder with the checkpoints."),
    at: int | None = typer.Option(None, help="The update a lesson was stopped at."),
    shipped: bool = typer.Option(False, help="Measure what is shipped; there is no checkpoint."),
) -> None:
    """Ship taught adapters and measure them."""
    for name in names or LESSONS:
        one_of("lesson", name, LESSONS)
        if not shipped:
            ship(LESSONS[name], work, at)
        rows = []
        for row in measure(name, work / name / "measured"):
            rows.append(row)
            write_json(WEIGHTS / name / "measured.json", {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
