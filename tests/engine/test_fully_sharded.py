"""Fully sharded training takes the same steps, and its checkpoints are those of any other run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import State, load_checkpoint
from tests.helpers import in_two_processes

SCRIPT = Path(__file__).with_name("sharded_runs.py")
RUNS = ("ddp", "fsdp", "ddp_fsdp", "fsdp_ddp", "fsdp_saved")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Sharded training over gloo has ended in SIGABRT without a message, about once in a hundred
    # runs of torch 2.14 on CPUs; the cause is not known. Only that is tried again.
    for _ in range(2):
        folder = tmp_path_factory.mktemp("sharded")
        done = in_two_processes(SCRIPT, str(folder))
        if "exitcode  : -6" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return folder


def last(runs: Path, name: str) -> State:
    return load_checkpoint(runs / name / "checkpoints" / "last.pt")


def lines(runs: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS[1:])
def test_the_steps_are_those_of_copies(runs: Path, name: str) -> None:
    expected, found = lines(runs, "ddp"), lines(runs, name)
    for key in ("loss", "grad_norm", "lr"):
        values = [[line[key] for line in part if key in line] for part in (expected, found)]
        assert len(values[0]) == 6
        assert values[1] == pytest.approx(values[0], rel=1e-5), key
    scores = [
        [line["evaluation"] for line in part if "evaluation" in line] for part in (expected, found)
    ]
    assert len(scores[0]) == len(scores[1]) == 2
    for before, after in zip(*scores, strict=True):
        assert after["mIoU"] == pytest.approx(before["mIoU"], abs=1e-3)


def test_the_steps_of_an_optimizer_without_a_fused_kernel(runs: Path) -> None:
    expected, found = last(runs, "ddp_sgd"), last(runs, "fsdp_sgd")
    for key, value in expected["model"].items():
        torch.testing.assert_close(found["model"][key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RUNS[1:])
def test_checkpoints_hold_whole_tensors(runs: Path, name: str) -> None:
    expected, found = last(runs, "ddp"), last(runs, name)
    for part in ("model", "ema"):
        assert found[part].keys() == expected[part].keys()
        for key, value in expected[part].items():
            torch.testing.assert_close(found[part][key], value, rtol=1e-4, atol=1e-6)
    moments = [one["optimizer"]["state"] for one in (expected, found)]
    assert moments[0].keys() == moments[1].keys()
    for index, values in moments[0].items():
        for key, value in values.items():
            torch.testing.assert_close(moments[1][index][key], value, rtol=1e-3, atol=1e-6)


def test_a_sharded_run_is_evaluated_by_one_process(runs: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    words = [f"checkpoint={runs / 'fsdp'}", f"plugins=[{SCRIPT}]", "device=cpu", f"output={scores}"]
    assert run_command("evaluate", words) == 0
    best = last(runs, "fsdp")["best"]["mIoU"]
    assert json.loads(scores.read_text())["mIoU"] == pytest.approx(best, abs=1e-6)


def test_thawing_needs_copies(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trainer.freeze=[stem]", "trainer.thaw_at=2", "trainer.parallel=fsdp"]
    assert train("run", *words) == 2
    assert "thaw_at needs parallel=ddp" in capsys.readouterr().err
