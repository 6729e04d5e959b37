"""Trained models as files for other runtimes: ONNX, programs of ``torch.export``, OpenVINO."""

from segtrain.export.base import Format, Run
from segtrain.export.export import Exported, Trained, export_model
from segtrain.export.formats import FORMATS, format_of
from segtrain.export.graph import Graph, GraphOptions

__all__ = [
    "FORMATS",
    "Exported",
    "Format",
    "Graph",
    "GraphOptions",
    "Run",
    "Trained",
    "export_model",
    "format_of",
]
