"""A folder of valid images and masks, and a way to run commands on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from tests.helpers import TINY

SHAPE = (24, 32)
KEYS = ("dataset=folder", "dataset.num_classes=4", "dataset.class_names=[sky,road,car,sign]")
Run = Callable[..., tuple[int, str]]


def write_sample(
    root: Path, split: str, name: str, ids: object = None, shape: tuple[int, int] = SHAPE
) -> None:
    seed = sum(name.encode("utf-8", "surrogateescape")) + 1000 * len(split)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "images" / split / f"{name}.jpg")
    given = np.arange(shape[0] * shape[1]).reshape(shape) % 4 if ids is None else ids
    Image.fromarray(np.asarray(given, dtype=np.uint8)).save(root / "masks" / split / f"{name}.png")


@pytest.fixture(autouse=True)
def _no_streams_of_other_tests() -> None:
    logging.getLogger("segtrain").handlers.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            write_sample(folder, split, f"{split}{index}")
    return folder


@pytest.fixture
def run(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the folder; returns the exit code and the last line of standard error."""

    def start(command: str, *words: str) -> tuple[int, str]:
        if command == "inspect":
            given = [f"output={tmp_path / 'report'}", *words]
        else:
            given = [
                *(f"plugins=[{TINY}]", "model=tiny", "trainer.batch_size=2", "trainer.device=cpu"),
                *("trainer.max_steps=1", "trainer.log_images=0", "loader.num_workers=0"),
                *("augmentation.crop_size=[24,32]", "evaluation.batch_size=1", *words),
                f"run_dir={tmp_path / 'run'}",
            ]
        code = run_command(command, [*KEYS, f"dataset.root={root}", *given])
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return code, text.strip().splitlines()[-1]

    return start
