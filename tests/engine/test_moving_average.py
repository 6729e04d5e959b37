from __future__ import annotations

import pytest
import torch
from torch import nn

from segtrain.engine.moving_average import MovingAverage, decay_at


def model_of(value: float) -> nn.Module:
    model = nn.BatchNorm1d(1)
    with torch.no_grad():
        model.weight.fill_(value)
        model.running_mean.fill_(value)
    return model


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_follows_the_rule(decay: float) -> None:
    average, expected = MovingAverage(model_of(-100.0), decay), 0.0
    for update, value in enumerate([3.0, 1.0, 4.0, 1.0, 5.0, 9.0]):
        share = decay_at(update, decay) if update else 0.0  # the first update replaces the start
        expected = share * expected + (1 - share) * value
        average.update_parameters(model_of(value))
        assert average.module.weight.item() == pytest.approx(expected)
        assert average.module.running_mean.item() == pytest.approx(expected)


@pytest.mark.parametrize("updates", [50, 100, 300, 2000])
def test_little_of_the_first_weights_is_left(updates: int) -> None:
    share = 1.0
    for update in range(1, updates):
        share *= decay_at(update, 0.99)
    assert share < 1e-6
