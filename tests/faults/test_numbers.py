"""Losses that are not finite, in one process or in all, and datasets that draw random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.engine.checkpoint import load_checkpoint
from tests.faults.runs import Training
from tests.helpers import TINY, differences, state

Train = Callable[..., int]
Lines = Callable[[str], list[dict[str, Any]]]
PLUGINS = f"plugins=[{TINY},{Path(__file__).with_name('bad_data.py')}]"
BREAKS = [PLUGINS, "loss=breaks", "model.aux=false", "trainer.max_steps=6"]
BREAKS += ["trainer.evaluate_every=6"]


@pytest.fixture
def bad_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the steps that are NaN, counted from here."""

    def choose(steps: str) -> None:
        import sys

        monkeypatch.setenv("BAD_STEPS", steps)
        for name, module in sys.modules.items():
            if name.endswith("bad_data"):
                module._calls[0] = 0

    return choose


@pytest.mark.fault("F46")
def test_a_step_that_is_not_finite_ends_the_run_and_is_kept(
    train: Train, tmp_path: Path, bad_steps: Callable[[str], None], last_line: Callable[[], str]
) -> None:
    assert train("whole", *BREAKS, "trainer.stop_after=3") == 0
    bad_steps("4")
    assert train("run", *BREAKS) == 5
    message, kept = last_line(), tmp_path / "run/nonfinite_step_4.pt"
    assert "the loss is (term out/breaks) NaN or infinite at step 4, files: train_" in message
    assert "weights are those of step 3, in checkpoints/last.pt" in message
    assert f"the batch is kept in {kept}" in message
    (batch,) = torch.load(kept, weights_only=True)
    assert batch["images"].shape[0] == len(batch["name"]) == 4
    assert batch["name"][0] in message
    # The forward pass of the bad step has drawn random numbers.
    found = differences(state(tmp_path / "whole"), state(tmp_path / "run"))
    assert all(key.startswith("/rng") for key in found), found
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["exit_code"], status["checkpoint"]) == ("failed", 5, 3)
    bad_steps("")
    assert train("run", *BREAKS, "resume=auto") == 0


@pytest.mark.fault("F46")
def test_an_image_that_is_not_finite_leaves_finite_statistics(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segtrain.engine import Trainer

    step = Trainer.train_step

    def poisoned(self: Trainer, batches: list[Any]) -> Any:
        if self.step == 2:
            images = batches[0]["images"] / 255
            images[0, 0, 0, 0] = float("nan")
            batches[0]["images"] = images
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", poisoned)
    assert train("run", "trainer.max_steps=6", "trainer.evaluate_every=6") == 5
    saved = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    assert saved["step"] == 2
    assert all(value.isfinite().all() for value in saved["model"].values())


@pytest.mark.fault("F46")
def test_a_step_that_is_skipped_leaves_the_running_counts(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segtrain.engine import Trainer

    words = ["mining=ghm", "mining.momentum=0.5", "trainer.on_nonfinite=skip"]
    words += ["scheduler=constant", "trainer.evaluate_every=100"]
    assert train("three", *words, "trainer.max_steps=3") == 0
    step = Trainer.train_step

    def poisoned(self: Trainer, batches: list[Any]) -> Any:
        if self.step == 3:
            batches[0]["images"] = batches[0]["images"] * float("nan")
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", poisoned)
    assert train("four", *words, "trainer.max_steps=4") == 0
    states = [
        load_checkpoint(tmp_path / name / "checkpoints/last.pt") for name in ("three", "four")
    ]
    counts = [next(iter(state["criterion"][0].values())) for state in states]
    assert counts[0].sum() > 0
    assert counts[0].equal(counts[1])


@pytest.mark.fault("F46")
def test_steps_that_are_not_finite_can_be_skipped(
    train: Train, tmp_path: Path, bad_steps: Callable[[str], None], lines: Lines
) -> None:
    bad_steps("2,4")
    words = [*BREAKS, "trainer.on_nonfinite=skip", "trainer.ema_decay=0.9"]
    assert train("run", *words) == 0
    logged = [line for line in lines("run") if "loss" in line]
    assert [line["loss"] is None for line in logged] == [False, True, False, True, False, False]
    assert [line.get("skipped_steps", 0) for line in logged] == [0, 1, 1, 2, 2, 2]
    log = (tmp_path / "run/train.log").read_text()
    assert "step 2 is left out" in log
    assert (
        "step 4 is left out, because its loss or its gradient is NaN or infinite (2 so far)" in log
    )
    saved = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    for part in ("model", "ema"):
        assert all(value.isfinite().all() for value in saved[part].values())
    bad_steps(",".join(map(str, range(3, 60))))
    assert train("all", *words, "trainer.max_steps=60") == 5


@pytest.mark.slow
@pytest.mark.fault("F46")
@pytest.mark.parametrize(("rank", "parallel"), [("0", "ddp"), ("1", "ddp"), ("1", "fsdp")])
def test_one_process_that_is_not_finite_stops_both(
    rank: str, parallel: str, tmp_path: Path
) -> None:
    words = [*BREAKS, f"trainer.parallel={parallel}"]
    with Training(tmp_path / "run", *words, processes=2, BAD_STEPS="4", BAD_RANK=rank) as run:
        _, error = run.end(90)
        assert f"NaN or infinite at step 4 (process {rank}), files: train_" in error
        assert run.no_orphans()
        assert run.last_step() == 3
        assert run.status()["exit_code"] == 5
        assert (tmp_path / "run/nonfinite_step_4.pt").is_file()


@pytest.mark.fault("F48")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loss_that_explodes_leaves_finite_weights(
    precision: str, train: Train, tmp_path: Path
) -> None:
    words = ["trainer.max_steps=40", "trainer.evaluate_every=1", "optimizer=sgd"]
    words += ["optimizer.momentum=0.99", f"trainer.precision={precision}", "scheduler=constant"]
    assert train("run", *words, "optimizer.lr=1e30") == 5
    for name in ("best.pt", "last.pt"):
        path = tmp_path / "run/checkpoints" / name
        if path.exists():
            saved = load_checkpoint(path)
            for part in ("model", "ema"):
                assert all(value.isfinite().all() for value in (saved[part] or {}).values())


@pytest.mark.fault("F17")
def test_a_dataset_that_draws_gives_other_numbers_to_each_sample(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segtrain.engine import Trainer

    seen: dict[tuple[int, str], list[float]] = {}
    runs: list[dict[tuple[int, str], list[float]]] = []
    step = Trainer.train_step

    def watched(self: Trainer, batches: list[Any]) -> Any:
        for batch in batches:
            for image, name in zip(batch["images"], batch["name"], strict=True):
                seen[(self.step, name)] = image[:, 0, 0].tolist()
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", watched)
    words = [PLUGINS, "dataset=draws", "dataset.size=[48,48]", "dataset.num_train=8"]
    words += ["dataset.num_val=2", "augmentation=none", "trainer.max_steps=4"]
    for name, workers in (("none", 0), ("two", 2)):
        seen.clear()
        assert train(name, *words, f"loader.num_workers={workers}") == 0
        runs.append(dict(seen))
    assert runs[0] == runs[1]
    assert len({tuple(values) for values in runs[0].values()}) == len(runs[0]) == 16
    assert differences(state(tmp_path / "none"), state(tmp_path / "two")) == []


SAME = ["trainer.max_steps=8", "trainer.evaluate_every=4", "augmentation.crop_size=[32,32]"]


@pytest.mark.fault("F18")
def test_two_runs_of_one_seed_are_equal(train: Train, tmp_path: Path, lines: Lines) -> None:
    for name in ("one", "two"):
        assert train(name, *SAME, "seed=5", "loader.num_workers=1") == 0
        torch.manual_seed(len(name))  # what happens in between does not matter
    assert train("other", *SAME, "seed=6") == 0
    assert lines("one") == lines("two")
    assert lines("one") != lines("other")
    assert differences(state(tmp_path / "one"), state(tmp_path / "two")) == []


@pytest.mark.slow
@pytest.mark.fault("F18")
def test_two_runs_of_two_processes_are_equal(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with Training(tmp_path / name, *SAME, processes=2) as run:
            code, error = run.end(90)
            assert code == 0, error
    assert differences(state(tmp_path / "one"), state(tmp_path / "two")) == []
