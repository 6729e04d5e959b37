"""Checkpoints that are damaged, missing, or seen by some processes only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.assembly.check import check_config
from segtrain.assembly.starting_point import open_checkpoint
from segtrain.cli.compose import compose_run
from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.engine.distributed import Processes
from segtrain.errors import CheckpointError
from segtrain.files import atomic_write, remove_stale
from tests.helpers import SMALL, differences, state

Train = Callable[..., int]
STEPS = ["trainer.max_steps=8", "trainer.evaluate_every=8", "trainer.checkpoint_every=2"]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "flipped":
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    elif how == "random":
        content = os.urandom(len(content))
    else:
        content = content[: int(len(content) * float(how))]
    path.write_bytes(content)


@pytest.mark.fault("F4")
@pytest.mark.parametrize("how", ["0", "0.3", "0.99", "flipped", "random"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    how: str,
    train: Train,
    tmp_path: Path,
    messages: list[str],
    lines: Callable[[str], list[dict[str, Any]]],
) -> None:
    assert train("whole", *STEPS) == 0
    assert train("run", *STEPS, "trainer.stop_after=5") == 0
    folder = tmp_path / "run/checkpoints"
    assert [load_checkpoint(folder / name)["step"] for name in ("last.pt", "previous.pt")] == [5, 4]
    damage(folder / "last.pt", how)
    messages.clear()
    assert train("run", *STEPS, "resume=auto") == 0
    (warning,) = [text for text in messages if "is damaged" in text]
    assert f"{folder / 'last.pt'} is damaged" in warning
    assert f"resuming from {folder / 'previous.pt'} at step 4" in warning
    assert differences(state(tmp_path / "whole"), state(tmp_path / "run")) == []
    assert [line["step"] for line in lines("run")] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert lines("run") == lines("whole")


@pytest.mark.fault("F4")
def test_all_damaged_or_gone_is_never_a_silent_restart(
    train: Train, tmp_path: Path, last_line: Callable[[], str]
) -> None:
    assert train("run", *STEPS, "trainer.stop_after=5") == 0
    run, again = tmp_path / "run", [*STEPS, "resume=auto"]
    for name in ("last.pt", "previous.pt"):
        damage(run / "checkpoints" / name, "0.5")
    assert train("run", *again) == 4
    message = last_line()
    assert f"{run}/checkpoints/last.pt is damaged" in message
    assert f"{run}/checkpoints/previous.pt is damaged" in message
    shutil.rmtree(run / "checkpoints")
    assert train("run", *again) == 4
    assert "has logs of a run that saved a checkpoint" in last_line()
    (run / "status.json").unlink()
    assert train("run", *again) == 0  # nothing shows that there was a checkpoint


@pytest.mark.fault("F4")
def test_an_evaluation_in_the_log_shows_that_there_was_a_checkpoint(
    train: Train, tmp_path: Path, last_line: Callable[[], str]
) -> None:
    assert train("run", *STEPS) == 0
    shutil.rmtree(tmp_path / "run/checkpoints")
    (tmp_path / "run/status.json").unlink()
    assert train("run", *STEPS, "resume=auto") == 4
    assert "has logs of a run that saved a checkpoint" in last_line()


@pytest.mark.fault("F3")
def test_the_order_of_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync the new file, keep the old one, rename, sync the directory."""
    done: list[str] = []
    path, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    path.write_text("old")

    def watched(name: str, real: Any) -> Any:
        def call(*given: Any, **keywords: Any) -> Any:
            done.append(name)
            return real(*given, **keywords)

        return call

    monkeypatch.setattr(os, "fsync", watched("sync", os.fsync))
    monkeypatch.setattr(Path, "hardlink_to", watched("link", Path.hardlink_to))
    monkeypatch.setattr(Path, "replace", watched("replace", Path.replace))
    with atomic_write(path, previous=previous) as stream:
        stream.write(b"new")
    assert done == ["sync", "link", "replace", "replace", "sync"]
    assert (path.read_text(), previous.read_text()) == ("new", "old")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


@pytest.mark.fault("F3")
@pytest.mark.parametrize("call", ["hardlink_to", "replace"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_kill_between_two_names_leaves_one_of_them(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    path.write_text("old")
    real, calls = getattr(Path, call), []

    class Killed(BaseException):
        pass

    def killed(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > number:
            raise Killed
        found: Path = real(self, target)
        return found

    monkeypatch.setattr(Path, call, killed)
    try:
        with atomic_write(path, previous=previous) as stream:
            stream.write(b"new")
    except Killed:
        assert path.read_text() == "old"
    else:
        assert path.read_text() == "new"


@pytest.mark.fault("F3")
def test_without_hard_links_the_previous_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    path, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for text in (b"one", b"two"):
        with atomic_write(path, previous=previous) as stream:
            stream.write(text)
    assert (path.read_text(), previous.read_text()) == ("two", "one")
    path.unlink()


@pytest.mark.fault("F1")
def test_only_own_stale_files_are_removed(train: Train, tmp_path: Path) -> None:
    assert train("run", *STEPS, "trainer.stop_after=2") == 0
    folder = tmp_path / "run/checkpoints"
    dead, alive = 2**22 - 1, 1
    stale = folder / f".last.pt.{dead}-0123abcd.tmp"
    kept = [
        folder / f".last.pt.{alive}-0123abcd.tmp",
        folder / f"last.pt.{dead}-0123abcd.tmp",
        folder / ".mine.tmp",
        tmp_path / f".last.pt.{dead}-0123abcd.tmp",
    ]
    for path in (stale, *kept):
        path.write_text("x")
    assert train("run", *STEPS, "resume=auto") == 0
    assert not stale.exists()
    assert all(path.exists() for path in kept)
    link = folder / f".best.pt.{dead}-0123abcd.tmp"
    link.symlink_to(kept[2])
    assert remove_stale(folder) == []


class Pair(Processes):
    """Process 0, beside another one that found something else."""

    def __init__(self, other: Any) -> None:
        super().__init__(0, 2, torch.device("cpu"))
        object.__setattr__(self, "other", other)

    def gather(self, value: object) -> list[Any]:
        return [value, type(value)(*self.other)]  # type: ignore[attr-defined, call-arg]


@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            (None, None, None),
            r"process 0 has .*/run/.*last.pt of step 1, process 1 finds no checkp",
        ),
        (("/x/last.pt", 7, None), r"process 1 has /x/last.pt of step 7; all machines must see"),
        ((None, None, CheckpointError("no disk")), "process 1 has this problem: no disk"),
    ],
)
def test_processes_that_see_different_checkpoints_are_refused(
    other: Any, said: str, train: Train, tmp_path: Path
) -> None:
    words = [*SMALL, f"run_dir={tmp_path / 'run'}", "trainer.max_steps=2"]
    assert run_command("train", [*words, "trainer.stop_after=1"]) == 0
    config = check_config(compose_run([*words, "resume=auto"], "train", None)[0])
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(config, Pair(other))


@pytest.mark.fault("F9")
def test_a_checkpoint_is_saved_after_some_minutes(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    from segtrain.engine import training_state

    real = training_state.save_checkpoint

    def watched(path: Path, state: Any, **keywords: Any) -> None:
        saved.append(state["step"])
        real(path, state, **keywords)

    monkeypatch.setattr(training_state, "save_checkpoint", watched)
    words = ["trainer.max_steps=4", "trainer.evaluate_every=4"]
    assert train("few", *words) == 0
    assert sorted(set(saved)) == [4]
    saved.clear()
    assert train("many", *words, "trainer.checkpoint_minutes=0.0000001") == 0
    assert sorted(set(saved)) == [1, 2, 3, 4]


@pytest.mark.fault("F8")
def test_checkpoints_are_kept_for_good_by_a_key(train: Train, tmp_path: Path) -> None:
    words = ["trainer.max_steps=7", "trainer.evaluate_every=7", "trainer.keep_every=3"]
    assert train("whole", *words) == 0
    folder = tmp_path / "whole/checkpoints"
    kept = {path.name: load_checkpoint(path)["step"] for path in folder.glob("step_*.pt")}
    assert kept == {"step_3.pt": 3, "step_6.pt": 6, "step_7.pt": 7}
    assert load_checkpoint(folder / "previous.pt")["step"] == 6
    again = [*words, f"resume={folder / 'step_3.pt'}"]
    assert train("again", *again) == 0
    assert differences(state(tmp_path / "whole"), state(tmp_path / "again")) == []
