"""Parameters and multiply-adds of the HRNets are exactly those of the official code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count

from segtrain.models import MODELS, Segmentor

# Name: parameters with 19 classes, and the millions that the official repository reports.
PARAMETERS = {
    "hrnet_w18_small_v1": (1_540_819, 1.541),
    "hrnet_w18_small_v2": (3_939_579, 3.940),
    "hrnet_w18": (9_641_119, 9.641),
    "hrnet_w32": (29_546_515, 29.547),
    "hrnet_w48": (65_859_379, 65.859),
    "hrnet_w18_small_v1_ocr": (3_842_278, 3.842),
    "hrnet_w18_small_v2_ocr": (6_379_278, 6.379),
    "hrnet_w18_ocr": (12_080_818, 12.081),
    "hrnet_w32_ocr": (32_953_894, 32.954),
    "hrnet_w48_ocr": (70_372_678, 70.373),
}
# Multiply-adds of the convolutions for 1024 x 2048 pixels, in units of 1024^3, as published.
CONVOLUTIONS = {
    "hrnet_w18_small_v1": 31.1,
    "hrnet_w18_small_v2": 71.6,
    "hrnet_w48": 696.2,
    "hrnet_w18_small_v1_ocr": 271.3,
    "hrnet_w18_small_v2_ocr": 328.6,
    "hrnet_w48_ocr": 1206.4,
}


def build(name: str) -> Segmentor:
    with torch.device("meta"):
        return MODELS.build(name, num_classes=19).eval()


class Convolutions(TorchDispatchMode):
    """Count the multiply-adds of convolutions, much faster than ``FlopCounterMode``."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            images, weight, *_ = args
            self.total += conv_flop_count(list(images.shape), list(weight.shape), output.shape) // 2
        return output


def multiply_adds(model: Segmentor) -> float:
    """For 1024 x 2048 pixels, in units of 1024^3."""
    with torch.no_grad(), Convolutions() as counter:
        model(torch.empty(1, 3, 1024, 2048, device="meta"))
    return counter.total / 1024**3


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_numbers_are_the_official_ones(name: str) -> None:
    model = build(name)
    exact, millions = PARAMETERS[name]
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (count, round(count / 1e6, 3)) == (exact, millions)
    if name in CONVOLUTIONS:
        assert round(multiply_adds(model), 1) == CONVOLUTIONS[name]
