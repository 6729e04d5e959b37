"""Short runs that show whether a configuration works, and options of the step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.engine import Trainer
from segtrain.engine.checkpoint import load_checkpoint

Train = Callable[..., int]
Lines = Callable[[str], list[dict[str, Any]]]


def test_fast_dev_run(train: Train, lines: Lines) -> None:
    assert train("run", "debug=fast_dev_run") == 0
    found = lines("run")
    assert [line["step"] for line in found if "loss" in line] == [1, 2]
    assert [line["step"] for line in found if "evaluation" in line] == [1, 2]


def test_overfit_sees_one_batch_only(
    train: Train, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    step = Trainer.train_step

    def watched(self: Trainer, batches: list[Any]) -> Any:
        seen.append(torch.cat([batch["images"] for batch in batches]))
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", watched)
    words = ["debug=overfit", "trainer.max_steps=30", "trainer.accumulate=2", "optimizer.lr=0.05"]
    words += ["model.dropout=0", "trainer.stop_after=20"]
    assert train("run", *words) == 0
    assert train("run", *words, "trainer.stop_after=null", "resume=auto") == 0
    assert len(seen) == 30
    assert all(torch.equal(seen[0], images) for images in seen)
    losses = [line["loss"] for line in lines("run") if "loss" in line]
    assert losses[-1] < 0.6 * losses[0]


def test_an_unknown_choice_is_refused(train: Train, last_line: Callable[[], str]) -> None:
    assert train("run", "debug=overfitt") == 2
    assert "unknown debug 'overfitt'; did you mean 'overfit'?" in last_line()


def test_gradients_are_clipped_by_value(train: Train, tmp_path: Path) -> None:
    words = ["optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.weight_decay=0"]
    words += ["scheduler=constant", "trainer.clip_grad_value=0.001", "trainer.max_steps=2"]
    assert train("one", *words, "trainer.stop_after=1") == 0
    assert train("two", *words) == 0
    first, second = (
        load_checkpoint(tmp_path / name / "checkpoints/last.pt")["model"] for name in ("one", "two")
    )
    changes = [
        float((second[name] - first[name]).abs().max())
        for name in first
        if "running" not in name and first[name].is_floating_point()
    ]
    assert max(changes) == pytest.approx(0.001, rel=1e-3)


def test_deterministic_is_set_for_the_run(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []
    step = Trainer.train_step

    def watched(self: Trainer, batches: list[Any]) -> Any:
        found.append(torch.are_deterministic_algorithms_enabled())
        return step(self, batches)

    monkeypatch.setattr(Trainer, "train_step", watched)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert train("run", "trainer.max_steps=1", "trainer.deterministic=true") == 0
    assert train("other", "trainer.max_steps=1") == 0
    assert found == [True, False]
