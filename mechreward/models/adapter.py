"""Adapters (LoRA and its kin): merged into the model that they were trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mechreward.base.errors import MechRewardError, require
from mechreward.base.files import read_json

CONFIG = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
NAMED = 4  # tensors that a message names before it only counts them


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """The name of the model that an adapter was trained on.

    Raises
    ------
    MechRewardError
        Its config names none.
    """
    base = read_json(folder / CONFIG, "adapter config").get("base_model_name_or_path")
    require(
        isinstance(base, str) and bool(base),
        f"{folder / CONFIG} names no base model: load that by its name, with adapter={folder}.",
    )
    return str(base)


def adapter_folder(adapter: Path | str, revision: str | None = None) -> Path:
    """The folder with an adapter's config and safetensors; from the hub where it is OWNER/NAME.

    Raises
    ------
    MechRewardError
        Neither a folder nor on the hub, or no safetensors: a pickled adapter is never opened.
    """
    folder = Path(adapter).expanduser()
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError

        try:
            folder = Path(
                snapshot_download(
                    str(adapter), revision=revision, allow_patterns=[CONFIG, WEIGHTS_FILE]
                )
            )
        except (OSError, HFValidationError) as error:
            why = " ".join(str(error).split())
            raise MechRewardError(
                f"{adapter} is no folder here, and no adapter on the hub: {why}"
            ) from error
    for name in (CONFIG, WEIGHTS_FILE):
        there = ", ".join(sorted(path.name for path in folder.glob("adapter_*"))) or "none"
        require(
            (folder / name).is_file(),
            f"{folder} is no adapter: it has no {name} (files of an adapter there: {there}).",
        )
    return folder


def merged(model: Any, folder: Path) -> Any:
    """The HuggingFace model with the adapter's change added to its weights.

    Raises
    ------
    MechRewardError
        The adapter is of another model, damaged, or of a kind that cannot be merged.
    """
    from peft import PeftModel, get_peft_model_state_dict

    device = str(next(model.parameters()).device)
    try:
        with safe_open(str(folder / WEIGHTS_FILE), framework="pt") as file:
            given = set(file.keys())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tensors that do not fit: they are refused below
            changed = PeftModel.from_pretrained(model, str(folder), torch_device=device)
        # Said, or peft asks the hub whether the vocabulary was changed.
        whole_tables = any(_is_table(name) for name in given)
        wanted = set(get_peft_model_state_dict(changed, save_embedding_layers=whole_tables))
        whole = changed.merge_and_unload(safe_merge=True)
    except AttributeError as error:
        raise MechRewardError(f"the adapter {folder} cannot be merged: {error}") from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:300]
        raise MechRewardError(f"the adapter {folder} does not fit: {why}") from error
    wrong = {"missing": wanted - given, "left over": given - wanted}
    phrases = []
    for what, names in wrong.items():
        if names:
            more = f", ... ({len(names)} in all)" if len(names) > NAMED else ""
            phrases.append(f"{what}: {', '.join(sorted(names)[:NAMED])}{more}")
    require(
        not phrases,
        f"the adapter {folder} is of another model; of its tensors are {'; '.join(phrases)}.",
    )
    return whole


def _is_table(name: str) -> bool:
    """Whether a tensor is a whole embedding or unembedding, which peft saves if it was resized or
    is adapted itself."""
    return "lora_" not in name and ("embed" in name or "lm_head" in name)
