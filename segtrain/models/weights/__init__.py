"""Weights that a model starts from: files, ImageNet by name, the Hugging Face hub.

``sources`` finds the file, ``files`` reads it, ``formats`` recognises it, ``names`` renames,
``plan`` decides, ``loading`` loads, ``problems`` explains and ``report`` reports.
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

__all__ = [
    "LoadReport",
    "WeightFile",
    "Weights",
    "WeightsError",
    "check_weight_keys",
    "list_of",
    "load_weights",
    "open_weights",
    "recognise",
]
