"""Heads: modules that map the features of a backbone to logits.

Importing the package registers every built-in head.
"""

from segtrain.models.heads import aspp as _aspp  # noqa: F401  (registers its name)
from segtrain.models.heads import fcn as _fcn  # noqa: F401
from segtrain.models.heads import hrnetv2 as _hrnetv2  # noqa: F401
from segtrain.models.heads import ocr as _ocr  # noqa: F401
from segtrain.models.heads import segformer as _segformer  # noqa: F401
from segtrain.models.heads import upernet as _upernet  # noqa: F401
from segtrain.models.heads.base import Head
from segtrain.models.heads.hrnetv2 import HRNetHead
from segtrain.models.heads.registry import HEADS

__all__ = ["HEADS", "HRNetHead", "Head"]
