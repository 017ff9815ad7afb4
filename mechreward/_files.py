"""Files that are whole or absent: atomic writes, safetensors and JSON, digests. Never pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from mechreward._check import MechRewardError, require


def write_atomic(path: Path | str, data: bytes | str) -> Path:
    """Write to a temporary name beside `path`, fsync, rename: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write_json(path: Path | str, value: Any) -> Path:
    """Atomic JSON with stable key order kept as given."""
    return write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str, what: str) -> dict[str, Any]:
    """Parsed JSON object of a `what` file.

    Raises:
        MechRewardError: missing, damaged, or not a JSON object.
    """
    raw = _read(path, what)
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise MechRewardError(f"{path} is not a {what} file: no readable JSON ({_kind(raw)}).") from error
    require(isinstance(value, dict), f"{path} is not a {what} file: its JSON is no object.")
    return value


def write_tensors(path: Path | str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> Path:
    """Atomic safetensors file; `about` travels in its header as one JSON string."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_atomic(path, to_safetensors(whole, metadata={"about": json.dumps(about)}))


def read_tensors(path: Path | str, what: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and `about` of a safetensors file.

    Raises:
        MechRewardError: missing, damaged, pickled, or written by something else.
    """
    raw = _read(path, what)
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            require(isinstance(about, dict), "its header is no JSON object")
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise MechRewardError(f"{path} is not a {what} file: no readable safetensors ({_kind(raw)}).") from error


def digest(*parts: bytes | str) -> str:
    """First 16 hex digits of the SHA-256 of the parts."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:16]


def _read(path: Path | str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise MechRewardError(f"cannot read the {what} file {path}: {error.strerror}.") from error


def _kind(raw: bytes) -> str:
    if raw[:1] == b"\x80" or raw[:2] == b"PK":
        return "it looks pickled, and pickled files are never opened"
    return "empty file" if not raw else "damaged, or of another kind"
