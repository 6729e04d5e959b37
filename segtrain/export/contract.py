"""The JSON beside a model: what someone who has neither segtrain nor the checkpoint must know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segtrain.data import LabelContract
from segtrain.engine.checkpoint import State
from segtrain.export.base import Format
from segtrain.export.graph import INPUT, Graph
from segtrain.export.verify import Agreement
from segtrain.files import write_text
from segtrain.version import __version__


def describe(
    graph: Graph,
    written: Format,
    *,
    labels: LabelContract,
    size: tuple[int, int] | None,
    dynamic: bool,
) -> dict[str, Any]:
    """Return the contract of input, output and classes.

    Args:
        graph: The exported graph.
        written: Its format.
        labels: The label contract of the training.
        size: Height and width that images are resized to; None: they keep their size.
        dynamic: Whether batch, height and width may vary.
    """
    channels = graph.model.in_channels
    normalize = graph.options.normalize
    return {
        "format": written.name,
        "input": {
            "name": INPUT,
            "dtype": "float32",
            "layout": "NCHW",
            "shape": ["batch", channels, "height", "width"]
            if dynamic
            else [1, channels, *(size or ())],
            "channels": {3: "RGB", 1: "grey"}.get(channels, f"the {channels} of the training"),
            "range": [0.0, 1.0] if normalize else None,
            "mean": graph.mean.flatten().tolist(),
            "std": graph.std.flatten().tolist(),
            "normalization": "in the model" if normalize else "before the model",
            "resize_to": None if size is None else list(size),
            "multiple_of": 1,
        },
        "output": _output(graph, labels),
        "classes": list(labels.names),
        "palette": [list(colour) for colour in labels.colours],
        "ignore_label": labels.ignore_label,
        "multi_label": labels.multi_label,
        "settings": written.settings,
    }


def _output(graph: Graph, labels: LabelContract) -> dict[str, Any]:
    options, classes = graph.options, graph.model.num_classes
    if not options.argmax:
        layout, dtype, channels = "NCHW", "float32", classes
        decision = "logit > 0" if labels.multi_label or classes == 1 else "argmax over C"
    elif labels.multi_label:
        layout, dtype, channels = "NCHW", "uint8", classes
        decision = "1 where a pixel has the class"
    else:
        layout, dtype, channels = "NHW", "uint8" if classes <= 256 else "int32", None
        decision = "class id"
    return {
        "name": options.output,
        "dtype": dtype,
        "layout": layout,
        "channels": channels,
        "values": decision,
        "size": "that of the input" if options.upsample else "that of the model's logits",
        "align_corners": graph.model.align_corners,
    }


def provenance(
    written: Format, files: Sequence[Path], opset: int | None, state: State, path: Path
) -> dict[str, Any]:
    """Return where a file comes from: sizes in bytes, opset, checkpoint and versions."""
    metadata: Mapping[str, Any] = state["metadata"]
    return {
        "bytes": {file.name: file.stat().st_size for file in files},
        "opset": opset,
        "model": metadata["model"]["name"],
        "checkpoint": path.name,
        "step": state["step"],
        "trained_precision": metadata["precision"],
        "versions": {
            "segtrain": __version__,
            "torch": torch.__version__,
            written.runtime: written.version(),
        },
    }


def compared(agreement: Agreement, images: Sequence[str]) -> dict[str, Any]:
    """Return the agreement with the model, and on which images."""
    return {
        "agreement": {
            "labels": agreement.labels,
            "largest_logit_difference": agreement.logits,
            "pixels": agreement.pixels,
            "batches": [list(shape) for shape in agreement.shapes],
            "images": list(images),
        }
    }


def write_contract(path: Path, content: Mapping[str, Any]) -> None:
    """Write the contract as JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
