"""A trained model put to use."""

from segtrain.inference.predictor import Predictor

__all__ = ["Predictor"]
