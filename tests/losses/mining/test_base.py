"""The mean, custom minings, and the promise of a mining that streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segtrain import build_criterion
from segtrain.losses import MININGS, CrossEntropy, MeanMining, Mining, OhemMining
from segtrain.losses.mining.base import StreamingMining


def test_mean_by_hand() -> None:
    weights = torch.tensor([[[1.0, 2.0, 0.0]]])
    values = torch.tensor([[[3.0, 2 * 6.0, 0.0]]])
    assert float(MeanMining()(values, weights, weights > 0)) == pytest.approx(15 / 3)


def test_none_is_the_mean() -> None:
    assert isinstance(MININGS.build("none"), MeanMining)
    assert isinstance(CrossEntropy(num_classes=2).mining, MeanMining)


class Squared(Mining):
    """A custom mining that writes no more than its forward."""

    def forward(self, values: Tensor, *_: Any, **__: Any) -> Tensor:
        return values.square().sum()


class Above(StreamingMining):
    """The mean over the pixels with less than even probability."""

    needs_probability = True

    def forward(
        self,
        values: Tensor,
        weights: Tensor,
        valid: Tensor,
        probability: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        kept = self.kept(valid, probability)
        return torch.where(kept, values, 0).sum() / self.denominator(weights, kept).clamp(min=1)

    def kept(self, valid: Tensor, probability: Tensor | None) -> Tensor:
        assert probability is not None
        return valid & (probability < 0.5)

    def denominator(self, weights: Tensor, kept: Tensor) -> Tensor:
        return torch.where(kept, weights, 0).sum()

    def decided(self, denominator: Tensor, num_valid: int) -> bool:
        return True


class Undecided(Above):
    """Always needs the whole batch."""

    def decided(self, denominator: Tensor, num_valid: int) -> bool:
        return False


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
@pytest.mark.parametrize("kind", [Squared, Above, Undecided])
def test_a_custom_mining_gives_the_same_in_strips(
    kind: type[Mining], loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MININGS, "_factories", dict(MININGS._factories))
    MININGS.register("custom")(kind)
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 5, 6).double() * 3, torch.randint(0, 4, (2, 17, 13))
    target[0, :3] = 255
    found = []
    for rows in (None, 3):
        spec = {"name": loss, "class_weights": [1.0, 2.0, 0.5, 1.0]}
        criterion = build_criterion(spec, num_classes=4, mining="custom", strip_rows=rows)
        leaf = logits.clone().requires_grad_()
        value = criterion(leaf, target).total
        found.append((value.detach(), *torch.autograd.grad(value, leaf)))
    assert found[0][0] > 0
    torch.testing.assert_close(found[1], found[0], atol=1e-10, rtol=0)


def test_a_forward_that_is_replaced_later_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    mining = OhemMining()
    assert mining.streams
    monkeypatch.setattr(OhemMining, "forward", Above.forward)
    assert not mining.streams


class Replaced(Above):
    def forward(self, values: Tensor, *_: Any, **__: Any) -> Tensor:
        return values.sum()


class Both(Replaced):
    def kept(self, valid: Tensor, probability: Tensor | None) -> Tensor:
        return valid


class Tempered(MeanMining):
    def forward(self, values: Tensor, *_: Any, **__: Any) -> Tensor:
        return values.sum().square()


class Renamed(MeanMining):
    """Changes nothing."""


@pytest.mark.parametrize(
    ("mining", "streams"),
    [
        (MeanMining(), True),
        (Renamed(), True),
        (Tempered(), False),
        (OhemMining(), True),
        (Above(), True),
        (Undecided(), True),
        (Replaced(), False),
        (Both(), True),
    ],
    ids=lambda part: type(part).__name__,
)
def test_who_streams(mining: MeanMining | StreamingMining, streams: bool) -> None:
    assert mining.streams == streams


def test_a_streaming_mining_writes_all_of_it() -> None:
    class Half(StreamingMining):
        def forward(self, values: Tensor, *_: Any, **__: Any) -> Tensor:
            return values.sum()

    with pytest.raises(TypeError, match=r"decided.*denominator.*kept"):
        Half()  # type: ignore[abstract]
