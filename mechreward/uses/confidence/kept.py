"""A confidence as a file: arrays as tensors, all else as JSON; nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import read_tensors, write_tensors
from mechreward.models.identity import ModelId
from mechreward.models.site import Site
from mechreward.probing.probe import ValueProbe, net
from mechreward.uses.confidence.calibrators import Isotonic, Platt
from mechreward.uses.confidence.fitted import Fitted
from mechreward.uses.confidence.groups import Arm, Group, Scale
from mechreward.uses.confidence.logit import Logit
from mechreward.uses.confidence.read_outs import ReadOut
from mechreward.uses.confidence.reader import Plain, Reader, Together, Words
from mechreward.uses.confidence.text import Text

KIND = "confidence"
PARTS: dict[str, Any] = {
    part.__name__: part
    for part in (
        Arm, Fitted, Group, Isotonic, Logit, Plain, Platt, Reader, ReadOut, Scale, Text, Together,
        Words, ModelId,
    )
}  # fmt: skip
C = TypeVar("C")
Tensors = dict[str, torch.Tensor]


def write(path: Path | str, confidence: Any) -> Path:
    """Write a confidence atomically."""
    tensors: Tensors = {}
    parts = {}
    for field in fields(confidence):
        parts[field.name] = _flat(getattr(confidence, field.name), field.name, tensors)
    return write_tensors(path, tensors, {"kind": KIND, "parts": parts})


def read(path: Path | str, cls: type[C]) -> C:
    """Read what `write` wrote, as an object of `cls`.

    Raises
    ------
    MechRewardError
        The file is missing, damaged, or holds something else.
    """
    tensors, about = read_tensors(path, KIND)
    require(about.get("kind") == KIND, f"{path} holds {about.get('kind')}, not a {KIND}.")
    try:
        return cls(**{name: _whole(part, tensors) for name, part in about["parts"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MechRewardError(f"{path} is a damaged {KIND} file: {error!r}.") from error


def _flat(value: Any, name: str, tensors: Tensors) -> Any:
    """A value as JSON can hold it; its arrays go to `tensors`."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.ascontiguousarray(value))
        return {"array": name}
    if isinstance(value, Site):
        return {"site": str(value)}
    if isinstance(value, ValueProbe):
        return {"probe": _flat_probe(value, name, tensors)}
    if isinstance(value, Mapping):
        pairs = []
        for number, (key, entry) in enumerate(value.items()):
            pairs.append([_flat(key, "", tensors), _flat(entry, f"{name}.{number}", tensors)])
        return {"pairs": pairs}
    if isinstance(value, tuple):
        entries = enumerate(value)
        return [_flat(entry, f"{name}.{number}", tensors) for number, entry in entries]
    assert is_dataclass(value) and type(value).__name__ in PARTS, type(value)
    parts = {}
    for field in fields(value):
        parts[field.name] = _flat(getattr(value, field.name), f"{name}.{field.name}", tensors)
    return {"part": type(value).__name__, "fields": parts}


def _whole(value: Any, tensors: Tensors) -> Any:
    """What `_flat` took apart."""
    if isinstance(value, list):
        return tuple(_whole(entry, tensors) for entry in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return tensors[value["array"]].numpy()
    if "site" in value:
        return Site.parse(value["site"])
    if "probe" in value:
        return _whole_probe(value["probe"], tensors)
    if "pairs" in value:
        return {_whole(key, tensors): _whole(entry, tensors) for key, entry in value["pairs"]}
    parts = {name: _whole(part, tensors) for name, part in value["fields"].items()}
    return PARTS[value["part"]](**parts)


def _flat_probe(probe: ValueProbe, name: str, tensors: Tensors) -> dict[str, Any]:
    """What a fitted probe predicts with."""
    tensors[f"{name}.mean"] = probe.mean_
    tensors[f"{name}.scale"] = probe.scale_
    tensors[f"{name}.scores"] = torch.from_numpy(probe.scores_)
    weights = probe.net_.state_dict()
    for key, weight in weights.items():
        tensors[f"{name}.net.{key}"] = weight
    params = probe.get_params()
    return {"name": name, "params": params, "weights": list(weights)}


def _whole_probe(about: dict[str, Any], tensors: Tensors) -> ValueProbe:
    probe, name = ValueProbe(**about["params"]), about["name"]
    probe.mean_, probe.scale_ = tensors[f"{name}.mean"], tensors[f"{name}.scale"]
    probe.scores_ = tensors[f"{name}.scores"].numpy()
    probe.n_features_in_ = width = len(probe.scores_)
    linear = probe.shape == "linear"
    probe.net_ = torch.nn.Linear(width, 1) if linear else net(width, probe.hidden, probe.seed)
    weights = {key: tensors[f"{name}.net.{key}"] for key in about["weights"]}
    probe.net_.load_state_dict(weights)
    return probe
