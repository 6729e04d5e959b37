"""A run that is killed at random moments ends as one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers import ROOT, SMALL, differences, state

KILLS = 20
SEED = os.environ.get("KILL_SEED", "0")  # KILL_SEED=7 make faults kills at other moments
WORDS = [
    *("trainer.max_steps=300", "trainer.evaluate_every=40", "trainer.checkpoint_every=3"),
    *("trainer.ema_decay=0.9", "augmentation.crop_size=[32,32]", "augmentation.brightness=0.3"),
    *("evaluation.batch_size=2", "optimizer=adamw", "loader.num_workers=1"),
]


@pytest.mark.slow
@pytest.mark.fault("F1", "F2", "F19")
def test_twenty_kills_change_nothing(
    tmp_path: Path, lines: Callable[[str], list[dict[str, Any]]]
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if os.access("/dev/shm", os.W_OK):
        environment["TMPDIR"] = "/dev/shm"  # another file system; nothing is written there
    sys.stdout.write(f"KILL_SEED={SEED}\n")  # pytest shows it when this fails
    longest = 0.0
    for name, kills in (("whole", 0), ("killed", KILLS)):
        program = str(Path(__file__).with_name("killer.py"))
        command = [sys.executable, program, str(kills), str(longest), SEED]
        run = subprocess.run(
            [*command, *SMALL, *WORDS, f"run_dir={tmp_path / name}"],
            env=environment, capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        found = json.loads(run.stdout.strip().splitlines()[-1])
        assert found["code"] == 0, run.stderr[-3000:]
        assert found["kills"] == kills
        # So that most attempts get beyond a checkpoint, and all of them do not reach the end.
        longest = found["first"] + (found["seconds"] - found["first"]) / 7
    assert found["after a checkpoint"] > KILLS / 3, found
    assert differences(state(tmp_path / "whole"), state(tmp_path / "killed")) == []
    assert lines("whole") == lines("killed")
    results = [
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed")
    ]
    assert results[0]["mIoU"] == results[1]["mIoU"]
    assert results[0]["best"] == results[1]["best"]
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    steps = curve(tmp_path / "killed" / "tensorboard")
    assert steps == sorted(set(steps))  # no step has two points
    assert steps[-1] == curve(tmp_path / "whole" / "tensorboard")[-1]


def curve(folder: Path) -> list[int]:
    """The steps of the points of a curve in TensorBoard."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [point.step for point in events.Scalars("train/loss")]
