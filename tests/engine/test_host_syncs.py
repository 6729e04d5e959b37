"""A step between two log lines waits for no device: no number is read from it.

The device is ``meta``, which has shapes and no numbers, so reading one raises. The code takes the
same paths there as on a GPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import segtrain
from segtrain.assembly.check import check_config
from segtrain.assembly.training import build_trainer
from segtrain.engine import Trainer, finite_check
from segtrain.engine.distributed import Processes
from segtrain.losses import LOSSES, MININGS
from tests.helpers import TINY

pytestmark = pytest.mark.filterwarnings("ignore:Seems like `optimizer.step")

# They look for the classes that are there, count the classes around a pixel, or compute distances
# on the CPU.
WAITING = {
    *("boundary", "cldice", "distance_weighted_cross_entropy", "hausdorff_dt", "label_relaxation"),
    *("lovasz_hinge", "lovasz_softmax", "rmi"),
}
CROSS_ENTROPY = {"name": "cross_entropy"}
WITHOUT_NUMBERS = "meta"  # what torch says of a number that it cannot read


@pytest.fixture
def trainer_on_meta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that builds a trainer of a loss on the device ``meta``."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # not for meta
    # The flag of the step before is copied while the step runs; reading it does not wait for it.
    monkeypatch.setattr(finite_check, "Flag", lambda _: torch.zeros(()).bool())
    segtrain.load_plugins([str(TINY)])

    def build(loss: dict[str, Any], **trainer: Any) -> Trainer:
        config = {
            "dataset": {"name": "shapes", "size": [48, 48], "num_train": 8, "num_val": 2},
            "model": {"name": "tiny"},
            "loss": loss,
            "optimizer": {"name": "adamw"},
            "scheduler": {"name": "poly"},
            "loader": {"num_workers": 0},
            "run_dir": str(tmp_path / loss["name"]),
            "trainer": {"max_steps": 10, "batch_size": 2, "device": "cpu", **trainer},
        }
        built = build_trainer(check_config(config), Processes(0, 1, torch.device("meta")))
        built.optimizer.step = lambda: None  # type: ignore[method-assign]  # torch has none for meta
        built.model.train()
        return built

    return build


def take_steps(trainer: Trainer) -> dict[str, torch.Tensor]:
    assert trainer.run is not None
    with trainer.run:
        stream = trainer.batches(0)
        losses = {}
        for _ in range(2):
            losses = trainer.train_step([next(stream) for _ in range(trainer.options.accumulate)])
            trainer.step += 1
    return losses


@pytest.mark.parametrize("name", sorted({*LOSSES.names()} - WAITING - {"sum", "uncertainty"}))
def test_no_loss_waits(trainer_on_meta: Any, name: str) -> None:
    losses = take_steps(trainer_on_meta({"name": name}))
    with pytest.raises(RuntimeError, match=WITHOUT_NUMBERS):  # as a log line would
        float(losses["loss"])


@pytest.mark.parametrize("name", sorted(WAITING))
def test_these_losses_wait(trainer_on_meta: Any, name: str) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match=WITHOUT_NUMBERS):
        take_steps(trainer_on_meta({"name": name}))


@pytest.mark.parametrize("mining", sorted(MININGS.names()))
def test_no_mining_waits(trainer_on_meta: Any, mining: str) -> None:
    take_steps(trainer_on_meta({**CROSS_ENTROPY, "mining": {"name": mining}}))


@pytest.mark.parametrize(
    "trainer",
    [
        {"accumulate": 2},
        {"clip_grad_norm": 1.0},
        {"clip_grad_value": 0.5},
        {"ema_decay": 0.9},
        {"channels_last": True},
    ],
    ids=lambda given: next(iter(given)),
)
def test_no_part_of_the_trainer_waits(trainer_on_meta: Any, trainer: dict[str, Any]) -> None:
    terms = {"cross_entropy": {"weight": 1.0}, "dice": {"weight": 1.0}}
    for name in ("sum", "uncertainty"):
        take_steps(trainer_on_meta({"name": name, "terms": terms}, **trainer))
