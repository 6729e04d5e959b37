"""Initial weights of a model: from a file, ImageNet or the Hugging Face hub.

``sources`` finds the file, ``files`` reads it (``pickles`` names the packages that reading would
need), ``formats`` recognises its layout, ``prefixes`` finds the part that belongs to the model,
``names`` and ``order`` match its entries to the weights of the model, ``plan`` decides what happens
to every weight, ``refusal`` explains why weights do not fit, ``values`` refuses NaN and infinity,
and ``loading`` puts these steps together. The result is a :class:`LoadReport`.
"""

from segtrain.models.load_report import LoadReport, list_of
from segtrain.models.weights.formats import WeightFile, recognise
from segtrain.models.weights.loading import (
    Weights,
    WeightsError,
    check_weight_keys,
    load_weights,
    open_weights,
)
from segtrain.models.weights.values import check_values

__all__ = [
    "LoadReport",
    "WeightFile",
    "Weights",
    "WeightsError",
    "check_values",
    "check_weight_keys",
    "list_of",
    "load_weights",
    "open_weights",
    "recognise",
]
