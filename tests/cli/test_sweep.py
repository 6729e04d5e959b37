"""Sweeps: several runs from one command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segtrain.cli.main import run_command
from tests.helpers import THREE_STEPS


def test_a_sweep_is_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert run_command("train", [*THREE_STEPS, "-m", "loss=cross_entropy,focal,dice"]) == 0
    runs = sorted(tmp_path.glob("outputs/shapes_tiny_*/*/results.json"))
    names = [path.parent.parent.name.removeprefix("shapes_tiny_") for path in runs]
    assert names == ["cross_entropy", "dice", "focal"]


def test_a_sweep_is_checked_before_it_starts(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert (
        run_command("train", [*THREE_STEPS, "-m", "loss=cross_entropy,focal", "loss.gamma=2"]) == 2
    )
    assert "'cross_entropy' has no parameter 'gamma'" in last_line()
    assert run_command("train", [*THREE_STEPS, "-m", "loss=cross_entropy,focall"]) == 2
    assert "did you mean 'focal'?" in last_line()
    assert not (tmp_path / "outputs").exists()


def test_a_failed_run_does_not_end_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    words = [*THREE_STEPS, "trainer.max_steps=4", "run_dir=many", "-m", "optimizer.lr=1e30,0.001"]
    assert run_command("train", words) == 5
    shown = capsys.readouterr().err
    assert "failed" in shown
    assert "NaN or infinite" in shown.splitlines()[-1]
    states = [
        json.loads((tmp_path / "many" / number / "status.json").read_text())["state"]
        for number in "01"
    ]
    assert states == ["failed", "finished"]
