"""Checkpoints and weights that hold code: it never runs, and the file is named."""

from __future__ import annotations

import ast
import os
import pickle
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint
from tests.helpers import ROOT, SMALL

CANARY = Path("canary")


class Payload:
    """An object that creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(CANARY.absolute()),)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Callable[..., int]) -> Path:
    """A run with a checkpoint."""
    monkeypatch.chdir(tmp_path)
    assert train("run", "trainer.max_steps=1") == 0
    return tmp_path / "run"


def state_of(run: Path) -> dict[str, Any]:
    return load_checkpoint(run / "checkpoints" / "last.pt")


def as_model(run: Path, file: Path) -> None:
    torch.save({**state_of(run), "model": Payload()}, file)


def beside_the_weights(run: Path, file: Path) -> None:
    torch.save({**state_of(run), "notes": [Payload()]}, file)


def in_the_optimizer(run: Path, file: Path) -> None:
    state = state_of(run)
    state["optimizer"]["state"][0]["exp_avg"] = Payload()
    torch.save(state, file)


def old_format(run: Path, file: Path) -> None:
    state = {**state_of(run), "model": Payload()}
    torch.save(state, file, _use_new_zipfile_serialization=False)


def plain_pickle(run: Path, file: Path) -> None:
    file.write_bytes(pickle.dumps({"model": Payload()}))


def tar_of_old_times(run: Path, file: Path) -> None:
    (file.parent / "pickle").write_bytes(pickle.dumps(Payload()))
    with tarfile.open(file, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.add(file.parent / "pickle", name)


def script(run: Path, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but its files are still there
        torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8)), file)


WRITERS = [
    *(as_model, beside_the_weights, in_the_optimizer, old_format),
    *(plain_pickle, tar_of_old_times, script),
]


@pytest.mark.fault("F55")
@pytest.mark.parametrize("name", ["evil.pt", "evil.safetensors"])
@pytest.mark.parametrize("write", WRITERS)
def test_code_of_a_file_never_runs(
    write: Callable[[Path, Path], None],
    name: str,
    run: Path,
    tmp_path: Path,
    last_line: Callable[[], str],
) -> None:
    file = tmp_path / name
    write(run, file)
    Image.new("RGB", (48, 48)).save("a.png")
    for command, *words in (
        ("train", *SMALL, "trainer.max_steps=2", "run_dir=other", f"resume={file}"),
        ("train", *SMALL, "trainer.max_steps=2", "run_dir=other", f"model.weights={file}"),
        ("evaluate", f"checkpoint={file}", SMALL[0], "device=cpu"),
        ("predict", f"checkpoint={file}", SMALL[0], "device=cpu", "input=a.png", "output=out"),
        ("export", f"checkpoint={file}", SMALL[0], "output=out.onnx"),
    ):
        assert run_command(command, words) == 4, (command, words)
        assert name in last_line()
        assert not CANARY.exists()
    assert not [name for name in ("other", "out", "out.onnx") if Path(name).exists()]


@pytest.mark.fault("F55")
def test_every_call_that_unpickles_is_safe() -> None:
    calls = []
    for path in sorted((ROOT / "segtrain").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                *("torch.load", "pickle.load", "pickle.loads", "torch.jit.load", "joblib.load"),
            ):
                calls.append(f"{path.name}: {ast.unparse(node)}")
    assert calls
    assert [call for call in calls if "weights_only=True" not in call] == []
