"""The confusion matrix of pixels and its scores, for use as a library."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segtrain.metrics.base import Counts
from segtrain.metrics.counting import confusion_of_images, counts_of
from segtrain.metrics.counts import Accuracy, IoU, MeanAccuracy
from segtrain.schema.arguments import check_ignore_label


@dataclass(frozen=True)
class Scores:
    """Scores of a confusion matrix; NaN where a score is undefined.

    Attributes:
        miou: Mean of the defined IoUs; NaN if no IoU is defined.
        pixel_accuracy: Share of the valid pixels with the right class.
        mean_accuracy: Mean, over the classes in the target, of the share of their pixels with the
            right class.
        iou: Intersection over union per class; NaN for a class in neither prediction nor target.
        pixels: Number of target pixels per class.
        valid: Number of valid pixels.
    """

    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    iou: list[float]
    pixels: list[int]
    valid: int


class ConfusionMatrix:
    r"""Counts of pairs (target class, predicted class) over the valid pixels.

    The counts stay on the device of the predictions.

    .. math:: \text{IoU}_c = \frac{M_{cc}}{\sum_j M_{cj} + \sum_i M_{ic} - M_{cc}}

    Args:
        num_classes: Number of classes C; 1 means one logit, with the ids 0 and 1.
        ignore_label: Target value of ignored pixels.

    Raises:
        ConfigError: When `ignore_label` is a class id.

    Example:
        >>> matrix = ConfusionMatrix(num_classes=3)
        >>> matrix.update(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 1]]))
        >>> matrix.scores().iou  # class 2 is in neither prediction nor target
        [0.5, 0.5, nan]
        >>> matrix.scores().miou
        0.5
    """

    def __init__(self, num_classes: int, ignore_label: int = 255) -> None:
        self.num_ids = max(num_classes, 2)
        self.num_classes = num_classes
        self.ignore_label = check_ignore_label(ignore_label, num_classes)
        self.counts: Tensor | None = None

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count a batch.

        Shape:
            - prediction: any shape, integer class ids.
            - target: the same shape, integer class ids or ``ignore_label``.

        Raises:
            TypeError: When a tensor does not hold integers.
            ValueError: When the shapes differ, or a value is not a class id.
        """
        _check_shapes(prediction, target)
        self._check_ids("prediction", prediction[target != self.ignore_label], "")
        self._check_ids("target", target, f" and ignore_label {self.ignore_label}")
        counts = confusion_of_images(
            prediction.reshape(1, -1), target.reshape(1, -1), self.num_ids, self.ignore_label
        )[0]
        self.counts = counts if self.counts is None else self.counts + counts

    def _check_ids(self, name: str, ids: Tensor, also: str) -> None:
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise TypeError(f"{name} must hold integers, got {ids.dtype}")
        outside = (ids < 0) | (ids >= self.num_ids)
        if also:
            outside &= ids != self.ignore_label
        if bool(outside.any()):
            raise ValueError(
                f"{name} holds {int(ids[outside][0])} at {int(outside.sum())} pixels; allowed are 0"
                f" to {self.num_ids - 1}{also}"
            )

    def matrix(self, device: torch.device | str = "cpu") -> Tensor:
        """The counts ``(C, C)``, int64: rows are the target, columns the prediction."""
        if self.counts is None:
            return torch.zeros(self.num_ids, self.num_ids, dtype=torch.int64, device=device)
        return self.counts.to(device)

    def scores(self) -> Scores:
        """Return the scores of all counted pixels."""
        counts = Counts.of(counts_of(self.matrix()[None])[0])
        iou = IoU().class_values(counts)
        return Scores(
            miou=float(iou.nanmean()),
            pixel_accuracy=float(Accuracy().value(counts)),
            mean_accuracy=float(MeanAccuracy().class_values(counts).nanmean()),
            iou=iou.tolist(),
            pixels=[int(count) for count in counts.target],
            valid=int(counts.valid),
        )


def _check_shapes(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction is {tuple(prediction.shape)} but target is {tuple(target.shape)}"
        )
