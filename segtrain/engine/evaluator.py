"""Evaluation: a model on one split, counted in a confusion matrix that gives every score."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrain.data import EvalBatch, LabelContract, as_rgb, iterate
from segtrain.engine.device import autocast
from segtrain.engine.distributed import Processes
from segtrain.errors import NumericError
from segtrain.metrics import ConfusionMatrix, MultiLabelMatrix, Scores
from segtrain.terminal import progress


def predict_ids(
    logits: Tensor, size: tuple[int, int], align_corners: bool, *, multi_label: bool = False
) -> Tensor:
    """Predict the class of each pixel at `size`; logits are upsampled before they are compared.

    A single logit is compared with 0, a probability of one half. With `multi_label` every logit is.

    Shape:
        - logits: ``(N, C, h, w)``.
        - output: ``(N, H, W)``, int64; with `multi_label` ``(N, C, H, W)``, uint8, 0 or 1.
    """
    if logits.shape[-2:] != size:
        logits = F.interpolate(
            logits.float(), size=size, mode="bilinear", align_corners=align_corners
        )
    if multi_label:
        return (logits > 0).byte()
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).long()
    return logits.max(1).indices  # the same as argmax, and several times faster on a CPU


class Evaluator:
    """Scores a model on the validation split.

    Args:
        loader: A loader from :func:`segtrain.data.build_eval_loader`.
        labels: The label contract: number of classes, `ignore_label` and colours.
        processes: The processes that share the work.
        align_corners: How logits are upsampled to the size of the target.
        precision: Precision of the forward pass.
        channels_last: Whether the images are in that memory format.
        mean: Mean of the normalization, per channel, to draw the images.
        std: Standard deviation of the normalization, per channel, to draw the images.
        num_pictures: Number of images in :attr:`picture`.

    Attributes:
        picture: Image, target and prediction of the first images of the last evaluation, or None.
    """

    def __init__(
        self,
        loader: Any,
        *,
        labels: LabelContract,
        processes: Processes,
        align_corners: bool,
        precision: str = "fp32",
        channels_last: bool = False,
        mean: Sequence[float],
        std: Sequence[float],
        num_pictures: int = 0,
    ) -> None:
        self.loader = loader
        self.labels = labels
        self.processes = processes
        self.align_corners = align_corners
        self.precision = precision
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.mean = mean
        self.std = std
        self.num_pictures = num_pictures
        self.picture: Tensor | None = None

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Scores:
        """Return the scores of `model`, the same on every process; its training mode is restored.

        Raises:
            NumericError: When a logit is NaN or infinite, since its class would be a guess that
                looks like a result.
        """
        kind = MultiLabelMatrix if self.labels.multi_label else ConfusionMatrix
        matrix = kind(self.labels.num_ids, self.labels.ignore_label)
        finite = torch.ones((), dtype=torch.bool, device=self.processes.device)
        rows: list[Tensor] = []
        with _evaluation_mode(model):
            for batch in self._batches():
                target = batch["target"].to(self.processes.device, non_blocking=True)
                logits = self._logits(model, batch)
                finite = finite & torch.isfinite(logits).all()
                prediction = self._predict(logits, target)
                matrix.update(prediction, target)
                rows.extend(self._rows(batch, prediction, self.num_pictures - len(rows)))
        self._check_finite(finite)
        matrix.counts = self.processes.sum(matrix.matrix(self.processes.device))
        self.picture = _picture(rows)
        return matrix.scores()

    def _batches(self) -> Iterator[EvalBatch]:
        with progress("evaluate", len(self.loader), shown=self.processes.is_main) as bar:
            for batches in iterate(self.loader):
                yield from batches
                bar.advance()

    def _logits(self, model: nn.Module, batch: EvalBatch) -> Tensor:
        device = self.processes.device
        images = batch["images"].to(device, non_blocking=True, memory_format=self.memory_format)
        with autocast(device, self.precision):
            logits: Tensor = model(images)["out"]
        return logits

    def _predict(self, logits: Tensor, target: Tensor) -> Tensor:
        size = (target.shape[-2], target.shape[-1])
        return predict_ids(logits, size, self.align_corners, multi_label=self.labels.multi_label)

    def _check_finite(self, finite: Tensor) -> None:
        if self.processes.any(int(not finite)):
            raise NumericError(
                "the model's logits are NaN or infinite on this split; if training made them so,"
                " lower optimizer.lr or set trainer.clip_grad_norm=1"
            )

    def _rows(self, batch: EvalBatch, prediction: Tensor, most: int) -> Iterator[Tensor]:
        """Yield image, target and prediction of up to `most` images, ``(3, 3, H, W)`` each."""
        if most <= 0:
            return
        std, mean = (torch.tensor(values)[:, None, None] for values in (self.std, self.mean))
        samples = zip(batch["images"], batch["target"], prediction.cpu(), strict=True)
        for image, target, predicted in itertools.islice(samples, most):
            size = (target.shape[-2], target.shape[-1])
            shown = F.interpolate((image * std + mean)[None], size=size, mode="bilinear")[0]
            pixels = as_rgb(shown.clamp(0, 1).permute(1, 2, 0).numpy())
            colours = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
            yield torch.stack([colours, self._colour(target), self._colour(predicted)])

    def _colour(self, ids: Tensor) -> Tensor:
        shown = ids.permute(1, 2, 0) if self.labels.multi_label else ids
        colours = np.ascontiguousarray(self.labels.colorize(shown.numpy()))
        return torch.from_numpy(colours).permute(2, 0, 1).float() / 255


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _picture(rows: Sequence[Tensor]) -> Tensor | None:
    if not rows:
        return None
    from torchvision.utils import make_grid  # noqa: PLC0415  slow to import

    size = rows[0].shape[-2:]
    grid: Tensor = make_grid(
        torch.cat([F.interpolate(row, size=size, mode="nearest") for row in rows]), nrow=3
    )
    return grid
