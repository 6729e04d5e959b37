"""The promise of a class that writes `loss_of`, and the subclasses that break it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses import CrossEntropy, Focal, PixelLoss, TargetProbabilityLoss
from segtrain.losses.families.pixel import check_softmax_channels

IDS = torch.zeros(1, 4, 4, dtype=torch.long)


class Plain(Focal):
    """Changes nothing."""


class Doubled(Focal):
    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return 2 * super().pixel_loss(logits, target)


class Rewritten(Doubled):
    """Writes `loss_of` again, to agree with its `pixel_loss`."""

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:
        return 2 * super().loss_of(log_probability, target)


class Inherits(Doubled):
    """Inherits a `pixel_loss` with which `loss_of` does not agree."""


class _Halved:
    def pixel_loss(self, logits: Tensor, target: Tensor) -> Any:
        return super().pixel_loss(logits, target) / 2  # type: ignore[misc]


class Mixed(_Halved, Focal):
    """Inherits its `pixel_loss` from a class that is not a loss."""


class FewerValid(Focal):
    def valid(self, target: Tensor) -> Tensor:
        return super().valid(target) & (target != 1)


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        (Focal, True),
        (Plain, True),
        (Doubled, False),
        (Inherits, False),
        (Rewritten, True),
        (Mixed, False),
        (FewerValid, False),
    ],
)
def test_who_shares_the_softmax(kind: type[Focal], shares: bool) -> None:
    loss = kind(num_classes=3)
    assert loss.shares_softmax(IDS) == shares
    assert loss.runs_in_strips
    assert not loss.shares_softmax(torch.rand(1, 3, 4, 4))  # loss_of takes class ids


def test_parameters_may_turn_it_off() -> None:
    assert CrossEntropy(num_classes=3).shares_softmax(IDS)
    assert not CrossEntropy(num_classes=3, label_smoothing=0.1).shares_softmax(IDS)


def test_a_method_that_is_replaced_later_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = Plain(num_classes=3)
    monkeypatch.setattr(Plain, "pixel_loss", Doubled.pixel_loss)
    assert not loss.shares_softmax(IDS)
    monkeypatch.setattr(Plain, "value", lambda *_: torch.zeros(()))
    assert not loss.runs_in_strips


def test_a_pixel_loss_shares_no_softmax() -> None:
    class Error(PixelLoss):
        def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return 1 - self.target_probability(logits, target)

    assert not Error(num_classes=3).shares_softmax(IDS)
    assert Error(num_classes=3).runs_in_strips


@pytest.mark.parametrize("base", [PixelLoss, TargetProbabilityLoss])
def test_a_loss_may_refuse_strips(base: type[PixelLoss]) -> None:
    class Whole(base):  # type: ignore[misc, valid-type]
        can_strip = False

        def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return logits.amax(1)

        def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:
            return -log_probability

    assert not Whole(num_classes=3).runs_in_strips


def test_softmax_channels() -> None:
    check_softmax_channels(2)
    with pytest.raises(ConfigError, match="num_classes is 1, and the softmax of one channel"):
        check_softmax_channels(1)
