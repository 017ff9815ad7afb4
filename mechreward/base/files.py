"""Files that are whole or absent: atomic writes, safetensors and JSON, digests. Never pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mechreward.base.errors import MechRewardError, require

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_atomic(path: Path | str, data: bytes | str) -> Path:
    """Write to a temporary name beside `path`, fsync, rename: a reader never sees half a file."""
    return _write(path, [data.encode() if isinstance(data, str) else data])


def _write(path: Path | str, parts: Iterable[bytes | memoryview]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
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
        raise MechRewardError(
            f"{path} is not a {what} file: no readable JSON ({_kind(raw)})."
        ) from error
    require(isinstance(value, dict), f"{path} is not a {what} file: its JSON is no object.")
    return value


def write_tensors(
    path: Path | str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]
) -> Path:
    """Atomic safetensors file; `about` travels in its header as one JSON string.

    Every tensor goes from its own memory into the file, one at a time: `safetensors.torch.save`
    builds the whole file in memory first, which is several times slower than the disk.
    """
    head, starts = tensor_header(
        {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}, about
    )
    return _write(
        path,
        chain([head], (_bytes(tensors[name]) for name in sorted(starts, key=starts.__getitem__))),
    )


def tensor_header(
    shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], about: Mapping[str, Any]
) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a safetensors file, and where in the file each tensor begins."""
    header: dict[str, Any] = {"__metadata__": {"about": json.dumps(about)}}
    end, begins = 0, {}
    # Wide types first, so that every tensor lies at a multiple of its own width.
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: -item[1][0].itemsize):
        begins[name], end = end, end + prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [begins[name], end],
        }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    whole = len(head).to_bytes(8, "little") + head
    return whole, {name: len(whole) + at for name, at in begins.items()}


def read_tensors(path: Path | str, what: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and `about` of a safetensors file.

    Raises:
        MechRewardError: missing, damaged, pickled, or written by something else.
    """
    _read(path, what, 0)
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            require(isinstance(about, dict), "its header is no JSON object")
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise MechRewardError(
            f"{path} is not a {what} file: no readable safetensors ({_kind(_read(path, what, 2))})."
        ) from error


def digest(*parts: bytes | str) -> str:
    """First 16 hex digits of the SHA-256 of the parts."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _read(path: Path | str, what: str, size: int = -1) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise MechRewardError(f"cannot read the {what} file {path}: {error.strerror}.") from error


def _kind(raw: bytes) -> str:
    if raw[:1] == b"\x80" or raw[:2] == b"PK":
        return "it looks pickled, and pickled files are never opened"
    return "empty file" if not raw else "damaged, or of another kind"


def nulled(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null, at any depth; tuples become lists."""
    if isinstance(value, dict):
        return {k: nulled(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [nulled(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
