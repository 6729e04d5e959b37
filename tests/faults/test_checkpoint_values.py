"""Checkpoints whose values are wrong, or that name places nobody asked for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint, save_checkpoint
from segtrain.errors import CheckpointError
from tests.helpers import SMALL, THREE_STEPS

Last = Callable[[], str]
NAN = float("nan")
HUGE = 10**400


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("good")
    words = [*SMALL, "trainer.max_steps=2", "trainer.ema_decay=0.9", f"run_dir={folder / 'run'}"]
    assert run_command("train", [*words, "scheduler=poly", "scheduler.warmup_steps=1"]) == 0
    return load_checkpoint(folder / "run/checkpoints/last.pt")


WRONG: list[tuple[str, Any]] = [
    ("step", -1),
    ("step", 1.5),
    ("step", "3"),
    ("step", True),
    ("step", HUGE),
    ("model", [1, 2]),
    ("model", {"weight": "x"}),
    ("model", {3: torch.zeros(1)}),
    ("ema", 7),
    ("best", {"mIoU": NAN}),
    ("best", {"mIoU": "0.5"}),
    ("best", ["mIoU"]),
    ("config", "x"),
    ("metadata", "x"),
    ("metadata.mean", [NAN, 0.5, 0.5]),
    ("metadata.mean", "abc"),
    ("metadata.mean", [0.5]),
    ("metadata.std", [0.0, 0.5, 0.5]),
    ("metadata.std", [0.5, 0.5, 0.5, 0.5]),
    ("metadata.num_classes", 0),
    ("metadata.num_classes", "six"),
    ("metadata.class_names", [1, 2, 3]),
    ("metadata.class_names", ["one"]),
    ("metadata.palette", [[0, 0], [1, 1]]),
    ("metadata.palette", [[0, 0, 999]] * 6),
    ("metadata.channels", -3),
    ("metadata.model", "tiny"),
    ("metadata.model", {"name": 3}),
    ("metadata.size", [0, 5]),
    ("metadata.precision", "int4"),
    ("metadata.thresholds", [2.0]),
    ("metadata.align_corners", "yes"),
    ("optimizer", {"state": {}, "param_groups": [{"lr": NAN, "params": [0]}]}),
    ("optimizer", {"state": [], "param_groups": []}),
    ("optimizer", "adamw"),
    ("scheduler", {"last_epoch": "x"}),
    ("scheduler", {"last_epoch": 2, "base_lrs": [NAN]}),
    ("scheduler", []),
    ("total_steps", 0),
    ("seconds", math.inf),
    ("seconds", "long"),
    ("evaluated_step", -2),
    ("criterion", {"a": 1}),
    ("rng", ["x"]),
    ("rng", [{"torch": torch.zeros(3), "cuda": [], "python": [], "numpy": []}]),
    ("rng", 5),
]


def changed(state: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(state)
    first, _, rest = key.partition(".")
    if rest:
        found[first][rest] = value
    else:
        found[first] = value
    return found


@pytest.mark.fault("F55")
@pytest.mark.parametrize(
    ("key", "value"), WRONG, ids=[f"{k}-{n}" for n, (k, _) in enumerate(WRONG)]
)
def test_wrong_values_are_named(
    key: str, value: Any, good: dict[str, Any], tmp_path: Path, last_line: Last
) -> None:
    path = tmp_path / "run/checkpoints/last.pt"
    save_checkpoint(path, changed(good, key, value))
    with pytest.raises(CheckpointError, match=rf"last.pt.*'{key}"):
        load_checkpoint(path)
    Image.new("RGB", (48, 48)).save(tmp_path / "x.png")
    for command, words in (
        ("evaluate", [f"checkpoint={path}", "device=cpu"]),
        ("train", [*SMALL, f"run_dir={tmp_path / 'run'}", "resume=auto", "trainer.max_steps=4"]),
        (
            "predict",
            [f"checkpoint={path}", f"input={tmp_path / 'x.png'}", f"output={tmp_path / 'out'}"],
        ),
    ):
        assert run_command(command, words) == 4
        assert key in last_line()


@pytest.mark.fault("F55")
def test_a_value_that_fits_loads(good: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, good)
    load_checkpoint(path)


@pytest.mark.fault("F57")
def test_an_address_in_a_checkpoint_is_not_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_line: Last
) -> None:
    monkeypatch.chdir(tmp_path)

    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    monkeypatch.setattr("socket.socket.connect", connect)
    path = tmp_path / "run/checkpoints/best.pt"
    state = load_checkpoint(path)
    address = "http://127.0.0.1:9/set/"
    state["config"]["dataset"] = {
        "name": "webdataset",
        "root": address,
        "num_classes": 6,
        "train": {"shards": "a.tar"},
        "val": {"shards": "https://elsewhere.example/b.tar"},
    }
    save_checkpoint(path, state)
    for command, words in (
        ("evaluate", ["checkpoint=run", "device=cpu"]),
        ("export", ["checkpoint=run", "output=x.onnx"]),
    ):
        assert run_command(command, words) in (3, 4)
        line = last_line()
        assert "names data at http" in line
        assert "which nobody asked to connect to" in line
    given = ["checkpoint=run", "device=cpu", f"dataset.root={address}"]
    assert run_command("evaluate", given) == 4
    assert "https://elsewhere.example/b.tar, which nobody asked to connect to" in last_line()
