"""A certificate in a folder of its own, which remembers the problems that were measured there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mechreward.base.errors import require
from mechreward.base.files import held, write_atomic
from mechreward.causal.certificate import Certificate, certify
from mechreward.causal.material import deal
from mechreward.causal.registration import Registration, measured, remember
from mechreward.experiments.choice import find
from mechreward.probing.neurons import NeuronSet
from mechreward.tasks import Task

NAME = "certificate.json"


def certify_in(
    out: Path,
    model: Any,
    task: Task,
    neurons: NeuronSet | None,
    sizes: dict[str, Any],
    kind: str = "resid_post",
    validation: int = 30,
) -> Certificate:
    """Certify a set, and keep certificate and page.

    Parameters
    ----------
    out : Path
        The folder.
    model, task
        As `certify` takes them.
    neurons : NeuronSet or None
        The set; if None, one is chosen (`experiments.choice.find`) and kept too.
    sizes : dict of str to int
        Keywords of `certify`.
    kind : str, default "resid_post"
        What to choose among, if a set is chosen.
    validation : int, default 30
        Problems to choose layer and share on, if a set is chosen.
    """
    # Held from the beginning: a folder that cannot be written is told before the work.
    with held(out / NAME, wait=False):
        if neurons is None:
            seed = sizes["seed"]
            size = {"train": sizes["train"], "validation": validation}
            for split, n in size.items():
                remember(out, task.problems(split, n, seed))
            neurons = find(model, task, kind, seed=seed, k=sizes["k"], **size)
            neurons.save(out / "neurons.json")
        remember(out, deal(task, sizes, neurons.recipe is not None).all)
        return _kept(out, certify(model, task, neurons, **sizes))


def certify_registered(
    out: Path, model: Any, task: Task, registration: Registration
) -> Certificate:
    """Certify what was registered, on problems that were never measured in this folder.

    Parameters
    ----------
    out : Path
        The folder.
    model, task
        What the registration names.
    registration : Registration
        What is run.

    Raises
    ------
    MechRewardError
        Something is not as it was registered, or the folder holds this registration's certificate.
    """
    registration.check(task)
    with held(out / NAME, wait=False):
        path = out / NAME
        if path.exists():
            before = Certificate.load(path).registered.get("hash")
            require(
                before != registration.hash,
                f"{path} is the certificate of this registration: it is run once.",
            )
        neurons, sizes = registration.neurons, registration.sizes
        avoid = measured(out)
        problems = deal(task, sizes, neurons.recipe is not None, avoid)
        remember(out, problems.all)
        certificate = certify(model, task, neurons, avoid=avoid, **sizes)
        mark = {
            "hash": registration.hash,
            "made": registration.made,
            "passed_over": problems.passed_over,
        }
        return _kept(out, replace(certificate, registered=mark))


def _kept(out: Path, certificate: Certificate) -> Certificate:
    certificate.save(out / NAME)
    write_atomic(out / "certificate.md", certificate.page())
    return certificate
