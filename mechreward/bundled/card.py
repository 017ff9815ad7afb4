"""From checkpoint to package data, and the models' card: `python -m mechreward.bundled.card`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import typer
from transformers import Qwen2Config, Qwen2ForCausalLM

from mechreward import stats, tasks
from mechreward.base.files import read_json, read_tensors, write_atomic, write_json
from mechreward.bundled.train import ARCHITECTURE, GAMES, RECIPES
from mechreward.bundled.vocabulary import tokenizer
from mechreward.models.engine import Policy
from mechreward.models.load import load
from mechreward.models.sources import WEIGHTS
from mechreward.rollouts.sample import sample
from mechreward.rollouts.value import estimate

# The test split has some 3,200 Countdown problems of three numbers. Those with many solutions are
# drawn first, so that accuracy falls as n comes near to all of them.
FEWER = {"countdown": 1200}
ANSWERS = 4
SHIPPED = [name for name in RECIPES if name != "pretrained"]


def ship(name: str, work: Path) -> Path:
    """Keep a finished checkpoint: its training log, and the model in half precision.

    The model is a HuggingFace folder; of `pretrained`, which is only a beginning, the log alone is
    kept.
    """
    tensors, about = read_tensors(work / name / "checkpoint.safetensors", "checkpoint")
    folder = WEIGHTS / name
    if name in SHIPPED:
        model = Qwen2ForCausalLM(Qwen2Config(**ARCHITECTURE))
        weights = {
            key.removeprefix("model."): value
            for key, value in tensors.items()
            if key.startswith("model.")
        }
        # Parameter names themselves start with "model.": only the first prefix is ours.
        model.load_state_dict(weights, strict=False)
        model.half().save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    write_atomic(folder / "training.jsonl", "".join(json.dumps(row) + "\n" for row in about["log"]))
    write_json(folder / "recipe.json", about["recipe"] | {"seconds": round(about["seconds"])})
    return folder


def measure(name: str) -> Iterator[dict[str, Any]]:
    """Rows of the card for one model: accuracy by task and split, and what its values look like."""
    model = load(name)
    learnt = {GAMES[game].name for game, _ in RECIPES[name].tasks}
    for task_name in tasks.GAMES:
        task = tasks.get(task_name)
        many = FEWER.get(task_name, 5000) if task_name in learnt else 500
        for split, mode, n, k in (
            ("test", "T=1", many, ANSWERS),
            ("test", "greedy", 500, 1),
            ("validation", "T=1", 300, 1),
        ):
            runs = sample(
                model,
                task.problems(split, n, seed=7),
                k=k,
                policy=Policy(0.0 if mode == "greedy" else 1.0),
                seed=7,
                progress=f"{name} {task_name} {split} {mode}",
            )
            accuracy = stats.cluster_bootstrap(
                np.mean, np.array(runs.rewards, float), np.array(runs.groups), span=(0, 1)
            )
            unread = sum(run.verdict.outcome == "unverifiable" for run in runs) / len(runs)
            backs = np.mean(
                [model.tokenizer.convert_tokens_to_ids("back") in run.tokens for run in runs]
            )
            yield {"task": task_name, "split": split, "mode": mode, **asdict(accuracy)} | {
                "unverifiable": unread,
                "back": float(backs),
                "length": float(np.mean([run.length for run in runs])),
            }
        if task_name in learnt:
            yield {"task": task_name, **_values(model, task)}


def _values(model: Any, task: tasks.Task) -> dict[str, Any]:
    """Spread of V-hat and delta on validation problems, and how many have mixed outcomes."""
    problems = task.problems("validation", 120, seed=8)
    values = estimate(
        model,
        sample(model, problems, seed=8, progress=False),
        k=32,
        seed=8,
        progress=f"values {task.name}",
    )
    delta, owner = values.delta[values.is_step], values.group[values.is_step]
    large = stats.cluster_bootstrap(
        np.mean, (np.abs(delta) > 0.3).astype(float), owner, span=(0, 1)
    )
    runs = sample(
        model, task.problems("validation", 100, seed=9), k=16, seed=9, progress=f"mixed {task.name}"
    )
    back = model.tokenizer.convert_tokens_to_ids("back")
    rewards = np.array(runs.rewards).reshape(-1, 16)
    backs = np.array([bool((run.tokens == back).any()) for run in runs]).reshape(-1, 16)
    levels = np.array([problem.difficulty for problem in runs.problems[::16]])
    middle = levels == int(np.median(levels))
    return {
        "value_sd": float(values.mean[values.live].std()),
        "value_mean": float(values.mean[values.live].mean()),
        "large_delta": [large.estimate, large.low, large.high],
        "delta_up": float((delta > 0.3).mean()),
        "delta_down": float((delta < -0.3).mean()),
        "reliability": values.reliability(),
        "states": int(values.live.sum()),
        "k": values.least,
        "middling": int(np.median(levels)),
        "middling_n": int(middle.sum()),
        "mixed_outcome": float(_mixed(rewards[middle]).mean()),
        "mixed_back": float(_mixed(backs[middle]).mean()),
        "by_difficulty": {
            str(level): float(rewards[levels == level].mean()) for level in np.unique(levels)
        },
    }


def _mixed(rows: np.ndarray) -> np.ndarray:
    return (rows.mean(1) > 0) & (rows.mean(1) < 1)


def card() -> list[str]:
    """Lines of the model card in Markdown, from the logs and measurements in the package."""
    lines = [
        f"Qwen2 architecture, {ARCHITECTURE['num_hidden_layers']} layers, "
        f"d_model {ARCHITECTURE['hidden_size']}, d_mlp {ARCHITECTURE['intermediate_size']}, "
        f"{ARCHITECTURE['vocab_size']} words; shipped in float16, used in float32.",
        "Training data: random problems of the training splits only; "
        "no text or data of anyone else.",
        f"Accuracy at T=1 on test: {ANSWERS} answers to each of n problems; "
        "intervals are bootstraps over problems.",
        "Countdown problems with many solutions are drawn first: "
        "accuracy falls as n nears the size of the split.",
        "",
    ]
    for name in RECIPES:
        if (WEIGHTS / name / "recipe.json").exists():
            lines += _section(name)
    return lines


def _section(name: str) -> list[str]:
    folder = WEIGHTS / name
    recipe = read_json(folder / "recipe.json", "recipe")
    measured = folder / "measured.json"
    rows = read_json(measured, "measurements")["rows"] if measured.exists() else []
    kind = (
        f"supervised on traces of the {recipe['solver']} solver"
        if recipe["solver"]
        else "policy gradient"
    )
    kind += f", from `{recipe['parent']}`" if recipe["parent"] else ", from random weights"
    lines = [
        f"## {name}",
        "",
        f"{kind}; tasks {_shares(recipe['tasks'])}; {recipe['steps']} updates of "
        f"{recipe['batch']} x {recipe['samples']}, learning rate {recipe['learning_rate']}, "
        f"seed {recipe['seed']}; {recipe['seconds'] / 60:.0f} minutes on 2 CPU cores, "
        "shared with other work.",
    ]
    lines += ["", *log_table(folder)]
    if not rows:
        beginning = (
            "A beginning only: its log is kept, its weights are not bundled. "
            "`countdown-base` went on from them after rounding to half precision."
        )
        return [*lines, "", beginning, ""]
    lines += [
        "",
        "| task | split | sampling | accuracy [95%] | n | unverifiable | with `back` "
        "| mean length |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "mode" in row:
            span = f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            rest = f"{row['unverifiable']:.3f} | {row['back']:.2f} | {row['length']:.1f}"
            lines.append(
                f"| {row['task']} | {row['split']} | {row['mode']} | {span} | {row['n']} | {rest} |"
            )
    lines += [
        "",
        "| task | V-hat sd (mean) | steps with abs(delta) > .3 [95%] | up | down "
        "| reliability V, delta | states, K "
        "| middling problems: both outcomes, both with and without `back` "
        "| accuracy by difficulty |",
        "|" + " --- |" * 9,
    ]
    for row in rows:
        if "value_sd" not in row:
            continue
        levels = [f"{level}: {share:.2f}" for level, share in row["by_difficulty"].items()]
        reliability = row["reliability"]
        cells = [
            row["task"],
            f"{row['value_sd']:.3f} ({row['value_mean']:.2f})",
            "{:.3f} [{:.3f}, {:.3f}]".format(*row["large_delta"]),
            f"{row['delta_up']:.3f}",
            f"{row['delta_down']:.3f}",
            f"{reliability['value']:.2f}, {reliability['delta']:.2f}",
            f"{row['states']}, {row['k']}",
            f"{row['mixed_outcome']:.2f}, {row['mixed_back']:.2f} "
            f"(difficulty {row['middling']}, n={row['middling_n']})",
            ", ".join(levels),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def log_table(folder: Path) -> list[str]:
    """At most nine rows of a training log."""
    log = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    keys = [key for key in log[0] if key != "step"]
    lines = [f"| step | {' | '.join(keys)} |", "|" + " --- |" * (len(keys) + 1)]
    for number in np.linspace(0, len(log) - 1, min(9, len(log))):
        row = log[round(number)]
        cells = [f"{row[key]:.3g}" for key in keys]
        lines.append(f"| {row['step']:.0f} | {' | '.join(cells)} |")
    return lines


def _shares(tasks: list[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {share:.3g}" for name, share in tasks)


def main(
    names: list[str] = typer.Argument(None, help="Models; all that are trained if none is named."),
    work: Path = typer.Option(Path("runs/train"), help="Folder with the checkpoints."),
) -> None:
    """Ship trained checkpoints and measure them."""
    for name in names or RECIPES:
        ship(name, work)
        if name in SHIPPED:
            write_json(WEIGHTS / name / "measured.json", {"rows": list(measure(name))})


if __name__ == "__main__":
    typer.run(main)
