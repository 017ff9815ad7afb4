"""A certificate in a folder of its own, which remembers the problems that were measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from mechreward.base.errors import require
from mechreward.base.files import held, write_atomic
from mechreward.causal.certificate import Certificate, certify
from mechreward.causal.material import deal
from mechreward.causal.registration import Registration, measured, remember
from mechreward.experiments.choice import find
from mechreward.models.policy import Policy
from mechreward.models.shards import kept_in
from mechreward.probing.neurons import NeuronSet
from mechreward.studies.folder import PARTS, RESULTS, WORTH, Folder
from mechreward.tasks import Task

NAME = "certificate.json"  # held by whoever certifies in the folder


def certify_in(
    out: Path,
    model: Any,
    task: Task,
    neurons: NeuronSet | None,
    sizes: dict[str, Any],
    kind: str = "resid_post",
    validation: int = 30,
    *,
    layers: Sequence[int] | None = None,
    policy: Policy | None = None,
) -> tuple[Certificate, Path]:
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
    layers : sequence of int or None, default None
        Those to choose from, if a set is chosen; None: all.
    policy : Policy or None, default None
        How answers are drawn; the model's own distribution if None.

    Returns
    -------
    (Certificate, Path)
        And its page.
    """
    # Held from the beginning: a folder that cannot be written is told before the work.
    parts = out / f".{NAME}{PARTS}"
    with held(out / NAME, wait=False), kept_in(parts, WORTH):
        if neurons is None:
            seed = sizes["seed"]
            size = {"train": sizes["train"], "validation": validation}
            for split, n in size.items():
                remember(out, task.problems(split, n, seed))
            how: dict[str, Any] = {"k": sizes["k"], "layers": layers, "policy": policy}
            neurons = find(model, task, kind, seed=seed, **how, **size)
            neurons.save(out / "neurons.json")
        remember(out, deal(task, sizes, neurons.by_recipe).all)
        certificate = certify(model, task, neurons, policy=policy, **sizes)
        certificate.save(out / NAME)
        page = _page(out / NAME, certificate)
    rmtree(parts, ignore_errors=True)
    return certificate, page


def certify_registered(
    out: Path,
    model: Any,
    task: Task,
    registration: Registration,
    policy: Policy | None = None,
) -> tuple[Certificate, Path]:
    """Certify what was registered, on problems that were never measured in this folder.

    Parameters
    ----------
    out : Path
        The folder.
    model, task
        What the registration names.
    registration : Registration
        What is run.
    policy : Policy or None, default None
        How answers are drawn, as it was registered.

    Returns
    -------
    (Certificate, Path)
        And its page. Their files bear the hash: no other certificate is written over them.

    Raises
    ------
    MechRewardError
        Something is not as it was registered, the folder holds this registration's certificate, or
        it holds a run, whose problems were measured.
    """
    registration.check(task)
    require(
        not (out / RESULTS).exists() and not Folder(out).begun,
        f"{out} holds a run whose problems were measured: name another folder.",
    )
    name = f"registered-{registration.hash[:8]}"
    with held(out / NAME, wait=False):
        _check_fresh(out, name, registration)
        neurons, sizes = registration.neurons, registration.sizes
        avoid = measured(out)
        problems = deal(task, sizes, neurons.by_recipe, avoid)
        remember(out, problems.all)
        certificate = certify(model, task, neurons, avoid=avoid, policy=policy, **sizes)
        mark = {
            "hash": registration.hash,
            "made": registration.made,
            "passed_over": problems.passed_over,
        }
        certificate = replace(certificate, registered=mark)
        _check_fresh(out, name, registration)  # whatever became of the lock meanwhile
        certificate.save(out / f"{name}.json")
        # Before the page: who has the certificate has seen it, whatever becomes of the page.
        remember(out, run=registration.hash)
        return certificate, _page(out / name, certificate)


def _check_fresh(out: Path, name: str, registration: Registration) -> None:
    """Raise MechRewardError if a folder shows that a registration was run there."""
    there = any((out / f"{name}{ending}").is_file() for ending in (".json", ".md"))
    require(
        not there and registration.hash not in measured(out, "registrations"),
        f"{out} holds the run of this registration, {name}: it is run once.",
    )


def _page(path: Path, certificate: Certificate) -> Path:
    return write_atomic(path.with_suffix(".md"), certificate.page())
