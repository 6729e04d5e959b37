"""The comparison of a written file with the model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtrain.engine.class_ids import predict_ids
from segtrain.errors import ConfigError, NumericError, describe_error
from segtrain.export.base import Format
from segtrain.export.graph import Graph, upsample
from segtrain.terminal import progress

LEAST_AGREEMENT = 0.9999
"""The share of pixels whose label must be that of the model."""


@dataclass(frozen=True)
class Batch:
    """Images as the graph and as the model take them.

    Attributes:
        pixels: ``(N, C, H, W)``, float32, from 0 to 1.
        normalized: The same images, normalised as for the training.
    """

    pixels: Tensor
    normalized: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height and width."""
        return (len(self.pixels), *self.pixels.shape[-2:])


@dataclass(frozen=True)
class Agreement:
    """How far a file agrees with its model.

    Attributes:
        labels: The share of pixels (and classes, for multi-label data) with the model's label.
        logits: The largest absolute difference of two logits.
        pixels: The number of compared pixels.
        shapes: Number of images, height and width of each compared batch.
    """

    labels: float
    logits: float
    pixels: int
    shapes: Sequence[tuple[int, ...]]

    @property
    def is_enough(self) -> bool:
        """Whether the labels agree, and no logit is NaN or infinite."""
        return self.labels >= LEAST_AGREEMENT and math.isfinite(self.logits)

    def __str__(self) -> str:
        # Rounded down, so that a share below the limit is not shown as the limit.
        share = math.floor(self.labels * 1e6) / 1e4
        return (
            f"label agreement {share:.4f} %, largest logit difference {self.logits:.2g}, over"
            f" {self.pixels} pixels"
        )


def probes(images: Sequence[Batch], *, dynamic: bool) -> list[Batch]:
    """Return the batches to compare on.

    With `dynamic` these are the images, and two of them as one batch, cut to an odd height and
    width: a graph that is right only for the size of its example must not pass.
    """
    if not dynamic:
        return list(images)
    first, second = images[0], images[-1]
    height, width = (
        max(min(one.pixels.shape[axis] for one in (first, second)) * 3 // 4 // 2 * 2 - 1, 1)
        for axis in (-2, -1)
    )
    cut = Batch(
        *(
            torch.cat([one[..., :height, :width], other[..., -height:, -width:]])
            for one, other in (
                (first.pixels, second.pixels),
                (first.normalized, second.normalized),
            )
        )
    )
    return [*images, cut]


def verify(
    graph: Graph, written: Format, file: Path, logits_file: Path, batches: Sequence[Batch]
) -> Agreement:
    """Compare a file with the model, through the runtime of the file.

    Args:
        graph: The exported graph; its model is run in torch, on images that were normalised as for
            the training.
        written: The format of the files.
        file: The file that is compared.
        logits_file: The file whose logits are compared: `file`, or the same graph before the
            class ids.
        batches: The images.

    Raises:
        NumericError: When the model's own logits are NaN or infinite.
        ConfigError: When the runtime cannot run the file.
    """
    given = [
        (one.pixels if graph.options.normalize else one.normalized).contiguous().numpy()
        for one in batches
    ]
    sums = _Sums(graph)
    try:
        with progress("compare", len(batches)) as bar:
            for batch, found, logits in _results(written, file, logits_file, batches, given):
                sums.add(batch, found, logits)
                bar.advance()
    except NumericError:
        raise
    except Exception as error:  # each runtime raises its own kinds
        raise ConfigError(
            f"{written.runtime} cannot run the model on images of all sizes"
            f" ({describe_error(error)}); a fixed size may work: dynamic=false size=[HEIGHT,WIDTH]"
        ) from error
    return sums.agreement([one.shape for one in batches])


def _results(
    written: Format,
    file: Path,
    logits_file: Path,
    batches: Sequence[Batch],
    given: Sequence[NDArray[Any]],
) -> Iterable[tuple[Batch, NDArray[Any], NDArray[Any]]]:
    results = written.results(file, given)
    if logits_file == file:
        for batch, found in zip(batches, results, strict=True):
            yield batch, found, found
        return
    yield from zip(batches, results, written.results(logits_file, given), strict=True)


class _Sums:
    """Counts of equal labels, and the largest difference of logits."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.equal = self.labels = self.pixels = 0
        self.largest = 0.0

    @torch.no_grad()
    def add(self, batch: Batch, found: NDArray[Any], logits: NDArray[Any]) -> None:
        """Compare the results of a file for a batch with those of the model."""
        options, model = self.graph.options, self.graph.model
        expected = model(batch.normalized)["out"].float()
        if not torch.isfinite(expected).all():
            raise NumericError(
                "the model's own logits are NaN or infinite on these images, so there is nothing to"
                " compare; choose another checkpoint"
            )
        size = (batch.shape[1], batch.shape[2])
        if options.upsample:
            expected = upsample(expected, size, model.align_corners)
        largest = float(np.abs(expected.numpy() - logits).max())
        self.largest = max(self.largest, largest) if math.isfinite(largest) else math.inf
        wanted = self._ids(expected)
        ids = found if options.argmax else self._ids(torch.from_numpy(logits))
        if ids.shape != wanted.shape:
            raise RuntimeError(f"the output has the shape {ids.shape}, not {wanted.shape}")
        self.equal += int((ids == wanted).sum())
        self.labels += wanted.size
        self.pixels += expected.numel() // expected.shape[1]

    def _ids(self, logits: Tensor) -> NDArray[Any]:
        size = (logits.shape[-2], logits.shape[-1])
        found: NDArray[Any] = predict_ids(
            logits,
            size,
            self.graph.model.align_corners,
            multi_label=self.graph.multi_label,
            thresholds=self.graph.thresholds,
        ).numpy()
        return found

    def agreement(self, shapes: Sequence[tuple[int, ...]]) -> Agreement:
        """Return the result over all batches."""
        return Agreement(self.equal / self.labels, self.largest, self.pixels, shapes)
