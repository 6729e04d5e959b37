"""Backbones: modules that map images to features at several strides.

Importing the package registers the families of timm and torchvision without importing either
library.
"""

from segtrain.models.backbones import timm as _timm  # noqa: F401  (registers its family)
from segtrain.models.backbones import torchvision as _torchvision  # noqa: F401
from segtrain.models.backbones.base import Backbone
from segtrain.models.backbones.registry import BACKBONES

__all__ = ["BACKBONES", "Backbone"]
