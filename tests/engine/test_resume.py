"""A run that stopped and went on is the run that did not stop, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.engine import resume, trainer
from segtrain.engine.checkpoint import load_checkpoint
from tests.helpers import differences, state

WEIGHTS = "criterion.output_weights={out:1.0,aux:0.4}"
LEARNED = [  # numbers that the criterion learns, averages and plans
    "model.tasks=true",
    "criterion.output_weights=learned",
    "criterion.output_losses.aux={name:focal,mining:{name:ghm,momentum:0.7}}",
    "loss=uncertainty",
    "loss.terms.dice.weight={start:1.0,end:0.1,from_step:2,to_step:15}",
    "mining=ghm",
    "mining.momentum=0.5",
]
STEPS = [
    "trainer.max_steps=20",
    "trainer.ema_decay=0.9",
    "augmentation.crop_size=[40,40]",
    "augmentation.hue=0.1",
    "mining=ohem",
    "mining.min_kept=500",
]


@pytest.mark.fault("F10", "F14")
@pytest.mark.parametrize(
    ("stop", "workers", "others"),
    [
        (1, 0, ["optimizer=sgd", "scheduler=poly", "scheduler.warmup_steps=3"]),
        (8, 0, []),  # the end of the first epoch
        (11, 0, ["trainer.accumulate=2", "dataset.num_train=64"]),
        (11, 2, ["trainer.precision=bf16"]),
        (11, 0, ["trainer.precision=fp16", "trainer.accumulate=2", "dataset.num_train=64"]),
        (
            13,
            0,
            ["loss=sum", "loss.terms.cross_entropy.mining=ohem", "mining=none", "scheduler=cosine"],
        ),
        (11, 0, LEARNED),
    ],
)
def test_resume_is_exact(
    train: Callable[..., int],
    lines: Callable[[str], list[dict[str, Any]]],
    tmp_path: Path,
    stop: int,
    workers: int,
    others: list[str],
) -> None:
    words = [*STEPS, *others, f"loader.num_workers={workers}"]
    if others is not LEARNED:
        words.append(WEIGHTS)
    if "mining=none" in others or others is LEARNED:
        words.remove("mining=ohem")
        words.remove("mining.min_kept=500")
    assert train("straight", *words) == 0
    assert train("parts", *words, f"trainer.stop_after={stop}") == 0
    assert state(tmp_path / "parts")["step"] == stop
    torch.manual_seed(99)  # whatever happened in between must not matter
    assert train("parts", *words, "resume=auto") == 0
    assert differences(state(tmp_path / "straight"), state(tmp_path / "parts")) == []
    assert lines("parts") == lines("straight")


@pytest.mark.fault("F12")
def test_resume_works_with_another_number_of_workers(
    train: Callable[..., int], tmp_path: Path
) -> None:
    assert train("straight", *STEPS) == 0
    assert train("parts", *STEPS, "trainer.stop_after=11") == 0
    assert train("parts", *STEPS, "resume=auto", "loader.num_workers=2") == 0
    assert differences(state(tmp_path / "straight"), state(tmp_path / "parts")) == []


@pytest.mark.fault("F15")
@pytest.mark.parametrize("forgotten", ["rng", "position", "optimizer", "criterion"])
def test_the_comparison_notices_what_is_forgotten(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """The negative control: without any one part of the state, the comparison above must fail."""
    words = [*STEPS[:-2], *LEARNED]
    assert train("straight", *words) == 0
    assert train("parts", *words, "trainer.stop_after=11") == 0
    if forgotten == "rng":
        monkeypatch.setattr(resume, "set_rng_state", lambda state: None)
    elif forgotten in ("optimizer", "criterion"):
        monkeypatch.setattr(resume, f"_load_{forgotten}", lambda *_: None)
    else:
        fit = trainer.Trainer.fit

        def from_the_start(self: trainer.Trainer) -> Any:
            batches = self.batches
            self.batches = lambda step: batches(0)
            return fit(self)

        monkeypatch.setattr(trainer.Trainer, "fit", from_the_start)
    assert train("parts", *words, "resume=auto") == 0
    assert differences(state(tmp_path / "straight"), state(tmp_path / "parts")) != []


@pytest.mark.fault("F19")
def test_lines_after_the_checkpoint_are_dropped(
    train: Callable[..., int], lines: Callable[[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    words = ["trainer.max_steps=6", "trainer.evaluate_every=100"]
    assert train("run", *words, "trainer.stop_after=3") == 0
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')  # written after it, then killed
    assert train("run", *words, "resume=auto") == 0
    assert [line["step"] for line in lines("run")] == [1, 2, 3, 4, 5, 6, 6]


def test_resume_with_a_larger_budget_walks_the_new_schedule(
    train: Callable[..., int], lines: Callable[[str], list[dict[str, Any]]]
) -> None:
    words = ["scheduler=poly", "scheduler.power=1.0", "optimizer.lr=0.1", "optimizer=sgd"]
    assert train("run", *words, "trainer.max_steps=4") == 0
    assert train("run", *words, "trainer.max_steps=8", "resume=auto") == 0
    rates = [line["lr"] for line in lines("run") if "lr" in line]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.05, 0.0375, 0.025, 0.0125])


def test_resume_auto_without_a_checkpoint_starts(train: Callable[..., int], tmp_path: Path) -> None:
    assert train("run", "trainer.max_steps=1", "resume=auto") == 0
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.fault("F7")
def test_a_used_run_directory_is_not_overwritten(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("run", "trainer.max_steps=1") == 0
    assert train("run", "trainer.max_steps=1") == 7
    assert "resume=auto" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.fault("F15")
def test_best_pt_is_refused_for_resuming(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("run", "trainer.max_steps=1") == 0
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    assert train("other", "trainer.max_steps=2", f"resume={best}") == 4
    assert "last.pt" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "is_kept"), [("evaluation.max_images=2", False), ("evaluation.batch_size=1", True)]
)
def test_the_best_score_is_of_one_evaluation(
    train: Callable[..., int], tmp_path: Path, messages: list[str], change: str, is_kept: bool
) -> None:
    words = ["trainer.max_steps=4", "trainer.evaluate_every=2"]
    assert train("run", *words, "trainer.stop_after=2") == 0
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    state["best"]["mIoU"] = 2.0  # no later score is better
    torch.save(state, path)
    assert train("run", *words, "resume=auto", change) == 0
    best = load_checkpoint(path)["best"]
    assert (best == {"mIoU": 2.0, "step": 2}) == is_kept
    assert any("another evaluation" in text for text in messages) != is_kept


@pytest.mark.fault("F4")
@pytest.mark.parametrize("damage", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    assert train("run", "trainer.max_steps=1") == 0
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    path.write_bytes(damage or path.read_bytes()[: path.stat().st_size // 3])
    assert train("run", "trainer.max_steps=2", "resume=auto") == 4
    assert str(path) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.fault("F53")
def test_another_model_does_not_fit(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("run", "trainer.max_steps=1") == 0
    words = ["trainer.max_steps=2", "resume=auto", "model.norm=false"]
    assert train("run", *words) == 4
    assert "model.norm=true, but the configuration has model.norm=false" in capsys.readouterr().err
    assert train("run", *words, "resume_allow=[model]") == 4
    assert "does not fit" in capsys.readouterr().err.splitlines()[-1]
