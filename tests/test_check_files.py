"""Messages for mistakes; files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from mechreward.base import files as _files
from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.base.files import (
    digest,
    read_json,
    read_tensors,
    write_atomic,
    write_json,
    write_tensors,
)


@pytest.mark.parametrize(
    ("given_", "possible", "message"),
    [
        (
            "tset",
            ["train", "test"],
            "unknown split 'tset'; did you mean 'test'? Possible: train, test.",
        ),
        ("zzz", ["train", "test"], "unknown split 'zzz'. Possible: train, test."),
        (7, [], "unknown split '7'. Possible: none."),
    ],
)
def test_one_of_says_given_nearest_and_possible(given_, possible, message: str):
    with pytest.raises(MechRewardError) as caught:
        one_of("split", given_, possible)
    assert str(caught.value) == message


def test_one_of_takes_any_iterable_once_and_shortens_long_lists():
    one_of("number", 3, iter(range(5)))
    with pytest.raises(MechRewardError, match=r"0, 1, .*, 11, \.\.\. \(40 in all\)\.") as caught:
        one_of("number", "x", iter(range(40)))
    assert "12" not in str(caught.value)


def test_mistakes_are_value_errors():
    require(True, "never seen")
    with pytest.raises(ValueError, match=r"^said$"):
        require(False, "said")


@given(st.binary() | st.text())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes | str):
    path = write_atomic(tmp_path_factory.getbasetemp() / "deep" / "er" / "file", data)
    assert path.read_bytes() == (data if isinstance(data, bytes) else data.encode())
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch, failing: str
):
    path = write_atomic(tmp_path / "kept", "old")

    def fail(*_):
        assert path.read_text() == "old"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new" * 1000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip_keeps_order_and_refuses_nan(tmp_path: Path):
    value = {"b": [1, 2.5, None], "a": {"ü": "²"}}
    path = write_json(tmp_path / "x.json", value)
    assert list(read_json(path, "test")) == ["b", "a"] and read_json(path, "test") == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": math.nan})
    assert read_json(path, "test") == value


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1, 2]", b"\xff\xfe", pickle.dumps({"a": 1}), b"PK\x03\x04"]
)
def test_damaged_json_is_one_line(tmp_path: Path, damage: bytes):
    path = write_atomic(tmp_path / "x.json", damage)
    with pytest.raises(MechRewardError, match="is not a card file") as caught:
        read_json(path, "card")
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert ("pickled" in message) == (damage[:1] == b"\x80" or damage[:2] == b"PK")
    assert ("empty" in message) == (damage == b"")


@pytest.mark.parametrize("dtype", list(_files.DTYPES))
def test_every_dtype_and_shape_is_read_by_safetensors_itself(tmp_path: Path, dtype: torch.dtype):
    numbers = torch.arange(24).reshape(2, 3, 4) % 2
    tensors = {
        "b": numbers.to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "a": torch.zeros(0, 5, dtype=dtype),
    }
    tensors |= {"turned": numbers[0].T.to(dtype), "wide": torch.ones(3, dtype=torch.float64)}
    path = write_tensors(tmp_path / "x.safetensors", tensors, {"kind": "ü"})
    theirs = load_file(path)
    assert set(theirs) == set(tensors)
    for name, tensor in tensors.items():
        assert theirs[name].dtype == tensor.dtype and torch.equal(theirs[name], tensor)
    assert read_tensors(path, "test")[1] == {"kind": "ü"}


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_missing_files_and_folders(tmp_path: Path, read):
    with pytest.raises(MechRewardError, match=r"cannot read the card file .*nothing: No such file"):
        read(tmp_path / "nothing", "card")
    with pytest.raises(MechRewardError, match="directory"):
        read(tmp_path, "card")


def test_tensors_round_trip(tmp_path: Path):
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        "turned": base.T,
        "half": base.to(torch.bfloat16),
        "whole": torch.tensor([2**40, -1]),
        "empty": torch.zeros(0, 5),
        "graph": base.clone().requires_grad_(),
    }
    path = write_tensors(tmp_path / "x.safetensors", tensors, {"kind": "test", "n": [1, "²"]})
    back, about = read_tensors(path, "test")
    assert about == {"kind": "test", "n": [1, "²"]}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor.detach())


def test_damaged_tensors_are_one_line(tmp_path: Path):
    from safetensors.torch import save

    whole = write_tensors(tmp_path / "x", {"a": torch.ones(100)}, {"kind": "test"}).read_bytes()
    bad = {
        "empty": b"",
        "cut": whole[:-4],
        "head": whole[:20],
        "longer": whole + b"x",
        "json": b'{"a": 1}' * 20,
        "pickled": pickle.dumps({"a": 1}),
        "no about": save({"a": torch.ones(3)}),
        "about no JSON": save({"a": torch.ones(3)}, metadata={"about": "{"}),
        "about no object": save({"a": torch.ones(3)}, metadata={"about": "[1]"}),
    }
    for what, damage in bad.items():
        path = write_atomic(tmp_path / what, damage)
        with pytest.raises(MechRewardError, match="is not a card file") as caught:
            read_tensors(path, "card")
        assert "\n" not in str(caught.value)
        assert ("pickled" in str(caught.value)) == (what == "pickled")


def test_a_torch_save_is_never_opened(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"a": Bomb()}, tmp_path / "x.pt")
    with pytest.raises(MechRewardError, match="pickled files are never opened"):
        read_tensors(tmp_path / "x.pt", "rollouts")
    assert not (tmp_path / "exploded").exists()


@given(st.lists(st.binary(), max_size=4), st.lists(st.binary(), max_size=4))
def test_digest_is_sha256_and_knows_where_parts_end(left: list[bytes], right: list[bytes]):
    assert (digest(*left) == digest(*right)) == (left == right)
    spelled = b"".join(len(part).to_bytes(8, "big") + part for part in left)
    assert digest(*left) == hashlib.sha256(spelled).hexdigest()[:16]


def test_digest_takes_text_as_utf8():
    assert digest("ü", b"x") == digest("ü".encode(), "x")
    assert json.dumps(_files.digest()) == '"e3b0c44298fc1c14"'
