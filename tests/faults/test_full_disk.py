"""Volumes that are full or cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.engine import disk
from segtrain.engine.checkpoint import load_checkpoint, save_checkpoint
from segtrain.engine.run_directory import Run
from segtrain.errors import ResourceError

Train = Callable[..., int]
WORDS = ["trainer.max_steps=4", "trainer.evaluate_every=4", "trainer.checkpoint_every=1"]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=False, capture_output=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, left: int) -> None:
    """Fill a volume but for some bytes."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "ballast").write_bytes(bytes(max(free - left, 0)))


def state() -> dict[str, Any]:
    """A checkpoint of one megabyte."""
    rest = {"step": 1, "config": {"a": 1}, "metadata": {"a": 1}}
    return {"model": {"weight": torch.rand(250_000)}, **rest}


@pytest.mark.fault("F5")
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("left", [0, 4096, 100_000, 900_000])
def test_a_save_on_a_full_volume_keeps_the_old_file(
    is_known: bool, left: int, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = volume / "last.pt"
    save_checkpoint(path, state())
    before = path.read_bytes()
    fill(volume, left)
    if not is_known:  # a quota, which the file system does not tell
        monkeypatch.setattr(disk, "check_free_space", lambda *_: None)
        monkeypatch.setattr("segtrain.engine.checkpoint.check_free_space", lambda *_: None)
    with pytest.raises(ResourceError, match=r"last.pt cannot be written.* it needs 1.0 MB, and 0"):
        save_checkpoint(path, state(), previous=volume / "previous.pt")
    assert path.read_bytes() == before
    assert sorted(found.name for found in volume.iterdir()) == ["ballast", "last.pt"]
    load_checkpoint(path)


@pytest.mark.fault("F5")
def test_a_run_whose_volume_fills_ends_with_its_checkpoint(
    train: Train,
    volume: Path,
    last_line: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note = Run.note_checkpoint

    def filling(self: Run, step: int) -> None:
        note(self, step)
        if step == 2:
            fill(volume, 5000)

    monkeypatch.setattr(Run, "note_checkpoint", filling)
    run = volume / "run"
    assert train("unused", *WORDS, f"run_dir={run}") == 6
    message = last_line()
    assert f"{run}/checkpoints/last.pt cannot be written" in message
    assert "continue with resume=auto" in message
    assert load_checkpoint(run / "checkpoints/last.pt")["step"] == 2
    (volume / "ballast").unlink()
    monkeypatch.undo()
    assert train("unused", *WORDS, f"run_dir={run}", "resume=auto") == 0


@pytest.mark.fault("F5")
def test_logs_on_a_full_volume_do_not_end_training(
    train: Train, tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    monkeypatch.setattr("segtrain.engine.status.StatusFile.heartbeat", full)
    assert train("run", *WORDS) == 0
    for name in ("tensorboard", "status.json"):
        (said,) = [text for text in messages if f"run/{name} cannot be written" in text]
        assert "(No space left on device), so it will be incomplete; training goes on" in said
    assert json.loads((tmp_path / "run/results.json").read_text())["state"] == "finished"


@pytest.mark.fault("F6")
def test_a_read_only_directory_is_found_before_the_data(
    train: Train, volume: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("the data was opened")

    monkeypatch.setattr("segtrain.assembly.training.open_splits", opened)
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    for run_dir in (volume, volume / "a/b"):
        assert train("unused", *WORDS, f"run_dir={run_dir}") == 6
        assert f"run_dir={run_dir} cannot be written (Read-only file system)" in last_line()


@pytest.mark.fault("F7")
def test_a_directory_in_use_is_found_before_the_data(
    train: Train, tmp_path: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("run", *WORDS) == 0

    def opened(*_: object) -> None:
        raise AssertionError("the data was opened")

    monkeypatch.setattr("segtrain.assembly.training.open_splits", opened)
    assert train("run", *WORDS) == 7
    assert "already holds a run" in last_line()
