"""Reading weight files: supported files, and one message for everything else."""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segtrain.engine.checkpoint import load_checkpoint, save_checkpoint
from segtrain.errors import CheckpointError
from segtrain.models.weights.files import find_state, read_weights

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3)}


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_new_and_old_are_read(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "best.pth"
    torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_weights(file)["conv.weight"], STATE["conv.weight"])


@pytest.mark.fault("F55")
@pytest.mark.parametrize("name", ["model.safetensors", "weights.bin"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    assert torch.equal(read_weights(tmp_path / name)["conv.weight"], STATE["conv.weight"])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("number", "read"),
    [
        (np.float64(0.8125), 0.8125),
        (np.float32(0.5), 0.5),
        (np.int64(-7), -7),
        (np.float16(0.5), None),
        (0.25, 0.25),
    ],
)
def test_a_numpy_score_beside_the_weights_is_no_obstacle(
    tmp_path: Path, zipped: bool, number: Any, read: float | None
) -> None:
    """The official checkpoint.pth.tar stores best_mIoU as a NumPy number."""
    file = tmp_path / "checkpoint.pth.tar"
    content = {"epoch": 3, "best_mIoU": number, "state_dict": STATE, "optimizer": {"state": {}}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    loaded = read_weights(file)
    assert loaded["best_mIoU"] == read
    state, path = find_state(loaded, "checkpoint.pth.tar")
    assert path == ("state_dict",)
    assert list(state) == ["conv.weight"]


def _whole_module(file: Path) -> None:
    torch.save(torch.nn.Conv2d(2, 3, 1), file)


def _with_arguments(file: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": STATE}, file)


def _old_with_arguments(file: Path) -> None:
    content = {"args": argparse.Namespace(lr=0.1), "model": STATE}
    torch.save(content, file, _use_new_zipfile_serialization=False)


def _newer_protocol(file: Path) -> None:
    torch.save(STATE, file, pickle_protocol=4)


@pytest.mark.fault("F55")
@pytest.mark.parametrize(
    "write", [_whole_module, _with_arguments, _old_with_arguments, _newer_protocol]
)
def test_files_with_other_objects_are_refused_and_their_conversion_works(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "best model.pth"
    write(file)
    with pytest.raises(CheckpointError, match="if you trust it, convert it once with") as caught:
        read_weights(file)
    message = str(caught.value)
    code = message.split('python -c "')[1].split('"')[0]
    plain = tmp_path / "best model_plain.pth"
    assert f"'{file}' '{plain}'" in message  # quoted for the shell because of the space
    monkeypatch.setattr(sys, "argv", ["-c", str(file), str(plain)])
    exec(code, {})  # noqa: S102  what a user would run
    state, _ = find_state(read_weights(plain), "best model_plain.pth")
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert state


class _Runs:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code of the file ran')",))


@pytest.mark.fault("F55")
def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    for zipped in (True, False):
        file = tmp_path / f"{zipped}.pth"
        torch.save({"a": _Runs(), **STATE}, file, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="could run code"):
            read_weights(file)


def _torn(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"  \n<!DOCTYPE html><html><body>sign in</body></html>", "is a web page"),
        (b"<HTML><body>", "is a web page"),
        (b"an error occurred" * 100, "is damaged or not a file of PyTorch"),
        (b"\x80\x02nonsense" * 20, "is damaged or not a file of PyTorch"),
        (b"PK\x03\x04" + bytes(600), "is damaged or not a file of PyTorch"),
        (bytes(4000), "is damaged or not a file of PyTorch"),
        (b"\xff" * 8 + b'{"a"', "is damaged or not a file of PyTorch"),  # a header of 2^64 bytes
        (pickle.dumps([1, 2], protocol=2), "is damaged or not a file of PyTorch"),
        (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "is damaged or not a file of PyTorch"),
    ],
)
def test_files_without_weights_are_refused_with_one_message(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    file = tmp_path / "best.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        read_weights(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("F4")
@pytest.mark.parametrize("name", ["best.pth", "old.pth", "best.safetensors"])
def test_a_truncated_file_is_reported_as_damaged(tmp_path: Path, name: str) -> None:
    file, state = tmp_path / name, {"weight": torch.rand(5000)}
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=name == "best.pth")
    file.write_bytes(_torn(file.read_bytes()))
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file at .*best\.pth"):
        read_weights(tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (STATE, ()),
        ({"state_dict": STATE, "epoch": 3, "score": torch.tensor(0.5)}, ("state_dict",)),
        ({"model": {"state_dict": STATE}, "optimizer": {}}, ("model", "state_dict")),
        ({"net": STATE, "acc": 93.1}, ("net",)),
        ({"model": torch.zeros(3), "head": torch.zeros(2)}, ()),  # layers of these names
    ],
)
def test_nested_weights_are_found(content: Any, path: tuple[str, ...]) -> None:
    state, found = find_state(content, "a.pth")
    assert found == path
    assert all(isinstance(value, torch.Tensor) for value in state.values())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "does not contain weights: it is a list, not a dict of tensors"),
        (torch.zeros(3), "it is a Tensor"),
        ({}, "its dict is empty"),
        ({"epoch": 3, "lr": 0.1}, "its entries are 'epoch', 'lr'"),
        ({str(i): i for i in range(9)}, "and 4 more"),
        ({"state_dict": {}}, "its entries are 'state_dict'"),
    ],
)
def test_a_file_without_weights_is_described(content: Any, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        find_state(content, "a.pth")


def flip_a_byte_inside(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.fault("F4")
def test_a_flipped_bit_in_a_weight_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "best.pth"
    torch.save({"weight": torch.rand(4000)}, file)
    assert read_weights(file)["weight"].shape == (4000,)
    flip_a_byte_inside(file)
    with pytest.raises(CheckpointError, match=r"best\.pth is damaged"):
        read_weights(file)


@pytest.mark.fault("F4")
def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    whole = {"model": {"weight": torch.rand(4000)}, "config": {"a": 1}, "metadata": {"b": 2}}
    save_checkpoint(file, {**whole, "step": 3})
    assert load_checkpoint(file)["step"] == 3
    flip_a_byte_inside(file)
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        load_checkpoint(file)
