"""The names of folders, and the list of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segtrain.engine.status import StatusFile
from segtrain.engine.sweep_directory import SweepDirectory, run_folder
from segtrain.errors import RunDirectoryBusyError

GRID = {"loss": ["focal"], "seed": ["0", "1"]}


def test_folders_depend_on_what_has_an_effect() -> None:
    base = run_folder(["loss=focal", "seed=0", "trainer.max_steps=3"], GRID)
    assert run_folder(["seed=0", "trainer.max_steps=3", "loss=focal"], GRID) != base  # other name
    assert run_folder(["loss=focal", "seed=0", "trainer.max_steps=4"], GRID) != base
    assert run_folder(["loss=focal", "seed=0", "trainer.max_steps=3", "name=x"], GRID) == base
    workers = [run_folder(["loader.num_workers=1"], []), run_folder(["loader.num_workers=2"], [])]
    assert workers[0] == workers[1]
    swept = [run_folder([f"loader.num_workers={n}"], ["loader.num_workers"]) for n in (1, 2)]
    assert swept[0] != swept[1]


def test_names_are_short_and_safe() -> None:
    name = run_folder([f"dataset.root=/a b/{'c' * 200}", "x='../..'"], [])
    assert len(name) == 100
    assert "/" not in name
    assert "'" not in name


def test_runs_are_added_once_and_failed_attempts_move(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path)
    sweep.plan(["-m"], GRID, [["loss=focal", "seed=0"], ["loss=focal", "seed=1"]])
    sweep.plan(["-m"], GRID, [["loss=focal", "seed=1"]])
    assert [row["state"] for row in sweep.runs()] == ["pending", "pending"]
    path = sweep.folder(["loss=focal", "seed=1"])
    for number in (1, 2):
        (path / "log").write_text(str(number))
        StatusFile(path, 3, "failed")
        assert sweep.add(["loss=focal", "seed=1"]) == path
        assert (path / f"attempt-{number}/log").read_text() == str(number)
    assert sorted(item.name for item in path.iterdir()) == ["attempt-1", "attempt-2", "status.json"]
    StatusFile(path, 3, "finished")
    assert sweep.row(path)["state"] == "finished"  # type: ignore[index]
    assert json.loads((tmp_path / "sweep.json").read_text())["runs"][1]["state"] == "pending"
    sweep.refresh()
    assert json.loads((tmp_path / "sweep.json").read_text())["runs"][1]["state"] == "finished"


def test_a_directory_is_used_by_one_sweep(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path / "new")
    with sweep.locked(resuming=False):
        with pytest.raises(RunDirectoryBusyError, match="in use"), sweep.locked(resuming=True):
            pass
        with pytest.raises(RunDirectoryBusyError, match="not empty"), sweep.locked(resuming=False):
            pass
    with sweep.locked(resuming=True):
        pass


def test_values_are_added_to_the_grid(tmp_path: Path) -> None:
    sweep = SweepDirectory(tmp_path)
    sweep.plan(["one"], {"loss": ["focal"]}, [])
    sweep.plan(["two"], {"loss": ["focal", "dice"]}, [])
    assert sweep.grid == {"loss": ["focal", "dice"]}
