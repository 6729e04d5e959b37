"""Evaluation: the scores of a model on one split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrain.criterion import Criterion
from segtrain.data import EvalBatch, Normalization, as_rgb, iterate
from segtrain.data.loading.workers import end_kept_workers
from segtrain.data.transforms.tensors import unit_range
from segtrain.engine.data_failure import shared_failure
from segtrain.engine.distributed import Processes
from segtrain.engine.results import results
from segtrain.engine.scoring import Scoring
from segtrain.engine.views import ModelViews
from segtrain.errors import DataError, NumericError
from segtrain.metrics import Evaluation, confusion_picture
from segtrain.metrics.thresholds import ThresholdCounts, ThresholdScores
from segtrain.precision import wide
from segtrain.terminal import progress


class Scored(NamedTuple):
    """The result of an evaluation.

    Attributes:
        evaluation: The scores.
        loss: The mean of the criterion over the images, weighted by their valid pixels; None
            without a criterion.
        pictures: Pictures ``(3, H, W)`` from 0 to 1 by name.
    """

    evaluation: Evaluation
    loss: float | None
    pictures: dict[str, Tensor]

    def results(self, *, split: str, **extra: Any) -> dict[str, Any]:
        """Return the scores for JSON, with the name of the split."""
        loss = {} if self.loss is None else {f"{split}_loss": self.loss}
        return results(self.evaluation, split=split, **loss, **extra)


class Evaluator:
    """Scores a model on one split.

    Args:
        loader: A loader from :func:`segtrain.data.build_eval_loader`.
        scoring: What is compared: the classes, their thresholds, and the metrics.
        processes: The processes that share the work.
        align_corners: How logits are upsampled to the size of the target.
        apply: Returns how a model is applied to images.
        normalization: What the images are normalised with, on the device.
        num_pictures: Number of images that are drawn with target and prediction; with 0, the
            confusion matrix is not drawn either.
    """

    def __init__(
        self,
        loader: Any,
        *,
        scoring: Scoring,
        processes: Processes,
        align_corners: bool,
        apply: Callable[[nn.Module], ModelViews],
        normalization: Normalization,
        num_pictures: int = 0,
    ) -> None:
        self.loader = loader
        self.scoring = scoring
        self.processes = processes
        self.align_corners = align_corners
        self.apply = apply
        self.normalization = normalization
        self.num_pictures = num_pictures
        self._failure: DataError | None = None

    def close(self) -> None:
        """End the worker processes, which wait for the next evaluation."""
        end_kept_workers(self.loader)

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        criterion: Criterion | None = None,
        between: Callable[[], object] = lambda: None,
    ) -> Scored:
        """Score `model`, with the same result on every process; its training mode is restored.

        Args:
            model: The model.
            criterion: Computes the loss of each image from all outputs of the model; None: no loss.
                With windows, several scales or flips there is none either, because the outputs
                beside ``out`` are not blended.
            between: Called between two batches, in every process the same number of times.

        Raises:
            DataError: When a sample cannot be read, in any process.
            NumericError: When a logit is NaN or infinite, since its class would be a guess that
                looks like a result.
        """
        scoring, collector = self.scoring, self.scoring.new_collector()
        finite = torch.ones((), dtype=torch.bool, device=self.processes.device)
        device = self.processes.device
        views = self.apply(model)
        loss = None
        if criterion is not None and views.views.is_plain:
            loss = _MeanLoss(criterion, device)
        rows: list[Tensor] = []
        with _evaluation_mode(model):
            for batch in self._batches(between):
                target = batch["target"].to(device, non_blocking=True)
                size = (target.shape[-2], target.shape[-1])
                if loss is None:
                    logits = views.logits(self._images(batch), size, self.align_corners)
                else:
                    outputs = views.outputs(self._images(batch))
                    loss.update(outputs, target, scoring.labels.ignore_label)
                    logits = views.whole(outputs, size, self.align_corners)
                finite = finite & logits.is_finite()
                prediction, target = scoring.prediction(logits), scoring.target(target)
                strips = partial(scoring.strips, logits)
                collector.update(prediction, target, batch["name"], strips)
                drawn = self._rows(batch["images"], target, prediction)
                rows.extend(itertools.islice(drawn, self.num_pictures - len(rows)))
        self._check(finite)
        collector.merge(self.processes.gather(collector.state()))
        evaluation = collector.result()
        value = None if loss is None else loss.value(self.processes)
        return Scored(evaluation, value, self._pictures(rows, evaluation))

    @torch.no_grad()
    def threshold_scores(self, model: nn.Module) -> ThresholdScores:
        """Score every threshold of every logit, with the same result on every process.

        The labels have one logit, or are multi-label.

        Raises:
            NumericError: When a logit is NaN or infinite.
        """
        labels, device, views = self.scoring.labels, self.processes.device, self.apply(model)
        counts = ThresholdCounts(labels.num_classes, device)
        finite = torch.ones((), dtype=torch.bool, device=device)
        with _evaluation_mode(model):
            for batch in self._batches():
                targets = batch["target"].to(device, non_blocking=True)
                size = (targets.shape[-2], targets.shape[-1])
                logits = views.logits(self._images(batch), size, self.align_corners)
                finite = finite & logits.is_finite()
                for index, target in enumerate(targets if labels.multi_label else targets[:, None]):
                    for rows, strip in logits.image(index).strips():
                        part = target[:, rows]
                        counts.update(strip[0], part, (part != labels.ignore_label).all(0))
        self._check(finite)
        counts.counts = self.processes.sum(counts.counts)
        return counts.scores()

    def _images(self, batch: EvalBatch) -> Tensor:
        """The images as the model takes them, on the device."""
        return self.normalization(batch["images"].to(self.processes.device, non_blocking=True))

    def _pictures(self, rows: Sequence[Tensor], evaluation: Evaluation) -> dict[str, Tensor]:
        if not rows:
            return {}
        pictures = {"input_target_prediction": _grid(rows)}
        if evaluation.confusion is not None:
            drawn = confusion_picture(evaluation.confusion, evaluation.class_names)
            pictures["confusion"] = drawn.float() / 255
        return pictures

    def _batches(self, between: Callable[[], object] = lambda: None) -> Iterator[EvalBatch]:
        """Yield the batches up to a sample that cannot be read; :meth:`_check` then raises."""
        self._failure = None
        most, done = self.processes.any(len(self.loader)), 0
        try:
            with (
                progress("evaluate", len(self.loader), shown=self.processes.is_main) as bar,
                closing(iterate(self.loader)) as stream,
            ):
                for batches in stream:
                    yield from batches
                    bar.advance()
                    between()
                    done += 1
        except DataError as error:
            self._failure = error
        for _ in range(most - done):
            between()

    def _check(self, finite: Tensor) -> None:
        failure = shared_failure(self.processes, self._failure)
        if failure is not None:
            raise failure
        if self.processes.any(int(not finite)):
            raise NumericError(
                "the model's logits are NaN or infinite on this split; if training made them so,"
                " lower optimizer.lr or set trainer.clip_grad_norm=1"
            )

    def _rows(self, images: Tensor, targets: Tensor, predictions: Tensor) -> Iterator[Tensor]:
        """Yield image, target and prediction of each image, ``(3, 3, H, W)``."""
        for image, target, predicted in zip(images, targets, predictions, strict=True):
            size = (target.shape[-2], target.shape[-1])
            shown = F.interpolate(unit_range(image)[None], size=size, mode="bilinear")[0]
            pixels = as_rgb(shown.clamp(0, 1).permute(1, 2, 0).numpy())
            colours = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
            ids = (self._colour(part.cpu()) for part in (target, predicted))
            yield torch.stack([colours, *ids])

    def _colour(self, ids: Tensor) -> Tensor:
        labels = self.scoring.scored
        shown = ids.permute(1, 2, 0) if labels.multi_label else ids
        colours = np.ascontiguousarray(labels.colorize(shown.numpy()))
        return torch.from_numpy(colours).permute(2, 0, 1).float() / 255


class _MeanLoss:
    """The mean of a criterion over images, weighted by their valid pixels."""

    def __init__(self, criterion: Criterion, device: torch.device) -> None:
        self.criterion = criterion
        self.sums = wide(torch.zeros(2, device=device))  # weighted losses, weights

    def update(self, outputs: dict[str, Tensor], target: Tensor, ignore_label: int) -> None:
        """Add the images of a batch one by one, so that the value is that of any batch size."""
        wanted = target.long() if target.dim() == 3 else target
        for index in range(len(target)):
            part = slice(index, index + 1)
            value = self.criterion(
                {name: logits[part] for name, logits in outputs.items()}, wanted[part]
            ).total
            valid = (wanted[part] != ignore_label).sum()
            self.sums += torch.stack([wide(value) * wide(valid), wide(valid)])

    def value(self, processes: Processes) -> float:
        """The mean over the images of all processes; NaN if there is no valid pixel."""
        total, weight = processes.sum(self.sums)
        return float(total / weight)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _grid(rows: Sequence[Tensor]) -> Tensor:
    from torchvision.utils import make_grid  # noqa: PLC0415  slow to import

    size = rows[0].shape[-2:]
    grid: Tensor = make_grid(
        torch.cat([F.interpolate(row, size=size, mode="nearest") for row in rows]), nrow=3
    )
    return grid
