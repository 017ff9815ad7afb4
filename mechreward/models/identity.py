"""Which model it is, by its weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mechreward.base.errors import require
from mechreward.base.files import digest
from mechreward.base.streams import rng, stream
from mechreward.models.checks import check_model
from mechreward.models.sources import Source

WHOLE = 65_536  # values of a parameter that are all looked at
SOME = 8_192  # values of a larger one


@dataclass(frozen=True)
class ModelId:
    """Which model, and in which processing state, an artefact belongs to.

    Attributes
    ----------
    name : str
        The last part of the name it was loaded by.
    weights : str
        Hash over every parameter of up to 65,536 values, and 8,192 values of every larger one, at
        positions that are drawn once (our choice: quick; a training step changes it, and so does a
        row or a column that is zeroed, but for one of a single matrix more than some 2,000 wide).
    dtype : str
        Of the parameters.
    processing : str
        Matters because weight processing can make "coordinate 7" another coordinate.
    tokenizer : str, default ""
        Hash over its vocabulary; empty where there is none, and in artefacts that know none.
    adapter : str, default ""
        The last part of the name of what was merged into the weights.
    revision : str, default ""
        The commit on the hub, or the branch or tag that was asked for where it is not known.
    """

    name: str
    weights: str
    dtype: str
    processing: str
    tokenizer: str = ""
    adapter: str = ""
    revision: str = ""

    def check(self, other: ModelId, what: str, *, other_model: bool | None = None) -> None:
        """That something made on this model may be used with another.

        Parameters
        ----------
        other : ModelId
            The other model.
        what : str
            What was made, for messages.
        other_model : bool or None, default None
            True lets the weights differ, as in a base and its descendant; neurons are then the same
            by number, so the processing state has to be the same. False does not, and the message
            says that it could be asked for. None is for verbs that take the same model only.

        Raises
        ------
        MechRewardError
            Other weights, another processing state, or another tokenizer.
        """
        for part in ("weights", "processing", "tokenizer"):
            if part == "weights" and other_model:
                continue
            mine, theirs = getattr(self, part), getattr(other, part)
            if part == "tokenizer" and "" in (mine, theirs):
                continue
            hint = ""
            if part == "weights" and other_model is False:
                hint = " Give other_model=True to compare them nonetheless."
            require(
                mine == theirs,
                f"this {what} was made on {self.name} ({part} {mine}); "
                f"the model is {other.name} ({part} {theirs}).{hint}",
            )


@cache
def positions(values: int) -> torch.Tensor:
    """Which values of a large parameter are looked at, `[SOME]`: the same on every machine."""
    return torch.from_numpy(rng("model identity", values).integers(0, values, SOME))


def model_id(model: Any) -> ModelId:
    """The identity that is written into every artefact made with `model`.

    Raises
    ------
    MechRewardError
        No TransformerLens model.
    """
    check_model(model)
    name = str(getattr(model.cfg, "model_name", "") or type(model).__name__)
    adapter = revision = ""
    source = getattr(model, "source", None)
    if isinstance(source, Source):
        name, revision = source.name, source.revision or ""
        adapter = source.adapter.name if source.adapter else ""
    if getattr(model, "compatibility_mode", False):
        processing = "compatibility mode"
    elif hasattr(model, "original_model"):
        processing = "raw"
    else:
        normalization = getattr(model.cfg, "normalization_type", "")
        processing = f"{type(model).__name__} {normalization}".strip()
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return ModelId(
        Path(name).name, weights_of(model), dtype, processing, _words_of(model), adapter, revision
    )


def weights_of(model: Any) -> str:
    """Hash over the parameters of any torch module, as `ModelId.weights` says."""
    values = []
    for parameter in model.parameters():
        flat = parameter.detach().reshape(-1)
        if flat.numel() > WHOLE:
            # Not evenly spaced: that would see the same few columns of every row.
            flat = flat[positions(flat.numel()).to(flat.device)]
        picked = flat.float().cpu()
        values.append(f"{tuple(parameter.shape)}".encode() + picked.numpy().tobytes())
    return digest(*values)


def _words_of(model: Any) -> str:
    """Hash over the tokenizer's vocabulary; empty without one."""
    words: Any = getattr(model, "tokenizer", None)
    vocabulary = words.get_vocab() if hasattr(words, "get_vocab") else {}
    entries = sorted(vocabulary.items(), key=lambda entry: entry[1])
    return digest(*(f"{number} {token}" for token, number in entries)) if entries else ""


def randomised(model: Any, seed: int = 0) -> Any:
    """A copy of `model` that has learnt nothing; `model` stays as it is.

    Every weight tensor is drawn anew from the normal law of its own mean and standard deviation
    (our choice; arXiv 2512.18792 finds findings in such networks).
    """
    other = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(stream("random weights", seed))
    with torch.no_grad():
        for weight in other.parameters():
            noise = torch.randn(weight.shape, generator=draw).to(weight)
            deviation = weight.std(correction=0) if weight.numel() > 1 else 0
            weight.copy_(weight.mean() + deviation * noise)
    return other
