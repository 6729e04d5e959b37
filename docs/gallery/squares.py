"""Curves of losses of many pixels, for a predicted square that slides over the true one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from segtrain.losses import LOSSES, Loss

from .catalogue import Entry, build
from .figures import BLUE, GREY, LIGHT, ORANGE, RED, REFERENCE, evaluate, panels, variants

SIDE = 24
SHIFTS = range(SIDE, -1, -1)
OVERLAP = np.array([1 - shift / SIDE for shift in SHIFTS])
TERM_COLOURS = (LIGHT, ORANGE, RED, GREY, "#5b8c5a", "#8e6bb0")


@dataclasses.dataclass(frozen=True)
class Scene:
    """A target ``(1, H, W)`` with a square, and the pixels of the predicted one, ``(H, W)``."""

    target: Tensor
    predicted: Tensor
    confidence: float = 0.9
    uneven: bool = (
        False  # a little more confident to the right and below, so no two pixels are equal
    )

    @classmethod
    def shifted(
        cls, shift: int, side: int = SIDE, size: tuple[int, int] = (32, 56), sure: float = 0.9
    ) -> Scene:
        """Place the predicted square `shift` pixels to the right of the true one."""
        target = torch.zeros(1, *size, dtype=torch.long)
        predicted = torch.zeros(size, dtype=torch.bool)
        start = (size[0] - side) // 2
        rows = slice(start, start + side)
        target[:, rows, rows] = 1
        predicted[rows, start + shift : start + shift + side] = True
        return cls(target, predicted, sure)

    def logits(self, num_classes: int) -> Tensor:
        """Return logits of `confidence` inside the predicted square, and of the rest outside."""
        logit = math.log(self.confidence / (1 - self.confidence))
        signed = torch.where(self.predicted, logit, -logit).double()
        if self.uneven:
            rows, columns = (torch.linspace(0, 1, length) for length in signed.shape)
            signed = signed * (1 + 0.002 * columns + 0.001 * rows[:, None])
        if num_classes == 1:
            return signed[None, None]
        return torch.stack([-signed, signed])[None] / 2

    def evaluate(self, loss: Loss) -> tuple[float, Tensor]:
        """Compute the value and its gradient ``(H, W)`` with respect to the square's logit."""
        value, gradient = evaluate(loss, self.logits(loss.num_classes), self.target)
        return value, gradient[0, -1]


def region(entry: Entry) -> None:
    """Plot the value and the push on single pixels against the overlap."""
    values, pushes = panels(f"{entry.name}: value", "push on one pixel")
    values.plot(OVERLAP, 1 - _iou_of_overlap(OVERLAP), label="1 - IoU", **REFERENCE)
    for loss, label, colour in variants(entry, **entry.picture_parameters):
        values.plot(OVERLAP, _slide(loss), color=colour, label=label)
    missed, _ = _pushes(LOSSES.build("cross_entropy", num_classes=2))
    pushes.plot(OVERLAP, missed, label="cross entropy, both", **REFERENCE)
    missed, alarm = _pushes(loss)  # of the default, the last
    pushes.plot(OVERLAP, missed, color=ORANGE, label="missed pixel")
    pushes.plot(OVERLAP, alarm, color=RED, linestyle="--", label="false alarm")
    pushes.axhline(0, color="black", linewidth=0.6)
    for axes in (values, pushes):
        _overlap_axis(axes)
        axes.legend()


def _slide(loss: Loss) -> list[float]:
    return [Scene.shifted(shift).evaluate(loss)[0] for shift in SHIFTS]


def _pushes(loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """Return the push of missed pixels and false alarms towards their class, times the pixels."""
    missed, alarm = [], []
    for shift in SHIFTS:
        scene = Scene.shifted(shift)
        _, gradient = scene.evaluate(loss)
        true = scene.target[0] == 1
        missed.append(_mean(-gradient[true & ~scene.predicted]) * true.numel())
        alarm.append(_mean(gradient[scene.predicted & ~true]) * true.numel())
    return np.array(missed), np.array(alarm)


def _mean(values: Tensor) -> float:
    return values.mean().item() if values.numel() else float("nan")


def _overlap_axis(axes: Axes) -> None:
    axes.set(xlabel="share of the square that is found", xlim=(-0.03, 1.03))
    top = axes.secondary_xaxis("top", functions=(_iou_of_overlap, _overlap_of_iou))
    top.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    top.set_xlabel("IoU")
    top.spines["top"].set_visible(True)


def _iou_of_overlap(share: np.ndarray) -> np.ndarray:
    return share / np.maximum(2 - share, 1e-9)


def _overlap_of_iou(iou: np.ndarray) -> np.ndarray:
    return 2 * iou / np.maximum(1 + iou, 1e-9)


def whole_map(entry: Entry) -> None:
    """Plot the value against the distance, and the gradient of every pixel at half the overlap."""
    loss, side, shifts = build(entry, **entry.picture_parameters), 16, range(49)
    sure = 0.99 if entry.family == "map" else 0.9
    scenes = [Scene.shifted(shift, side, (40, 88), sure) for shift in shifts]
    values, picture = panels(f"{entry.name}: value", "gradient, half the square missed")
    label, spec = "1 - soft IoU", {"name": "jaccard", "classes": [1]}
    if entry.family == "pixel":
        label, spec = "cross entropy", {"name": "cross_entropy"}
    reference = LOSSES.build(spec, num_classes=2)
    own = [scene.evaluate(loss)[0] for scene in scenes]
    other = np.array([scene.evaluate(reference)[0] for scene in scenes])
    scaled = np.interp(other, [min(other), max(other)], [min(own), max(own)])
    values.plot(shifts, scaled, label=f"{label}, scaled", **REFERENCE)
    values.plot(shifts, own, color=BLUE, label=entry.name)
    values.axvline(side, color="black", linewidth=0.6, linestyle=":")
    values.set_xlabel("pixels that the square is off (dotted: no overlap)")
    values.legend()
    half = Scene.shifted(side // 2, side, (40, 56), sure)
    _gradient_map(picture, loss, dataclasses.replace(half, uneven=True))


def _gradient_map(axes: Axes, loss: Loss, scene: Scene) -> None:
    _, gradient = scene.evaluate(loss)
    largest = gradient.abs().max().item() or 1.0
    axes.imshow(gradient.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
    axes.contour(scene.target[0].numpy(), [0.5], colors="black", linewidths=1.2)
    axes.contour(scene.predicted.numpy(), [0.5], colors="black", linewidths=1.2, linestyles=":")
    axes.set(xticks=[], yticks=[], xlabel="solid: true, dotted: predicted")
    axes.grid(visible=False)


def bar(entry: Entry) -> None:
    """Plot the value against the share of a bar that is missed, at a gap and at its sides."""
    loss = build(entry, **entry.picture_parameters)
    dice = LOSSES.build({"name": "dice", "classes": [1]}, num_classes=2)
    values, picture = panels(f"{entry.name}: value", "gradient, a gap of 16 pixels")
    gaps = range(0, 65, 4)
    cut = [_bar(gap=gap) for gap in gaps]
    thin = [_bar(thinner=rows) for rows in range(5)]
    share = [gap / 64 for gap in gaps]
    values.plot(share, [scene.evaluate(dice)[0] for scene in cut], label="dice", **REFERENCE)
    values.plot(share, [scene.evaluate(loss)[0] for scene in cut], color=BLUE, label="cut by a gap")
    thinned = [scene.evaluate(loss)[0] for scene in thin]
    shares = [2 * rows / 9 for rows in range(5)]
    values.plot(shares, thinned, color=ORANGE, linestyle="--", marker=".", label="too thin")
    values.set_xlabel("share of the bar that is missed")
    values.legend()
    _gradient_map(picture, loss, _bar(gap=16))


def _bar(gap: int = 0, thinner: int = 0) -> Scene:
    target = torch.zeros(1, 40, 88, dtype=torch.long)
    target[:, 16:25, 12:76] = 1
    predicted = torch.zeros(40, 88, dtype=torch.bool)
    predicted[16 + thinner : 25 - thinner, 12:76] = True
    predicted[:, 44 - gap // 2 : 44 + gap // 2] = False
    return Scene(target, predicted, 0.99)


def combination(entry: Entry) -> None:
    """Plot the terms and their total against the overlap, and the weights if they are learned."""
    loss = build(entry)
    if list(loss.parameters()):
        values, weights = panels(f"{entry.name}: value at first", "where the weights settle")
        _settled_weights(weights, entry, range(SIDE, -1, -2))
    else:
        _, values = plt.subplots(figsize=(4.4, 3.0), layout="constrained")
        values.set_title(f"{entry.name}: value")
    for (name, term), colour in zip(loss.terms().items(), TERM_COLOURS, strict=False):
        values.plot(OVERLAP, _slide(term), color=colour, label=name)
    values.plot(OVERLAP, _slide(loss), color=BLUE, label=entry.name)
    _overlap_axis(values)
    values.legend()


def _settled_weights(axes: Axes, entry: Entry, shifts: Iterable[int]) -> None:
    """Plot the learned weights to which training converges for a fixed prediction."""
    rows, overlap = [], []
    for shift in shifts:
        loss, scene = build(entry), Scene.shifted(shift)
        logits = scene.logits(loss.num_classes)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            loss(logits, scene.target).backward()
            optimizer.step()
        rows.append(loss.term_weights(logits).tolist())
        overlap.append(1 - shift / SIDE)
    for name, weight, colour in zip(
        loss.terms(), zip(*rows, strict=True), TERM_COLOURS, strict=False
    ):
        axes.plot(overlap, weight, color=colour, label=name)
    axes.set_ylim(0, None)
    _overlap_axis(axes)
    axes.legend()
