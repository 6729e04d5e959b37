"""Two processes of a machine that train on one long list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import TINY, torchrun

# Lists of any length are stored, and each process writes how many files it has looked for.
COUNTED = """
import atexit
import os
from pathlib import Path

from segtrain.data import sample_table
from segtrain.data.datasets import list_store

list_store._LEAST_ROWS = 1
stamp, paths = sample_table._stamp, []
sample_table._stamp = lambda path: (paths.append(path), stamp(path))[1]
atexit.register(
    lambda: Path({folder!r}, "rank" + os.environ["RANK"]).write_text(str(len(paths)))
)
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    lines = []
    for index in range(8):
        for kind, shape in (("i", (16, 16, 3)), ("m", (16, 16))):
            (tmp_path / kind).mkdir(exist_ok=True)
            pixels = rng.integers(0, 2, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{index}.png")
        lines.append(f"i/{index}.png\tm/{index}.png\n")
    (tmp_path / "train.txt").write_text("".join(lines[:6]))
    (tmp_path / "val.txt").write_text("".join(lines[6:]))
    (tmp_path / "counted.py").write_text(COUNTED.format(folder=str(tmp_path)))
    return [
        f"plugins=[{TINY},{tmp_path / 'counted.py'}]", "model=tiny", "dataset=list",
        f"dataset.root={tmp_path}", "dataset.train.list=train.txt", "dataset.val.list=val.txt",
        "dataset.num_classes=2", "trainer.batch_size=2", "trainer.max_steps=2",
        "augmentation.crop_size=[16,16]", "trainer.device=cpu", "loader.num_workers=0",
        "trainer.log_images=0",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_first_process_looks_for_the_files(words: list[str], tmp_path: Path) -> None:
    done = torchrun(tmp_path / "run", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rank0").read_text() == str(2 * 8)  # once each, for all checks and hashes
    assert (tmp_path / "rank1").read_text() == "0"
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["exit_code"] == 0


@pytest.mark.fault("F42")
@pytest.mark.slow
def test_a_missing_file_ends_both_processes(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "m" / "3.png").unlink()
    done = torchrun(tmp_path / "run", *words)
    assert done.returncode != 0
    assert "train.txt, line 4: the mask file" in done.stderr
    assert 'Traceback (most recent call last):\n  File "/' not in done.stderr.split("torch")[0]
    assert not (tmp_path / "run").exists()
