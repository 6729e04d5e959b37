"""The closed set of models that a config chooses from by name."""

from __future__ import annotations

from segtrain.models.segmentor import Segmentor
from segtrain.registry import Registry

MODELS: Registry[Segmentor] = Registry("model")
