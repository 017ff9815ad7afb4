"""GGUF files: read once, into a HuggingFace folder in the user's cache."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from platformdirs import user_cache_path

from mechreward.base.errors import MechRewardError
from mechreward.base.files import held, in_one_line, safe_name

BLOCK = 1 << 20  # bytes read at once
# What the libraries raise for a damaged file.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    ImportError,
    RuntimeError,
    struct.error,
)


def cache() -> Path:
    """The user's folder for what is made once: MECHREWARD_CACHE, or the system's place for it."""
    return Path(os.environ.get("MECHREWARD_CACHE") or user_cache_path("mechreward")).expanduser()


def sha256(path: Path) -> str:
    """Hex digits of a file's SHA-256."""
    whole = hashlib.sha256()
    with in_one_line("read", path), path.open("rb") as file:
        while block := file.read(BLOCK):
            whole.update(block)
    return whole.hexdigest()


def folder_of(path: Path) -> Path:
    """The HuggingFace folder with a GGUF file's weights in float32, which is made if it is not
    there: some 20 seconds for each 100 MB.

    Raises
    ------
    MechRewardError
        The file cannot be read as a language model, or the cache cannot be written.
    """
    folder = cache() / "gguf" / f"{safe_name(path.stem)}-{sha256(path)[:16]}"
    return convert(path, folder)


def convert(path: Path, folder: Path) -> Path:
    """Read a GGUF file into `folder`, which appears as a whole or not at all.

    Weights are dequantised to float32 exactly. Nothing is done where the folder is there.

    Raises
    ------
    MechRewardError
        The file cannot be read as a language model, or the folder cannot be written.
    """
    with held(folder):
        if folder.is_dir():
            return folder
        model, words = _read(path)
        # A folder of its own beside it, which takes the name once it is whole.
        with (
            in_one_line("write", folder),
            TemporaryDirectory(dir=folder.parent, prefix=".new-") as new,
        ):
            made = Path(new) / folder.name
            model.save_pretrained(made)
            words.save_pretrained(made)
            os.replace(made, folder)
    return folder


def _read(path: Path) -> tuple[Any, Any]:
    """Model and tokenizer as transformers reads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise MechRewardError(f"{path} is no GGUF file.")
        read = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
        words = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except UNREADABLE as error:
        if isinstance(error, MechRewardError):
            raise
        why = " ".join(str(error).split())
        raise MechRewardError(f"cannot read the GGUF file {path}: {why}") from error
    config: Any = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # A fresh one: the model that was read still counts as quantised, and refuses to be saved.
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    return model, words
