"""What fails inside a run is explained, and what was saved before is kept."""

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

Train = Callable[..., int]
Last = Callable[[], str]
WORDS = ["trainer.max_steps=12", "trainer.ema_decay=0.9", "optimizer=sgd"]


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    "key", ["step", "model", "ema", "optimizer", "scheduler", "rng", "best", "total_steps"]
)
def test_a_checkpoint_without_a_part_is_refused(
    key: str, train: Train, tmp_path: Path, last_line: Last
) -> None:
    assert train("run", *WORDS, "trainer.stop_after=2") == 0
    content = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    del content[key]
    torch.save(content, tmp_path / "part.pt")
    assert train("other", *WORDS, f"resume={tmp_path / 'part.pt'}") == 4
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
    words = [*WORDS, "trainer.evaluate_every=2", "trainer.checkpoint_every=1"]
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
    assert train("run", *WORDS, "trainer.checkpoint_every=1") == 6
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
