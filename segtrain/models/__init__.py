"""Models: modules that map images to a dict of logits.

Importing the package registers every built-in model, so `MODELS.names()` is complete.
"""

from segtrain.models import encoder_decoder as _encoder_decoder  # noqa: F401  (registers its name)
from segtrain.models import hrnet as _hrnet  # noqa: F401
from segtrain.models import smp as _smp  # noqa: F401
from segtrain.models import torchvision as _torchvision  # noqa: F401
from segtrain.models.backbones import BACKBONES, Backbone
from segtrain.models.heads import HEADS, Head
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor

__all__ = ["BACKBONES", "HEADS", "MODELS", "Backbone", "Head", "Segmentor"]
