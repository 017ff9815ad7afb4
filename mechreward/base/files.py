"""Files that are whole or absent, and that say when they were changed. Never pickle.

Every JSON and safetensors file is sealed: it holds a digest of all else in it and, where it was
written under `made_from`, what it was made from. A file without a seal is read as it is, for older
versions wrote none.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from xxhash import xxh3_128

from mechreward.base.errors import NOTHING_LOST, MechRewardError, require
from mechreward.base.progress import tell

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
NONE = b"0" * 32  # stands for the digest while it is taken of every other byte
# The first bytes of a sealed safetensors file after the length of its header; the digest follows.
SEALED = b'{"__metadata__":{"digest":"'
AT = 8 + len(SEALED)  # where the digest is
KNOWN = {"digest", "about", "made"}  # names in the header of a safetensors file
END = b'"\n }\n}\n'  # the last bytes of a sealed JSON file; the digest stands before

_made: ContextVar[Mapping[str, Any] | None] = ContextVar("made", default=None)


@contextmanager
def made_from(inputs: Mapping[str, Any]) -> Iterator[None]:
    """What the JSON and safetensors files that are written meanwhile say they were made from."""
    token = _made.set(inputs)
    try:
        yield
    finally:
        _made.reset(token)


def read_seal(path: Path, what: str) -> dict[str, Any]:
    """What a file says of itself, after a look at all of it.

    Returns
    -------
    dict
        `digest` of the content, and `made`: what `made_from` was given, or None. Empty for a file
        without a seal.

    Raises
    ------
    MechRewardError
        Missing, damaged, or changed since it was written.
    """
    if path.suffix == ".json":
        return _read_json(path, what)[1]
    return _read_header(path, what)[1]


@contextmanager
def held(path: Path, wait: bool = True) -> Iterator[None]:
    """Nobody else is at a file that is going to be written: another process waits, or is refused.

    A lock file lies beside it meanwhile. A process that is killed leaves it behind, but not the
    lock, and the next one takes it away. Who holds a file may hold it again.

    Raises
    ------
    MechRewardError
        Another process is at it and `wait` is False, or its folder cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    with in_one_line("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            require(
                wait,
                f"another process is writing {path}: wait until it has finished, or name another "
                "folder.",
            )
            tell(True, str(path), "another process is making this; waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            # While it is locked: whoever waits for it finds it gone, and makes a new one.
            with suppress(OSError):
                os.unlink(lock.lock_file)
        lock.release()


@contextmanager
def in_one_line(verb: str, path: Path | str) -> Iterator[None]:
    """Turn what the disk refuses (room, permission, names) into a MechRewardError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            why = "a part of its folder's name is a file"
        raise MechRewardError(f"cannot {verb} {path}: {why}. {NOTHING_LOST}") from error


def safe_name(text: str) -> str:
    """Text that users or models wrote as the name of a folder or file; never a path.

    Letters, digits, `_`, `-` and inner points stay; where anything else had to go, a digest of the
    text follows, so that two texts do not share a name.
    """
    name = re.sub(r"[^\w.-]", "-", text, flags=re.ASCII).lstrip(".-")[:80]
    if name and name == text:
        return name
    return f"{name or 'unnamed'}-{digest(text.encode(errors='backslashreplace'))[:8]}"


def write_atomic(path: Path | str, data: bytes | str) -> Path:
    """Write a file as a whole: a reader never sees half of it.

    Written to a temporary name beside `path`, fsynced, renamed; missing folders are made.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    MechRewardError
        The disk is full, or the folder cannot be written; a file that is there stays.
    """
    return _write(path, [data.encode() if isinstance(data, str) else data])


def _write(path: Path | str, parts: Iterable[bytes | memoryview]) -> Path:
    path = Path(path)
    # One name, and not a random one: what a killed process left is written over by the next.
    temporary = path.with_name(f".{path.name}.new")
    with held(path), in_one_line("write", path):
        try:
            with temporary.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    return path


def write_json(path: Path | str, value: Mapping[str, Any]) -> Path:
    """Write a JSON object atomically and sealed, with the keys in the order given; NaN is refused
    (see `nulled`)."""
    seal = {"made": _made.get(), "digest": NONE.decode()}
    raw = json.dumps({**value, "seal": seal}, indent=1, allow_nan=False).encode() + b"\n"
    at = len(raw) - len(NONE + END)
    return write_atomic(path, raw[:at] + _digest(raw, at) + END)


def read_json(path: Path | str, what: str) -> dict[str, Any]:
    """Read the JSON object of a file, without its seal.

    Parameters
    ----------
    path
        The file.
    what
        What the file should be, for messages: `results`, `plan`.

    Raises
    ------
    MechRewardError
        Missing, damaged, not a JSON object, or changed since it was written.
    """
    return _read_json(path, what)[0]


def _read_json(path: Path | str, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The object of a file, and its seal: empty if there is none."""
    raw = _read(path, what)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MechRewardError(
            f"{path} is not a {what} file: no readable JSON ({_kind(raw)})."
        ) from error
    require(isinstance(value, dict), f"{path} is not a {what} file: its JSON is no object.")
    if "seal" not in value and b'"digest"' not in raw[-100:]:
        return value, {}
    at = len(raw) - len(NONE + END)
    seal = value.pop("seal", None)
    right = isinstance(seal, dict) and raw.endswith(_digest(raw, at) + END)
    _unchanged(path, what, right)
    return value, seal


def write_tensors(
    path: Path | str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]
) -> Path:
    """Write a safetensors file atomically and sealed.

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
    names = sorted(starts, key=starts.__getitem__)
    whole = xxh3_128(header)
    for name in names:
        whole.update(_bytes(tensors[name]))

    def parts() -> Iterator[bytes | memoryview]:
        yield header.replace(NONE, whole.hexdigest().encode(), 1)
        for name in names:
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
        Everything before the first tensor, with `NONE` for the digest: `seal` takes it.
    starts
        Where in the file each tensor begins.
    """
    metadata = {"digest": NONE.decode(), "about": json.dumps(about)}
    made = _made.get()
    if made is not None:
        metadata["made"] = json.dumps(made)
    header: dict[str, Any] = {"__metadata__": metadata}
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
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    whole = len(text).to_bytes(8, "little") + text
    return whole, {name: len(whole) + begin for name, begin in begins.items()}


def seal(path: Path) -> None:
    """Seal a safetensors file that was filled in place after `tensor_header`."""
    raw = np.memmap(path, np.uint8, "r+")
    raw[AT : AT + len(NONE)] = np.frombuffer(_digest(raw, AT), np.uint8)
    raw.flush()


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
        Missing, damaged, pickled, written by something else, or changed since it was written.
    """
    about, _ = _read_header(path, what)
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118


def _read_header(path: Path | str, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What travels in a safetensors file's header, and its seal: empty if there is none."""
    first = _read(path, what, AT)
    sealed = first[8:] == SEALED
    if sealed:
        raw = np.memmap(path, np.uint8, "r")
        _unchanged(path, what, bytes(raw[AT : AT + len(NONE)]) == _digest(raw, AT))
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        about, made = json.loads(metadata["about"]), json.loads(metadata.get("made", "null"))
        require(isinstance(about, dict), "its header is no JSON object")
        require(sealed == ("digest" in metadata) and metadata.keys() <= KNOWN, "a strange header")
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise MechRewardError(
            f"{path} is not a {what} file: no readable safetensors ({_kind(first)})."
        ) from error
    return about, {"digest": metadata["digest"], "made": made} if sealed else {}


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


def _digest(raw: Any, at: int) -> bytes:
    """Of every byte of a file, with `NONE` for the digest itself, which begins at `at`."""
    view = memoryview(raw)
    whole = xxh3_128(view[:at])
    whole.update(NONE)
    whole.update(view[at + len(NONE) :])
    return whole.hexdigest().encode()


def _unchanged(path: Path | str, what: str, same: bool) -> None:
    require(
        same,
        f"{path} is not a {what} file as it was written: its digest says that it was damaged or "
        "changed. Take it from a copy, or delete it.",
    )


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
