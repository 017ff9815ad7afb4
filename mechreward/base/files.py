"""Files that are whole or absent: atomic writes, safetensors and JSON, digests. Never pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
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
    """Write a file as a whole: a reader never sees half of it.

    Written to a temporary name beside `path`, fsynced, renamed; missing folders are made.

    Returns
    -------
    Path
        `path`.
    """
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
    """Write JSON atomically, with the keys in the order given; NaN is refused (see `nulled`)."""
    return write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str, what: str) -> dict[str, Any]:
    """Read the JSON object of a file.

    Parameters
    ----------
    path
        The file.
    what
        What the file should be, for messages: `results`, `plan`.

    Raises
    ------
    MechRewardError
        Missing, damaged, or not a JSON object.
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
    """Write a safetensors file atomically.

    Every tensor goes from its own memory into the file, one at a time: `safetensors.torch.save`
    builds the whole file in memory first, which is several times slower than the disk.

    Parameters
    ----------
    path
        The file.
    tensors
        Tensors of any shape, by name.
    about
        Travels in the file's header as one JSON string.
    """
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    header, starts = tensor_header(shapes, about)

    def parts() -> Iterator[bytes | memoryview]:
        yield header
        for name in sorted(starts, key=starts.__getitem__):
            yield _bytes(tensors[name])

    return _write(path, parts())


def tensor_header(
    shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], about: Mapping[str, Any]
) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a safetensors file.

    Parameters
    ----------
    shapes
        Type and shape of every tensor, by name.
    about
        As for `write_tensors`.

    Returns
    -------
    header
        Everything before the first tensor.
    starts
        Where in the file each tensor begins.
    """
    header: dict[str, Any] = {"__metadata__": {"about": json.dumps(about)}}
    begins: dict[str, int] = {}
    end = 0
    # Wide types first, so that every tensor lies at a multiple of its own width.
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: -item[1][0].itemsize):
        begins[name] = end
        end += prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [begins[name], end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    whole = len(text).to_bytes(8, "little") + text
    return whole, {name: len(whole) + begin for name, begin in begins.items()}


def read_tensors(path: Path | str, what: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a file that `write_tensors` wrote.

    Parameters
    ----------
    path
        The file.
    what
        What the file should be, for messages.

    Returns
    -------
    tensors
        By name.
    about
        What travelled in the header.

    Raises
    ------
    MechRewardError
        Missing, damaged, pickled, or written by something else.
    """
    _read(path, what, 0)
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            require(isinstance(about, dict), "its header is no JSON object")
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        kind = _kind(_read(path, what, 2))
        raise MechRewardError(
            f"{path} is not a {what} file: no readable safetensors ({kind})."
        ) from error


def digest(*parts: bytes | str) -> str:
    """First 16 hex digits of the SHA-256 of the parts."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:16]


def nulled(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinity become null, at any depth; tuples become
    lists."""
    if isinstance(value, dict):
        return {key: nulled(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [nulled(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _read(path: Path | str, what: str, size: int = -1) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise MechRewardError(f"cannot read the {what} file {path}: {error.strerror}.") from error


def _kind(raw: bytes) -> str:
    if raw[:1] == b"\x80" or raw[:2] == b"PK":
        return "it looks pickled, and pickled files are never opened"
    return "damaged, or of another kind" if raw else "empty file"
