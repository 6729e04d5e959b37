"""Classes from logits of a lower resolution, against upsampling all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.criterion.strips.axis import linear_axis
from segtrain.engine.class_ids import predict_ids, strips_of

RATIOS = [
    ((9, 12), (36, 48)),  # a whole number
    ((9, 12), (31, 41)),
    ((5, 7), (5, 50)),  # one axis alone
    ((9, 12), (9, 12)),
    ((9, 12), (4, 5)),  # smaller than the logits
    ((1, 1), (6, 7)),
    ((2, 1), (1, 9)),
]


def whole(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """All logits at the size of the target, in float64."""
    return F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=align_corners)


def is_largest(ids: Tensor, upsampled: Tensor) -> bool:
    """Whether the logit of each class is the largest of its pixel, ties and rounding aside."""
    chosen = upsampled.gather(1, ids[:, None])[:, 0]
    return bool((upsampled.amax(1) - chosen < 1e-4).all())


def smooth(num_classes: int, size: tuple[int, int]) -> Tensor:
    coarse = torch.randn(2, num_classes, 3, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=size, mode="bicubic")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("low", "size"), RATIOS)
@pytest.mark.parametrize("num_classes", [2, 3, 12])
def test_are_those_of_upsampled_logits(
    low: tuple[int, int], size: tuple[int, int], num_classes: int, align_corners: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    for logits in (
        smooth(num_classes, low),
        torch.randn(2, num_classes, *low, generator=generator),
    ):
        ids = predict_ids(logits, size, align_corners)
        assert ids.dtype == torch.int64
        assert ids.shape == (2, *size)
        assert is_largest(ids, whole(logits, size, align_corners))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_any_memory_format_and_precision(
    memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    logits = smooth(12, (20, 30)).to(dtype).contiguous(memory_format=memory_format)
    assert is_largest(predict_ids(logits, (80, 120), False), whole(logits, (80, 120), False))


def test_a_class_that_no_corner_prefers_can_win_between_them() -> None:
    logits = torch.tensor([[4.0, 0.0], [2.6, 2.6], [0.0, 4.0]])[None, :, None]
    ids = predict_ids(logits, (1, 8), False)
    assert ids.tolist() == [[[0, 0, 0, 1, 1, 2, 2, 2]]]


def test_a_cell_of_equal_corners_is_not_upsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a decided cell was upsampled")

    monkeypatch.setattr("segtrain.engine.class_ids._write_cells", fail)
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 1] = 1
    assert bool((predict_ids(logits, (16, 16), False) == 1).all())


@pytest.mark.parametrize("multi_label", [False, True])
def test_of_thresholds(multi_label: bool) -> None:
    channels = 3 if multi_label else 1
    logits = torch.randn(2, channels, 5, 6, generator=torch.Generator().manual_seed(0))
    limits = [0.2, 0.5, 0.9][:channels]
    found = predict_ids(logits, (20, 30), False, multi_label=multi_label, thresholds=limits)
    probability = whole(logits, (20, 30), False).sigmoid()
    expected = probability > torch.tensor(limits)[:, None, None]
    assert torch.equal(found.bool(), expected if multi_label else expected[:, 0])


def test_strips_are_the_upsampled_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segtrain.engine.class_ids._VALUES", 2 * 3 * 24 * 5)
    logits = torch.randn(2, 3, 7, 6)
    strips = [(rows, strip.clone()) for rows, strip in strips_of(logits, (28, 24), True)]
    assert [rows.stop for rows, _ in strips] == [5, 10, 15, 20, 25, 28]
    joined = torch.cat([strip for _, strip in strips], 2)
    torch.testing.assert_close(joined.double(), whole(logits, (28, 24), True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("rows", [(0, 9), (13, 40), (70, 83)])
@pytest.mark.parametrize("noisy", [False, True])
def test_of_some_rows(rows: tuple[int, int], align_corners: bool, noisy: bool) -> None:
    logits = torch.randn(2, 4, 21, 9) if noisy else smooth(4, (21, 9))
    axis = linear_axis(21, 83, align_corners)
    first, last = int(axis.low[rows[0]]), int(axis.high[rows[1] - 1])
    part, held = axis.part(*rows, offset=first), logits[:, :, first : last + 1]
    size = (83, 30)
    upsampled = whole(logits, size, align_corners)[:, :, slice(*rows)]
    ids = predict_ids(held, size, align_corners, part=part)
    assert is_largest(ids, upsampled)
    strips = [strip.clone() for _, strip in strips_of(held, size, align_corners, part)]
    torch.testing.assert_close(torch.cat(strips, 2).double(), upsampled, atol=1e-5, rtol=0)
    labels = predict_ids(held, size, align_corners, part=part, multi_label=True)
    assert torch.equal(labels.bool(), upsampled > 0)
