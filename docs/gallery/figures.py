"""The style of the pictures, their files, and the value and gradient of a loss at a point."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from segtrain.losses import Loss

from .catalogue import Entry, build

torch.set_num_threads(1)  # the same sums on every machine, and faster for small tensors

BLUE, LIGHT, RED, ORANGE, GREY = "#1f5fa8", "#7fb0dc", "#c0392b", "#e08214", "#9a9a9a"
REFERENCE = {"color": "#b5b5b5", "linewidth": 3.2}  # wide enough to be visible under an equal curve
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
}


# The parameters of additional curves, next to the curve of the defaults.
VARIANTS: dict[str, list[dict[str, float]]] = {
    "cross_entropy": [{"label_smoothing": 0.1}],
    "focal": [{"gamma": 1.0}, {"gamma": 5.0}],
    "sigmoid_focal": [{"alpha": 0.75}],
    "quality_focal": [{"beta": 1.0}],
    "poly1": [{"epsilon": -1.0}, {"epsilon": 3.0}],
    "generalized_cross_entropy": [{"q": 0.3}, {"q": 1.0}],
    "tversky": [{"alpha": 0.5, "beta": 0.5}, {"alpha": 0.7, "beta": 0.3}],
    "focal_tversky": [{"gamma": 0.5}, {"gamma": 1.0}],
    "smooth_l1": [{"beta": 0.5}],
}


def variants(entry: Entry, **params: Any) -> Iterator[tuple[Loss, str, str]]:
    """Yield loss, label and colour of each curve of `entry`; the default comes last, on top."""
    others = VARIANTS.get(entry.name, [])
    for other, shade in zip(others, (LIGHT, ORANGE), strict=False):
        yield build(entry, **params, **other), _label(other), shade
    default = {key: entry.schema[key].default for key in (others[0] if others else {})}
    yield build(entry, **params), _label(default) or entry.name, BLUE


def _label(params: dict[str, float]) -> str:
    return ", ".join(f"{key} = {value:.3g}" for key, value in params.items())


def panels(left: str, right: str) -> tuple[Axes, Axes]:
    """Create two panels side by side, with titles."""
    _, (first, second) = plt.subplots(1, 2, figsize=(7.6, 3.0), layout="constrained")
    first.set_title(left)
    second.set_title(right)
    return first, second


def evaluate(loss: Loss, logits: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Compute the value and its gradient with respect to `logits`.

    Raises:
        ValueError: When one of them is not finite.
    """
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    if not bool(torch.isfinite(value)) or not bool(torch.isfinite(gradient).all()):
        raise ValueError(f"value {value.item()} or its gradient is not finite")
    return value.item(), gradient


def save(file: Path, colours: int = 64, dpi: int = 120) -> None:
    """Save the current figure as a PNG of few colours, which takes a third of the space."""
    buffer = io.BytesIO()
    plt.gcf().savefig(buffer, format="png", dpi=dpi)
    image = Image.open(buffer).convert("RGB")
    image.quantize(colours, kmeans=2, dither=Image.Dither.NONE).save(file, optimize=True)
    plt.close("all")
