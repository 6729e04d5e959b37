"""Curves of pixel losses, against the probability or the error of one pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from segtrain.losses import LOSSES

from .catalogue import Entry
from .figures import BLUE, REFERENCE, evaluate, panels, variants


def pixel(entry: Entry) -> None:
    """Plot value and gradient against the probability of the true class."""
    values, gradients = panels(f"{entry.name}: value", "gradient at the true class's logit")
    curves: list[tuple[Any, str, dict[str, Any]]] = [
        (loss, name, {"color": shade}) for loss, name, shade in variants(entry)
    ]
    if entry.name != "cross_entropy":
        curves.insert(0, (LOSSES.build("cross_entropy", num_classes=2), "cross entropy", REFERENCE))
    for loss, name, look in curves:
        probability, value, gradient = _along_probability(loss)
        values.plot(probability, value, label=name, **look)
        gradients.plot(probability, gradient, label=name, **look)
    for axes in (values, gradients):
        axes.set_xlabel("probability of the true class")
    values.set_ylim(None, _ceiling(values))
    gradients.axhline(0, color="black", linewidth=0.6)
    values.legend()


def _along_probability(loss: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = []
    target = torch.ones(1, 1, 1, dtype=torch.long)
    for logit in torch.linspace(-5, 5, 181, dtype=torch.float64):
        both = torch.stack([-logit, logit]) if loss.num_classes > 1 else logit[None]
        logits = both.reshape(1, -1, 1, 1)
        value, gradient = evaluate(loss, logits, target)
        probability = loss.target_probability(logits, target).item()
        rows.append((probability, value, gradient[0, -1].item()))
    table = np.array(rows)
    found: tuple[np.ndarray, np.ndarray, np.ndarray] = tuple(
        table[(table[:, 0] > 0.01) & (table[:, 0] < 0.99)].T
    )
    return found


def _ceiling(axes: Axes) -> float:
    """Return the upper limit of the axes, which cuts off values at probabilities below 0.02."""
    lines = [line.get_xydata() for line in axes.lines]
    return 1.05 * max(line[line[:, 0] >= 0.02, 1].max() for line in lines)


def regression(entry: Entry) -> None:
    """Plot value and gradient against the error of a predicted number."""
    values, gradients = panels(f"{entry.name}: value", "gradient")
    loss = LOSSES.build(entry.spec, num_classes=1)
    errors = np.linspace(-3, 3, 121)
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    results = [evaluate(loss, zero + error, zero) for error in errors]
    values.plot(errors, errors**2 / 2, label="half the square", **REFERENCE)
    gradients.plot(errors, errors, **REFERENCE)
    values.plot(errors, [value for value, _ in results], color=BLUE, label=entry.name)
    gradients.plot(errors, [gradient.item() for _, gradient in results], color=BLUE)
    for axes in (values, gradients):
        axes.set_xlabel("prediction minus target")
    values.legend()
