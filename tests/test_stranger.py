"""An unknown folder can be trained on by following the error messages, without other help."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from tests.helpers import TINY

READY = re.compile(r"'(dataset\.[^']+)'|(dataset\.\w+=\S+\d)$")


def test_grey_images_with_masks_of_0_and_255(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in ("xrays", "lungs"):
        (tmp_path / name).mkdir()
    for index in range(20):
        rows, columns = np.mgrid[:48, :64]
        middle, radius = rng.uniform(18, 30, 2), rng.uniform(8, 14)
        inside = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2
        grey = (60 + 120 * inside + rng.normal(0, 5, inside.shape)).clip(0, 255)
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "xrays" / f"case {index:02d}.png")
        mask = Image.fromarray((255 * inside).astype(np.uint8))
        mask.save(tmp_path / "lungs" / f"case {index:02d}_mask.png")
    words = [
        f"plugins=[{TINY}]", "model=tiny", "dataset=folder", f"dataset.root={tmp_path}",
        "dataset.num_classes=2", "dataset.train.images=xrays", "dataset.train.masks=lungs",
        "trainer.max_steps=40", "trainer.batch_size=4", "optimizer.lr=0.03", "trainer.device=cpu",
        "trainer.ema_decay=null", "loader.num_workers=0", f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    followed = []
    while (code := run_command("train", words)) != 0:
        assert code == 3
        line = capsys.readouterr().err.strip().splitlines()[-1]
        found = READY.findall(line)
        assert found, line
        advice = next(part for part in found[-1] if part)
        assert advice not in followed, line
        followed.append(advice)
        words.append(advice)
    assert followed == ["dataset.val_share=0.2", "dataset.label_map={0:0,255:1}"]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["per_class_iou"]["class_1"] > 0.8
