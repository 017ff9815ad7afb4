"""Confidence in the answers of a model, from its problems alone, in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

from mechreward.base.errors import of_kind, one_of, whole
from mechreward.base.files import held, write_atomic
from mechreward.experiments.choice import KINDS, find
from mechreward.models.policy import Policy
from mechreward.models.shards import kept_in
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.sample import sample
from mechreward.rollouts.value import estimate
from mechreward.studies.folder import PARTS, WORTH
from mechreward.tasks import Problem, Task
from mechreward.uses.confidence import Confidence, confidence

NAME = "confidence.safetensors"  # held by whoever measures in the folder
LEAST = {"train": 2, "k": 1, "calibration": 2, "test": 1, "answers": 1, "draws": 1}


def confident_in(
    out: Path,
    model: Any,
    task: Task,
    neurons: NeuronSet | None,
    sizes: Mapping[str, int],
    kind: str = "resid_post",
    validation: int = 30,
    *,
    layers: Sequence[int] | None = None,
    policy: Policy | None = None,
    progress: bool = True,
) -> tuple[Confidence, Path]:
    """Answers, values, value neurons, and how sure they are; all is kept.

    Read-outs and baselines are fitted to the training split, calibrated on test problems, and
    measured on other test problems; a set is chosen on the training and the validation split alone.
    Stopped and called again, it goes on where it was.

    Parameters
    ----------
    out : Path
        The folder: `confidence.safetensors`, its tables `confidence.csv` and `metrics.csv`, and
        `confidence.txt`, what the value arm comes to.
    model, task
        As `sample` and `Task.problems` take them.
    neurons : NeuronSet or None
        The set; if None, one is chosen (`experiments.choice.find`) and kept as `neurons.json`.
    sizes : mapping of str to int
        `seed`; problems `train`, `calibration` and `test`; `k` continuations of a state; `answers`
        to each problem that is calibrated or measured on; control sets `draws`.
    kind : str, default "resid_post"
        What to choose among, if a set is chosen.
    validation : int, default 30
        Problems to choose layer and share on, if a set is chosen.
    layers : sequence of int or None, default None
        Those to choose from, if a set is chosen; None: all.
    policy : Policy or None, default None
        How answers are drawn; the model's own distribution if None.
    progress : bool, default True
        Whether bars are shown.

    Returns
    -------
    (Confidence, Path)
        And the text.

    Raises
    ------
    MechRewardError
        Sizes that are too small, fewer problems than these, a folder that another process is at,
        or nothing to learn (see `confidence`).
    """
    of_kind("task", task, Task, "tasks.get makes one of a name")
    one_of("kind of neuron", kind, KINDS)
    for name, least in LEAST.items():
        whole(name, sizes[name], least)
    seed = whole("seed", sizes["seed"])
    measured = _test_problems(task, sizes)
    parts = out / f".{NAME}{PARTS}"
    with held(out / NAME, wait=False), kept_in(parts, WORTH):
        if neurons is None:
            neurons = find(
                model,
                task,
                kind,
                seed=seed,
                train=sizes["train"],
                validation=validation,
                k=sizes["k"],
                layers=layers,
                policy=policy,
                progress=progress,
            )
            neurons.save(out / "neurons.json")
        how: dict[str, Any] = {"seed": seed, "policy": policy}
        train = task.problems("train", sizes["train"], seed)
        fit = sample(model, train, progress=progress and "train", **how)
        values = estimate(
            model, fit, k=sizes["k"], seed=seed, progress=progress and "train: values"
        )
        runs = {}
        for name, problems in measured.items():
            title = progress and name
            runs[name] = sample(model, problems, k=sizes["answers"], progress=title, **how)
        conf = confidence(
            model,
            runs["test"],
            neurons,
            fit=fit,
            values=values,
            calibration=runs["calibration"],
            draws=sizes["draws"],
            seed=seed,
            progress=progress,
        )
        conf.save(out / NAME)
        conf.to_csv(out / "confidence.csv")
        write_atomic(out / "metrics.csv", conf.metrics().to_csv(index=False))
        page = write_atomic(out / "confidence.txt", f"{conf}\n")
    rmtree(parts, ignore_errors=True)
    return conf, page


def _test_problems(task: Task, sizes: Mapping[str, int]) -> dict[str, list[Problem]]:
    """Test problems dealt to what they serve, so that none serves both."""
    first = sizes["calibration"]
    every = task.problems("test", first + sizes["test"], sizes["seed"])
    return {"calibration": every[:first], "test": every[first:]}
