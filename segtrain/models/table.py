"""Cost of each model, for ``segtrain list models`` and the table in README.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from segtrain.errors import ConfigError, describe_error, one_line
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor

NUM_CLASSES = 19  # Cityscapes, for which most papers report their numbers


@dataclass(frozen=True)
class ModelRow:
    """Cost of one model.

    Attributes:
        name: The name that ``model=`` accepts.
        parameters: Number of parameters for `NUM_CLASSES` classes.
        macs: Multiply-adds of the convolutions and matrix products on one image of `size`.
        size: Height and width of the images in the paper.
        outputs: Names of the outputs.
        source: The paper or library.
    """

    name: str
    parameters: int
    macs: int
    size: tuple[int, int]
    outputs: tuple[str, ...]
    source: str

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `HEADINGS`."""
        height, width = self.size
        return (
            self.name,
            f"{self.parameters / 1e6:.2f}",
            f"{self.macs / 1e9:.1f}",
            f"{height} x {width}",
            ", ".join(self.outputs),
            self.source,
        )


HEADINGS = ("model", "parameters (M)", "GMACs", "at", "outputs", "source")


def model_specs(*folders: Path) -> dict[str, Any]:
    """All choices of ``model=`` with their specs: registered names and YAML files in `folders`.

    Raises:
        ConfigError: If a file is not valid YAML.
    """
    specs: dict[str, Any] = {name: name for name in MODELS.names()}
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            try:
                specs[file.stem] = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ConfigError(f"{file} is not valid YAML: {one_line(error)}") from None
    return dict(sorted(specs.items()))


def model_row(name: str, spec: str | Mapping[str, Any]) -> ModelRow:
    """Compute the row of the model that `spec` describes, on the meta device.

    Raises:
        ConfigError: If the model cannot be built, or its forward pass fails.

    Example:
        >>> row = model_row("hrnet_w18_small_v1", "hrnet_w18_small_v1")
        >>> row.cells()[:5]
        ('hrnet_w18_small_v1', '1.54', '33.4', '1024 x 2048', 'out')
    """
    model = _without_data(spec)
    outputs, macs = _count(model, name)
    return ModelRow(
        name=name,
        parameters=sum(weight.numel() for weight in model.parameters()),
        macs=macs,
        size=model.paper_size,
        outputs=tuple(outputs),
        source=model.source,
    )


def count_macs(model: nn.Module, images: Tensor) -> int:
    """Count the multiply-adds of convolutions and matrix products in a forward pass in eval mode.

    Example:
        >>> conv = nn.Conv2d(3, 4, kernel_size=3, padding=1)
        >>> count_macs(conv, torch.zeros(1, 3, 5, 6)) == 3 * 4 * 3 * 3 * 5 * 6
        True
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(images)
    return int(counter.get_total_flops()) // 2


def _without_data(spec: str | Mapping[str, Any]) -> Segmentor:
    try:
        with torch.device("meta"):
            return MODELS.build(spec, num_classes=NUM_CLASSES, load=False)
    except ConfigError:
        # A constructor may need real values. If the spec is wrong, the same error is raised again.
        return MODELS.build(spec, num_classes=NUM_CLASSES, load=False).to("meta")


def _count(model: Segmentor, name: str) -> tuple[dict[str, Tensor], int]:
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):  # not counted, yet slow on the meta device
            layer.forward = _identity  # type: ignore[method-assign, assignment]
    found: dict[str, Tensor] = {}
    model.register_forward_hook(lambda _model, _images, outputs: found.update(outputs))
    images = torch.zeros(1, model.in_channels, *model.paper_size, device="meta")
    try:
        macs = count_macs(model, images)
    except Exception as error:  # a custom model may need real values
        reason = describe_error(error)
        raise ConfigError(
            f"model {name!r} cannot run on the meta device to count its operations: {reason}"
        ) from error
    return found, macs


def _identity(features: Tensor) -> Tensor:
    return features
