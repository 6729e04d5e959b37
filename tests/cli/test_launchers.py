"""Sweeps whose runs a launcher starts elsewhere, and sweeps that search."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segtrain.cli.main import run_command
from segtrain.cli.sweep import launchers
from segtrain.cli.sweep.launchers import ready_config, threads_per_run, usable_cores
from segtrain.errors import ResourceError
from segtrain.files import config_dir
from segtrain.losses import LOSSES
from tests.helpers import THREE_STEPS

OLD_OPTUNA = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PLUGIN = """
import segtrain

@segtrain.register_loss("mine")
def mine(logits, target, *, power: float = 2.0):
    return logits.softmax(1).amax(1).pow(power)
"""


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])


@pytest.fixture
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A sweep with a loss of the user's own, which the processes of the runs must load."""
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))
    Path("my_losses.py").write_text(PLUGIN)
    plugins = THREE_STEPS[0].replace("]", ",my_losses.py]")
    return [plugins, *THREE_STEPS[1:], "-m", "sweep_dir=sweep"]


def runs() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path("sweep/sweep.json").read_text())["runs"]
    return found


def results(row: dict[str, Any]) -> dict[str, Any]:
    path = Path("sweep") / row["dir"] / "results.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.usefixtures("_threads_restored")
def test_joblib_trains_the_same_runs(words: list[str]) -> None:
    assert run_command("train", [*words, "loss=mine,focal", "hydra/launcher=joblib"]) == 0
    beside = {row["dir"]: results(row)["mIoU"] for row in runs()}
    assert [row["state"] for row in runs()] == ["finished"] * 2
    threads = {results(row)["device"]["threads"] for row in runs()}
    assert threads == {max(1, usable_cores() // 2)}
    torch.set_num_threads(threads.pop())  # another number rounds sums in another way
    Path("sweep").rename("joblib")
    assert run_command("train", [*words, "loss=mine,focal"]) == 0
    assert {row["dir"]: results(row)["mIoU"] for row in runs()} == pytest.approx(beside, abs=1e-6)
    assert Path("joblib/comparison.json").exists()


def test_joblib_fails_like_the_others() -> None:
    given = [*THREE_STEPS, "trainer.max_steps=4", "-m", "sweep_dir=sweep"]
    given += ["optimizer.lr=1e30,0.001"]
    assert run_command("train", [*given, "hydra/launcher=joblib"]) == 5
    assert [row["state"] for row in runs()] == ["failed", "finished"]


def test_submitit_starts_several_processes_per_run(words: list[str]) -> None:
    given = ["loss=mine,focal", "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"]
    assert run_command("train", [*words, *given]) == 0
    assert [row["state"] for row in runs()] == ["finished"] * 2
    assert all(results(row)["device"]["processes"] == 2 for row in runs())


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None,
    reason="needs hydra-ray-launcher",
)
def test_ray(words: list[str]) -> None:
    assert run_command("train", [*words, "loss=mine,focal", "hydra/launcher=ray"]) == 0
    assert [row["state"] for row in runs()] == ["finished"] * 2


@OLD_OPTUNA
def test_optuna_searches_and_resumes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        *words,
        *("hydra/sweeper=optuna", "loss=mine,focal", "trainer.max_steps=4"),
        "optimizer.lr=1e30,0.001,0.01",
    ]
    code = run_command("train", [*given, "hydra.sweeper.n_trials=4"])
    first = runs()
    assert code == (5 if any(row["state"] == "failed" for row in first) else 0)
    assert "finished" in {row["state"] for row in first}
    times = {
        row["dir"]: (Path("sweep") / row["dir"] / "results.json").stat().st_mtime_ns
        for row in first
        if row["state"] == "finished"
    }
    run_command("train", [*given, "hydra.sweeper.n_trials=6", "resume=auto"])
    assert [row["dir"] for row in runs()][: len(first)] == [row["dir"] for row in first]
    for folder, before in times.items():
        assert (Path("sweep") / folder / "results.json").stat().st_mtime_ns == before
    best = yaml.safe_load(Path("sweep/optimization_results.yaml").read_text())
    scores = [results(row)["mIoU"] for row in runs() if row["state"] == "finished"]
    assert best["best_value"] == pytest.approx(max(scores))


@OLD_OPTUNA
def test_a_search_minimizes_an_error(words: list[str]) -> None:
    given = ["loss=focal", "optimizer.lr=0.001,0.01", "evaluation.metrics=[iou,ece]"]
    given += ["trainer.best=ece", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3"]
    assert run_command("train", [*words, *given]) == 0
    best = yaml.safe_load(Path("sweep/optimization_results.yaml").read_text())["best_value"]
    scores = [results(row)["scores"]["ece"]["mean"] for row in runs()]
    assert best == pytest.approx(min(scores))


@OLD_OPTUNA
def test_a_search_that_only_fails_says_so(words: list[str], last_line: Callable[[], str]) -> None:
    given = ["loss=focal", "optimizer.lr=1e30,1e31", "trainer.max_steps=4", "hydra/sweeper=optuna"]
    assert run_command("train", [*words, *given, "hydra.sweeper.n_trials=2"]) == 5
    assert "runs failed; the first is optimizer.lr=" in last_line()


def test_a_missing_launcher_is_named(
    monkeypatch: pytest.MonkeyPatch, last_line: Callable[[], str]
) -> None:
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match="hydra-ray-launcher: pip install 'hydra-ray-launcher'"):
        ready_config("hydra/launcher=ray")
    given = [*THREE_STEPS, "-m", "seed=0,1", "hydra/launcher=joblib"]
    assert run_command("train", given) == 6
    assert last_line() == (
        "error: hydra/launcher=joblib needs the package hydra-joblib-launcher: pip install"
        " 'segtrain[sweep]'"
    )


def test_every_choice_has_a_ready_config() -> None:
    for choice in launchers._PLUGINS:
        group, _, name = choice.partition("=")
        path = config_dir() / group / f"{launchers.READY}{name}.yaml"
        assert yaml.safe_load(path.read_text())["defaults"] == [name, "_self_"]


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ({"_target_": "x.BasicLauncher"}, None),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 2}, 8),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -1}, 5),  # three runs
        ({"_target_": "x.JoblibLauncher", "n_jobs": 100}, 5),
        ({"_target_": "x.LocalLauncher", "cpus_per_task": 3}, 3),
        ({"_target_": "x.SlurmLauncher", "cpus_per_task": None}, 1),
        ({"_target_": "x.RayLauncher", "ray": {"remote": {"num_cpus": 2}}}, 2),
    ],
)
def test_threads(launcher: dict[str, Any], expected: int | None) -> None:
    assert threads_per_run(launcher, runs=3, cores=16) == expected
