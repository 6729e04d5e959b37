"""A study of losses, from its file to its tables, with runs of three steps."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers import ROOT, THREE_STEPS

pytestmark = pytest.mark.slow


def run(folder: Path, *options: str) -> None:
    script = ROOT / "benchmarks/verdicts/study.py"
    subprocess.run([sys.executable, str(script), str(folder), *options], check=True)


def test_a_study_is_one_command(tmp_path: Path) -> None:
    folder = tmp_path / f"study_{tmp_path.name}"
    folder.mkdir()
    content = {
        "title": "Shapes",
        "overrides": THREE_STEPS,
        "losses": ["cross_entropy", "focal"],
        "baseline": "cross_entropy",
        "conditions": {"augmentation.flip": [0.1, 0.5]},
        "seeds": [0, 1],
        "metrics": ["iou", "accuracy"],
        "rates": {"values": [0.001, 0.01], "seed": 100, "overrides": []},
        "longer": {"losses": 1, "overrides": ["trainer.max_steps=5"]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    try:
        run(folder)
        kept = {
            stage: sorted((folder / "runs" / stage).glob("*/per_image.npz"))
            for stage in ("rates", "main", "longer")
        }
        assert {stage: len(paths) for stage, paths in kept.items()} == {
            "rates": 4,
            "main": 8,
            "longer": 4,
        }
        text = (folder / "tables.md").read_text()
        assert "## main: iou on val" in text
        assert "## longer_0.1: accuracy on val" in text
        assert "no difference shown between focal" in text or "focal is" in text
        assert "| cross_entropy | " in text.partition("## Learning rates")[2]
        assert "<svg" in (folder / "comparisons/main_iou.svg").read_text()
        before = kept["main"][0].stat().st_mtime_ns
        run(folder)  # nothing is left to do
        assert kept["main"][0].stat().st_mtime_ns == before
        (folder / "tables.md").unlink()
        run(folder, "--report")
        assert (folder / "tables.md").read_text() == text
    finally:
        shutil.rmtree(ROOT / "outputs/studies" / folder.name, ignore_errors=True)
