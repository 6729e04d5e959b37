"""Models: what turns images into a dict of logits.

Importing the package registers every model of our own, so `MODELS.names()` is complete.
"""

from segtrain.models import hrnet_segmentor as _hrnet_segmentor  # noqa: F401  (registers its names)
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor

__all__ = ["MODELS", "Segmentor"]
