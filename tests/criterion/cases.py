"""Every registered loss and mining, small, for the tests of the criterion."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segtrain.criterion.criterion import Criterion
from segtrain.losses import LOSSES, MININGS, Loss, PixelLoss, RegionLoss

TERMS = {"terms": {"cross_entropy": {"mining": "ohem"}, "dice": {"per_image": True}}}
EVERY = {"sum": TERMS, "uncertainty": TERMS}


def build(name: str, mining: str | None = None, num_classes: int = 5, **params: Any) -> Loss:
    """A loss by name, with a mining that few pixels do not make trivial."""
    spec = {"name": name, **EVERY.get(name, {}), **params}
    if mining is not None:
        small = {"threshold": 0.3, "min_kept": 100}
        known = MININGS.schema(mining)
        spec["mining"] = {"name": mining, **{k: v for k, v in small.items() if k in known}}
    return LOSSES.build(spec, num_classes=num_classes, ignore_label=255)


PIXEL_LOSSES = [name for name in LOSSES.names() if isinstance(build(name), PixelLoss)]
REGION_LOSSES = [name for name in LOSSES.names() if isinstance(build(name), RegionLoss)]
CASES: list[tuple[str, str | None]] = [(name, None) for name in LOSSES.names()]
CASES += [(name, mining) for name in PIXEL_LOSSES for mining in MININGS.names() if mining != "none"]


def value_and_gradient(
    criterion: Criterion, outputs: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The value, and the gradient for the outputs."""
    leaf = outputs.clone().requires_grad_()
    total = criterion(leaf, target).total
    total.backward()
    assert leaf.grad is not None
    return total.detach(), leaf.grad
