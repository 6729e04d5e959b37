"""Build and list models by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segtrain.models import BACKBONES, HEADS, MODELS, Segmentor


def list_models() -> list[str]:
    """Names that :func:`build_model` and ``model=`` accept."""
    return MODELS.names()


def list_backbones() -> list[str]:
    """Names that ``model.backbone=`` accepts, in addition to those of timm and torchvision."""
    return BACKBONES.names()


def list_heads() -> list[str]:
    """Names that ``model.head=`` accepts."""
    return HEADS.names()


def build_model(name: str | Mapping[str, Any], *, num_classes: int, **params: Any) -> Segmentor:
    """Build a model by name.

    Args:
        name: A registered name, or a mapping with the key ``name`` and parameters.
        num_classes: Number of channels of every output that predicts the class ids.
        **params: Further parameters of the model, such as ``align_corners``, ``weights`` or
            ``adapter``.

    Raises:
        ConfigError: If the name or a parameter is unknown, or a value is not valid.
        CheckpointError: If the weights cannot be read or do not fit the model.
        ResourceError: If the weights have to be downloaded and cannot be.
    """
    spec = {"name": name, **params} if isinstance(name, str) else {**name, **params}
    return MODELS.build(spec, num_classes=num_classes)
