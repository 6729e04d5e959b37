"""Backbones: modules that map images to features at several strides.

Importing the package registers the built-in backbones, and the families of timm and torchvision
without importing either library.
"""

from segtrain.models.backbones import hrnet as _hrnet  # noqa: F401  (registers its names)
from segtrain.models.backbones import timm as _timm  # noqa: F401
from segtrain.models.backbones import torchvision as _torchvision  # noqa: F401
from segtrain.models.backbones.base import Backbone
from segtrain.models.backbones.registry import BACKBONES

__all__ = ["BACKBONES", "Backbone"]
