"""Models by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segtrain.models import BACKBONES, HEADS, MODELS, Segmentor


def list_models() -> list[str]:
    """The names that :func:`build_model` and ``model=`` take."""
    return MODELS.names()


def list_backbones() -> list[str]:
    """The names that ``model.backbone=`` takes, besides those of timm and torchvision."""
    return BACKBONES.names()


def list_heads() -> list[str]:
    """The names that ``model.head=`` takes."""
    return HEADS.names()


def build_model(name: str | Mapping[str, Any], *, num_classes: int, **params: Any) -> Segmentor:
    """A model by name.

    Args:
        name: A name, or a mapping with ``name`` and parameters.
        num_classes: Number of channels of every output.
        **params: Further parameters of the model, such as ``align_corners``.

    Raises:
        ConfigError: On an unknown name or parameter, or a value that does not fit.
    """
    spec = {"name": name, **params} if isinstance(name, str) else {**name, **params}
    return MODELS.build(spec, num_classes=num_classes)
