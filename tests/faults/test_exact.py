"""Runs that are interrupted by what is inside them, and runs that must be equal to the last bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.engine.checkpoint import load_checkpoint
from segtrain.engine.trainer import Trainer
from segtrain.models import MODELS
from tests.helpers import SMALL, differences, outcome, state, torchrun

Train = Callable[..., int]
Last = Callable[[], str]
Lines = Callable[[str], list[dict[str, Any]]]
RANDOM = [
    *("trainer.ema_decay=0.9", "augmentation.crop_size=[32,32]", "augmentation.brightness=0.3"),
    *("trainer.max_steps=12", "optimizer=sgd", "model.dropout=0.5"),
]


@pytest.mark.fault("F18")
def test_two_runs_of_one_seed_are_equal(train: Train, lines: Lines, tmp_path: Path) -> None:
    words = [*RANDOM, "trainer.deterministic=true"]
    assert train("one", *words) == 0
    torch.manual_seed(99)  # what happened before in the process must not matter
    assert train("two", *words, "loader.num_workers=1") == 0
    assert differences(state(tmp_path / "one"), state(tmp_path / "two")) == []
    assert lines("one") == lines("two")
    assert train("three", *words, "seed=1") == 0
    assert lines("three") != lines("one")


@pytest.mark.slow
@pytest.mark.fault("F18")
def test_two_runs_of_two_processes_are_equal(tmp_path: Path) -> None:
    for name in ("one", "two"):
        done = torchrun(tmp_path / name, *SMALL, *RANDOM)
        assert done.returncode == 0, done.stderr
    one, two = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    assert differences(one[0], two[0]) == []
    losses = [[line.get("loss") for line in found] for _, found in (one, two)]
    assert losses[0] == losses[1]


@pytest.mark.fault("F14")
def test_fp16_and_accumulation_resume_exactly(train: Train, lines: Lines, tmp_path: Path) -> None:
    words = [*RANDOM, "trainer.precision=fp16", "trainer.accumulate=2"]
    assert train("straight", *words) == 0
    for more in (["trainer.stop_after=5"], ["resume=auto"]):
        assert train("parts", *words, *more) == 0
    whole = state(tmp_path / "straight")
    assert whole["scaler"]["scale"] > 0
    assert differences(whole, state(tmp_path / "parts")) == []
    assert lines("parts") == lines("straight")


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    "key", ["step", "model", "ema", "optimizer", "scheduler", "rng", "best", "total_steps"]
)
def test_a_checkpoint_without_a_part_is_refused(
    key: str, train: Train, tmp_path: Path, last_line: Last
) -> None:
    assert train("run", *RANDOM, "trainer.stop_after=2") == 0
    content = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    del content[key]
    torch.save(content, tmp_path / "part.pt")
    assert train("other", *RANDOM, f"resume={tmp_path / 'part.pt'}") == 4
    line = last_line()
    assert "part.pt" in line
    assert f"lacks '{key}'" in line
    assert not (tmp_path / "other").exists()


@pytest.mark.fault("F8")
def test_the_best_checkpoint_survives_worse_ones_and_nan(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.5, math.nan, 0.3, 0.4, 0.1])
    is_best = Trainer._is_best
    monkeypatch.setattr(Trainer, "_is_best", lambda self, _: is_best(self, next(scores)))
    words = [*RANDOM, "trainer.evaluate_every=2", "trainer.checkpoint_every=1"]
    for more in (["trainer.stop_after=7"], ["resume=auto"]):
        assert train("run", *words, *more) == 0
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    assert result["best"] == {"mIoU": 0.5, "step": 4}
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")["step"] == 4


@pytest.mark.fault("F27")
def test_a_batch_that_is_too_large_is_explained_and_keeps_the_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_line: Last
) -> None:
    step = Trainer.train_step

    def fails(self: Trainer, batches: list[Any]) -> Any:
        if self.step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", fails)
    assert train("run", *RANDOM, "trainer.checkpoint_every=1") == 6
    line = last_line()
    assert line.startswith("error: out of memory")
    assert "trainer.batch_size" in line
    assert "trainer.precision=bf16" in line
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 3
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 6)


@pytest.mark.fault("F49")
def test_nan_in_validation_is_no_score(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_line: Last
) -> None:
    monkeypatch.setattr(MODELS, "_factories", dict(MODELS._factories))
    (tmp_path / "bad.py").write_text(
        "import torch\nimport segtrain\n\n\n"
        '@segtrain.register_model("nan_in_validation")\n'
        "class Bad(segtrain.Segmentor):\n"
        "    def __init__(self, *, num_classes: int, align_corners: bool = False):\n"
        "        super().__init__(num_classes=num_classes, align_corners=align_corners)\n"
        "        self.head = torch.nn.Conv2d(3, num_classes, 1)\n\n"
        "    def forward(self, images):\n"
        "        return {'out': self.head(images) * (1.0 if self.training else float('nan'))}\n"
    )
    words = [f"plugins=[{tmp_path / 'bad.py'}]", "model=nan_in_validation"]
    assert train("run", *words, "trainer.max_steps=4", "trainer.checkpoint_every=2") == 5
    assert "the model's logits are NaN or infinite" in last_line()
    assert not (tmp_path / "run" / "checkpoints" / "best.pt").exists()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["mIoU"] is None
