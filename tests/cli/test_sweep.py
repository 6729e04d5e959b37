"""Sweeps: several runs from one command line."""

from __future__ import annotations

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
