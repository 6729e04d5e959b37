"""A model against a split: one confusion matrix, from which every score follows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
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
    """The class of each pixel at `size`: logits are upsampled first, then compared.

    One logit is compared with 0, which a probability of one half is, and so is each of the logits
    of multi-label data.

    Shape:
        - logits: ``(N, C, h, w)``; output: ``(N, H, W)``, int64; ``(N, C, H, W)``, uint8, 0 or 1,
          with `multi_label`.
    """
    if logits.shape[-2:] != size:
        logits = F.interpolate(
            logits.float(), size=size, mode="bilinear", align_corners=align_corners
        )
    if multi_label:
        return (logits > 0).byte()
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).long()
    return logits.max(1).indices  # several times faster than argmax on a CPU, and the same


class Evaluator:
    """Scores a model on the validation split.

    Args:
        loader: As from :func:`segtrain.data.build_eval_loader`.
        labels: The label contract, for class count, ignored pixels and colours.
        processes: The processes that share the work.
        align_corners: How logits are upsampled to the size of the target.
        precision: Of the forward pass.
        mean: With which the images were normalised, to show them again.
        std: Likewise.
        num_pictures: How many images to keep for a picture.
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
        """The scores of `model`, the same on every process; the model's training mode is put back.

        Raises:
            NumericError: When a logit is NaN or infinite: its class would be a guess that looks
                like a result.
        """
        labels = self.labels
        kind = MultiLabelMatrix if labels.multi_label else ConfusionMatrix
        matrix = kind(labels.num_ids, labels.ignore_label)
        device = self.processes.device
        finite = torch.ones((), dtype=torch.bool, device=device)
        rows: list[Tensor] = []
        training = model.training
        model.eval()
        try:
            with progress("evaluate", len(self.loader), shown=self.processes.is_main) as bar:
                for groups in iterate(self.loader):
                    for batch in groups:
                        images = batch["images"].to(
                            device, non_blocking=True, memory_format=self.memory_format
                        )
                        target = batch["target"].to(device, non_blocking=True)
                        with autocast(device, self.precision):
                            logits = model(images)["out"]
                        finite = finite & torch.isfinite(logits).all()
                        prediction = predict_ids(
                            logits,
                            (target.shape[-2], target.shape[-1]),
                            self.align_corners,
                            multi_label=labels.multi_label,
                        )
                        matrix.update(prediction, target)
                        missing = self.num_pictures - len(rows)
                        if missing > 0:
                            rows.extend(self._rows(batch, prediction, missing))
                    bar.advance()
        finally:
            model.train(training)
        counts = self.processes.sum(matrix.matrix(device))
        if self.processes.any(int(not finite)):
            raise NumericError(
                "the model's logits are NaN or infinite on this split; if training made them so,"
                " lower optimizer.lr or set trainer.clip_grad_norm=1"
            )
        matrix.counts = counts
        self.picture = _picture(rows)
        return matrix.scores()

    def _rows(self, batch: EvalBatch, prediction: Tensor, most: int) -> Iterator[Tensor]:
        """Input, target and prediction of up to `most` images, side by side."""
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


def _picture(rows: Sequence[Tensor]) -> Tensor | None:
    if not rows:
        return None
    from torchvision.utils import make_grid  # noqa: PLC0415  it can fail, and the cli says why

    size = rows[0].shape[-2:]
    grid: Tensor = make_grid(
        torch.cat([F.interpolate(row, size=size, mode="nearest") for row in rows]), nrow=3
    )
    return grid
