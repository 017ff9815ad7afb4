"""Say what will be certified before anything is measured: a registration, and the problems that a
folder has measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import digest, read_json, read_seal, write_json
from mechreward.causal import cause, certificate, claims, controls, material, trials, verdict
from mechreward.causal.material import key_of
from mechreward.probing import evidence
from mechreward.probing.neurons import NeuronSet
from mechreward.stats import beyond, intervals
from mechreward.tasks import Problem, Task

MEASURED = "measured.json"
# What runs write into their folder.
TAKEN = ("certificate.json", "certificate.md", "neurons.json", "results.json", MEASURED)
PROBLEMS = 20  # of the test split, by which a task is known again


@dataclass(frozen=True)
class Registration:
    """What will be certified, and how.

    Attributes
    ----------
    subject : dict of str
        What commands are told of model, task and policy (`experiments.subject.Subject`); the
        weights are those of `neurons.model_id`.
    task : str
        The task's name.
    problems : str
        Digest of some of the task's problems.
    neurons : NeuronSet
        The set.
    sizes : dict of str to int
        Keywords of `certify`, `seed` among them.
    thresholds : dict of str to number
        `thresholds` when it was made.
    version : str
        Of this package.
    made : str
        When, in UTC.
    """

    subject: dict[str, Any]
    task: str
    problems: str
    neurons: NeuronSet
    sizes: dict[str, Any]
    thresholds: dict[str, float]
    version: str
    made: str

    @property
    def hash(self) -> str:
        """SHA-256 of all of it: whoever knows it beforehand can tell that nothing was changed."""
        about = json.dumps(self._about(), sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()

    def save(self, path: Path | str) -> Path:
        """JSON, written atomically.

        Raises
        ------
        MechRewardError
            There is a file already: a registration is not made anew. Or a name that a run writes.
        """
        path = Path(path)
        free = path.name not in TAKEN and not path.name.startswith("registered-")
        require(free, f"{path.name} is what a run writes: name another, as registration.json.")
        require(not path.exists(), f"{path} exists: a registration is made once; name another.")
        about = {"kind": "registration", **self._about(), "hash": self.hash}
        return write_json(path, about)

    @classmethod
    def load(cls, path: Path | str) -> Registration:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            Missing, damaged, or not what its hash says.
        """
        data = read_json(path, "registration")
        kind = data.get("kind")
        require(kind == "registration", f"{path} holds {kind}, not a registration.")
        try:
            neurons = NeuronSet.from_json(data["neurons"], f"{path} is a damaged registration")
            made = cls(
                dict(data["subject"]),
                data["task"],
                data["problems"],
                neurons,
                dict(data["sizes"]),
                dict(data["thresholds"]),
                data["version"],
                data["made"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise MechRewardError(f"{path} is a damaged registration: {error!r}.") from error
        require(
            made.hash == data.get("hash"),
            f"{path} was changed since it was registered: its hash is another.",
        )
        return made

    def check(self, task: Task) -> None:
        """Raise MechRewardError if task, thresholds or package are not what was registered."""
        now = thresholds()
        for name, was in self.thresholds.items():
            require(
                now.get(name) == was,
                f"it was registered with {name} {was}; this version has {now.get(name)}.",
            )
        for what, was, found in (
            ("mechreward", self.version, version("mechreward")),
            ("task", self.task, task.name),
            ("problems", self.problems, known_by(task, self.sizes["seed"])),
        ):
            require(found == was, f"it was registered with {what} {was}; here it is {found}.")

    def _about(self) -> dict[str, Any]:
        return {**vars(self), "neurons": self.neurons.to_json()}


def register(
    subject: dict[str, Any], model: Any, task: Task, neurons: NeuronSet, sizes: dict[str, Any]
) -> Registration:
    """A registration, made now; nothing is measured.

    Parameters
    ----------
    subject : dict of str
        What commands are told of model, task and policy.
    model : TransformerBridge or HookedTransformer
        The one the set belongs to.
    task : Task
        Where problems will come from.
    neurons : NeuronSet
        The set.
    sizes : dict of str to int
        Keywords of `certify`.

    Raises
    ------
    MechRewardError
        What `certify` cannot begin with.
    """
    sizes = certificate.check(model, neurons, **sizes)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Registration(
        subject,
        task.name,
        known_by(task, sizes["seed"]),
        neurons,
        sizes,
        thresholds(),
        version("mechreward"),
        now,
    )


def thresholds() -> dict[str, float]:
    """The levels and sizes that verdicts depend on."""
    at_kl = {f"displacement {n} at one KL": factor for n, factor in enumerate(trials.FACTORS)}
    return at_kl | {
        "level": verdict.LEVEL,
        "worth moving": verdict.MOVE,
        "worth reading": claims.READ,
        "share": verdict.SHARE,
        "fewest draws": claims.FEWEST,
        "rms matched": controls.MATCHED,
        "readers": certificate.READERS,
        "sets at one KL": trials.STRONGER,
        "gap of a pair": trials.GAP,
        "like states": trials.ALIKE,
        "shortest clean answers": trials.SHORTEST,
        "smallest gap": evidence.SMALLEST_GAP,
        "smallest Spearman": evidence.SMALLEST_SPEARMAN,
        "shown beyond a fact": evidence.SHOWN,
        "fewest problems": claims.PROBLEMS,
        "knots": beyond.KNOTS,
        "levels": beyond.LEVELS,
        "ridge": beyond.RIDGE,
        "flips": beyond.FLIPS,
        "flips of a target": evidence.REFITTED,
        "fewest clusters": intervals.FEW,
        "neutral": certificate.NEUTRAL,
        "reads to turn back": cause.READS,
        "sets drawn at most": certificate.MOST_DRAWN,
        "times found again": material.REPEATS,
    }


def known_by(task: Task, seed: int) -> str:
    """Digest of some problems, by which the same task is known again."""
    return digest(*(key_of(problem) for problem in task.problems("test", PROBLEMS, seed)))


def measured(folder: Path | str, what: str = "problems") -> list[str]:
    """`key_of` all problems that were measured in a folder, or the hashes of the `registrations`
    that were run there.

    Raises
    ------
    MechRewardError
        A list that is damaged, was changed, or bears no seal.
    """
    path = Path(folder) / MEASURED
    if not path.exists():
        return []
    data = read_json(path, "list of measured problems")
    sealed = read_seal(path, "list of measured problems")
    require(bool(sealed), f"{path} was changed: it has no seal, and every such list is written so.")
    keys = data.get(what)
    if data.get("kind") != "measured" or not isinstance(keys, list):
        raise MechRewardError(f"{path} holds no list of measured problems.")
    return keys


def remember(folder: Path | str, problems: Sequence[Problem] = (), run: str = "") -> None:
    """Add problems to those that were measured in a folder: before they are, so that a run that is
    stopped counts. And the hash of a registration that was `run`: when its certificate is there."""
    keys = dict.fromkeys(measured(folder))
    keys |= dict.fromkeys(key_of(problem) for problem in problems)
    hashes = measured(folder, "registrations")
    if run:
        hashes = [*hashes, run]
    about = {"kind": "measured", "problems": list(keys), "registrations": hashes}
    write_json(Path(folder) / MEASURED, about)
