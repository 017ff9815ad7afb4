"""Checkpoints of training: parameters, the optimiser's moments and the log, in one atomic file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mechreward.base.errors import require
from mechreward.base.files import read_tensors, write_atomic, write_tensors

FILE = "checkpoint.safetensors"
Parameters = Mapping[str, torch.nn.Parameter]


def keep(
    folder: Path,
    parameters: Parameters,
    optimizer: torch.optim.Optimizer,
    recipe: Any,
    step: int,
    seconds: float,
    mean: Mapping[str, float],
) -> None:
    """Write a checkpoint, with `mean` as a new row of its log.

    Parameters
    ----------
    folder
        Where it goes.
    parameters
        What is trained, by name.
    optimizer
        AdamW over these.
    recipe
        A dataclass: what the model depends on.
    step
        Updates so far.
    seconds
        Spent so far.
    mean
        Of the updates since the last one.
    """
    tensors = {}
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        none = torch.zeros_like(parameter)  # where no answer has earned a gradient
        tensors[f"model.{name}"] = parameter.detach().clone()
        tensors[f"first.{name}"] = state.get("exp_avg", none)
        tensors[f"second.{name}"] = state.get("exp_avg_sq", none)
    row = {"step": step, "seconds": round(seconds, 1)}
    log = [*log_of(folder), row | {key: round(value, 5) for key, value in mean.items()}]
    about = {"recipe": asdict(recipe), "step": step, "seconds": seconds, "log": log}
    write_tensors(folder / FILE, tensors, about)
    write_atomic(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in log))


def log_of(folder: Path) -> list[dict[str, float | int]]:
    """The rows so far; none without a checkpoint."""
    path = folder / FILE
    return read_tensors(path, "checkpoint")[1]["log"] if path.exists() else []


def go_on(
    folder: Path, parameters: Parameters, optimizer: torch.optim.Optimizer, recipe: Any
) -> tuple[int, float]:
    """Take parameters and moments from a checkpoint, if there is one.

    Returns
    -------
    (int, float)
        Updates and seconds so far; 0 without a checkpoint.

    Raises
    ------
    MechRewardError
        It is another recipe's.
    """
    path = folder / FILE
    if not path.exists():
        return 0, 0.0
    tensors, about = read_tensors(path, "checkpoint")
    require(
        about["recipe"] == json.loads(json.dumps(asdict(recipe))),
        f"{folder} was begun with another recipe: "
        "remove it, or train in another folder with --work.",
    )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"model.{name}"])
            moments = {"exp_avg": tensors[f"first.{name}"], "exp_avg_sq": tensors[f"second.{name}"]}
            state = {key: value.to(parameter.device) for key, value in moments.items()}
            optimizer.state[parameter] = {"step": torch.tensor(float(about["step"])), **state}
    return about["step"], about["seconds"]
