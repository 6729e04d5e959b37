"""The graph that is exported: normalisation, model, upsampling and class ids in one module."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from segtrain.errors import ConfigError, describe_error
from segtrain.export.same_padding import exact_same_padding
from segtrain.metrics.thresholds import limits_of
from segtrain.models import Segmentor

INPUT = "images"
AXES = {0: "batch", 2: "height", 3: "width"}
"""The axes of the input that are dynamic, with their names."""
_MOST_UINT8 = 256


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """What is part of the graph, beside the model.

    Args:
        normalize: The input is pixels from 0 to 1; mean and deviation are part of the graph.
        upsample: Logits have the height and width of the input.
        argmax: The output is class ids; requires `upsample`.

    Raises:
        ConfigError: When `argmax` is set without `upsample`.
    """

    normalize: bool = True
    upsample: bool = True
    argmax: bool = True

    def __post_init__(self) -> None:
        if self.argmax and not self.upsample:
            raise ConfigError(
                "argmax=true needs upsample=true, because ids cannot be upsampled smoothly; add"
                " argmax=false to export the logits as the model computes them"
            )

    @property
    def output(self) -> str:
        """The name of the output."""
        return "ids" if self.argmax else "logits"

    def with_logits(self) -> GraphOptions:
        """Return the options of the same graph before the class ids."""
        return replace(self, argmax=False)


class Normalization(NamedTuple):
    """Mean and standard deviation of each channel, for pixels from 0 to 1."""

    mean: Sequence[float]
    std: Sequence[float]


def upsample(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Upsample logits ``(N, C, h, w)`` to ``(N, C, H, W)``, if they are smaller."""
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


class Graph(nn.Module):
    """A trained model as one function of an image, for another runtime.

    It computes in float32, whatever the precision of the training, and has one output: auxiliary
    heads are left out.

    Args:
        model: The trained model, in eval mode; its output ``out`` is used.
        normalization: Mean and standard deviation of each channel.
        options: What is part of the graph.
        multi_label: Whether a pixel may have several classes.
        thresholds: One probability per logit, for one logit and multi-label data; None: one half.

    Shape:
        - images: ``(N, C, H, W)``, float32: pixels from 0 to 1, or normalised ones without
          `normalize`.
        - output: with `argmax` ids ``(N, H, W)``, uint8, or int32 for more than 256 ids; for
          multi-label data ``(N, K, H, W)``, uint8, 0 or 1. Without it logits ``(N, K, H, W)``,
          float32, or ``(N, K, h, w)`` without `upsample`.
    """

    def __init__(
        self,
        model: Segmentor,
        normalization: Normalization,
        options: GraphOptions,
        *,
        multi_label: bool = False,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.thresholds = thresholds
        limits = limits_of(thresholds or [0.5] * model.num_classes)
        self.register_buffer("limits", limits.reshape(-1, 1, 1))
        self.model = model.float().to(memory_format=torch.contiguous_format)
        self.options = options
        self.multi_label = multi_label
        for name, values in normalization._asdict().items():
            self.register_buffer(name, torch.tensor(values).float().reshape(-1, 1, 1))
        self.eval()

    mean: Tensor
    std: Tensor
    limits: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return ids or logits; see the class for shapes."""
        given = (images - self.mean) / self.std if self.options.normalize else images
        logits: Tensor = self.model(given)["out"]
        if self.options.upsample:
            size = (images.shape[-2], images.shape[-1])
            logits = upsample(logits, size, self.model.align_corners)
        return self._ids(logits) if self.options.argmax else logits

    def _ids(self, logits: Tensor) -> Tensor:
        if self.multi_label:
            return (logits > self.limits).to(torch.uint8)
        classes = logits.shape[1]
        found = logits[:, 0] > self.limits[0] if classes == 1 else logits.argmax(1)
        return found.to(torch.uint8 if classes <= _MOST_UINT8 else torch.int32)


def trace(graph: Graph, size: tuple[int, int], *, dynamic: bool = True) -> ExportedProgram:
    """Trace a graph with ``torch.export``.

    Args:
        graph: The graph.
        size: Height and width of the images. With `dynamic` they are only an example.
        dynamic: Whether batch, height and width may vary; otherwise the batch is one image.

    Raises:
        ConfigError: When the model cannot be traced.
    """
    height, width = size
    width += 32 * (dynamic and height == width)  # equal sizes would be taken for one size
    example = torch.zeros(2 if dynamic else 1, graph.model.in_channels, height, width)
    shapes = {INPUT: dict.fromkeys(AXES, Dim.DYNAMIC)} if dynamic else None
    try:
        with exact_same_padding(), warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            return torch.export.export(graph, (example,), dynamic_shapes=shapes)
    except Exception as error:  # torch and the layers of a model raise their own kinds
        advice = "; a fixed size may work: dynamic=false size=[HEIGHT,WIDTH]" if dynamic else ""
        raise ConfigError(
            f"{graph.model.label} cannot be traced by torch.export"
            f"{' with dynamic sizes' if dynamic else ''}: {describe_error(error)}{advice}"
        ) from error
