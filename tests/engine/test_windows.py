"""Sliding windows, against the model on the whole image."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrain.engine.windows import Windows, rows_of

Size = tuple[int, int]


def pooled(stride: int) -> Callable[[Tensor], Tensor]:
    """A model whose logits depend on the pixels of their own cell alone."""
    return lambda images: F.avg_pool2d(images, stride, ceil_mode=True, count_include_pad=False)


def read_from(images: Tensor) -> Callable[[Size, Size], Tensor]:
    return lambda rows, columns: images[:, :, slice(*rows), slice(*columns)]


@pytest.mark.parametrize("blend", ["gaussian", "uniform"])
@pytest.mark.parametrize("stride", [1, 4, 32])
@pytest.mark.parametrize("size", [(200, 230), (64, 300), (300, 40), (96, 96), (33, 65), (20, 20)])
def test_of_a_local_model_equal_the_whole(size: Size, stride: int, blend: str) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    model = pooled(stride)
    windows = Windows(size, (96, 64), (64, 32), blend)
    for batch_size in (1, 3):
        bands = list(windows.bands(read_from(images), model, batch_size))
        whole = model(images)
        torch.testing.assert_close(torch.cat([band.logits for band in bands], 2), whole)
        assert {band.height for band in bands} == {whole.shape[2]}
        starts = [0, *itertools.accumulate(band.logits.shape[2] for band in bands)]
        assert [band.first for band in bands] == starts[:-1]


def test_cover_every_pixel_and_start_at_multiples_of_32() -> None:
    for length, window, stride in itertools.product(range(1, 200, 7), (32, 96), (32, 64)):
        if stride > window:
            continue
        spans = Windows((length, 1), (window, 32), (stride, 32), "uniform").rows
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(start % 32 == 0 for start, _ in spans)
        assert all(after[0] <= before[1] for before, after in itertools.pairwise(spans))
        assert all(stop - start < window + 32 for start, stop in spans)


def test_blend_what_they_disagree_about() -> None:
    seen: list[Tensor] = []

    def number_of_the_window(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.full((len(images), 1, 64, images.shape[3]), float(len(seen)))

    windows = Windows((64, 96), (64, 64), (32, 32), "uniform")
    (band,) = windows.bands(read_from(torch.zeros(1, 3, 64, 96)), number_of_the_window)
    left, middle, right = band.logits[0, 0, 0].split(32)  # the first call measured the height
    assert (left.unique().item(), middle.unique().item(), right.unique().item()) == (2, 2.5, 3)

    seen.clear()
    windows = Windows((64, 96), (64, 64), (32, 32), "gaussian")
    (band,) = windows.bands(read_from(torch.zeros(1, 3, 64, 96)), number_of_the_window)
    line = band.logits[0, 0, 0]
    assert bool((line.diff() >= -1e-6).all())
    assert line[48].item() == pytest.approx(2.5, abs=0.1)


def test_whose_logits_do_not_fit_together_are_refused() -> None:
    model = nn.AvgPool2d(5)
    windows = Windows((200, 200), (64, 64), (32, 32), "uniform")
    with pytest.raises(ValueError, match="cannot be blended"):
        list(windows.bands(read_from(torch.zeros(1, 3, 200, 200)), model))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("height", [130, 200, 33])
def test_rows_are_complete_and_in_order(height: int, align_corners: bool) -> None:
    images = torch.randn(1, 2, 130, 64)
    windows = Windows((130, 64), (64, 64), (32, 32), "gaussian")
    expected = F.interpolate(
        pooled(4)(images).double(), size=(height, 16), mode="bilinear", align_corners=align_corners
    )
    found, done = torch.zeros_like(expected), 0
    for rows, part, logits in rows_of(
        windows.bands(read_from(images), pooled(4)), height, align_corners
    ):
        assert rows.start == done
        done = rows.stop
        low, high = logits[:, :, part.low].double(), logits[:, :, part.high].double()
        found[:, :, rows] = torch.lerp(low, high, part.weight.double()[:, None])
    assert done == height
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
