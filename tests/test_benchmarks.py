"""Every loss that can be chosen trains the embedded default; the GPU benchmark runs dry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.losses import LOSSES
from tests.helpers import ROOT, load_benchmark

EVERY = load_benchmark("every_loss")
BLOCKED = ("hydra", "omegaconf", "albumentations", "pytest")
BLOCK = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""


def test_every_loss_has_a_preset() -> None:
    ours = [name for name in LOSSES.names() if LOSSES.get(name).__module__.startswith("segtrain.")]
    missing = [name for name in ours if f"loss={name}" not in EVERY.choices()]
    assert [name for name in missing if not name.startswith("docs_")] == []


@pytest.mark.slow
@pytest.mark.parametrize("choice", EVERY.choices())
def test_learns_in_200_steps(choice: str, tmp_path: Path) -> None:
    outcome = EVERY.train(choice, tmp_path / "run", 200, "trainer.device=cpu")
    assert outcome.code == 0
    assert outcome.has_learned, outcome


def camvid_like(root: Path) -> None:
    """A few images and masks in the layout of CamVid."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
            mask = rng.integers(0, 12, (72, 96), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{split}{index}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{split}{index}.png")


def without_packages(folder: Path) -> dict[str, str]:
    """The environment of a process that cannot import what is blocked, and sees no GPU."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCK)
    return {**os.environ, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}


def test_the_gpu_benchmark_runs_dry_without_optional_packages(tmp_path: Path) -> None:
    camvid_like(tmp_path / "camvid")
    env = without_packages(tmp_path / "blocked")
    for name in BLOCKED:
        refused = subprocess.run([sys.executable, "-c", f"import {name}"], env=env, check=False)
        assert refused.returncode == 1
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(tmp_path / "out")],
        env={**env, "CAMVID_ROOT": str(tmp_path / "camvid")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("no GPU found: dry pass at tiny sizes, the figures mean nothing")
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert {part["name"]: part["state"] for part in found["parts"]} == {
        "checks": "done",
        "losses": "done",
        "training": "done",
        "camvid": "done",
    }
    miou = [row["miou"] for row in found["parts"][3]["rows"] if "miou" in row]
    assert len(miou) == 1
    assert 0 <= miou[0] <= 1
    assert "## CamVid from scratch" in (tmp_path / "out" / "gpu.md").read_text()
