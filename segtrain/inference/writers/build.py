"""Build the writers of the outputs that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from segtrain.data import LabelContract
from segtrain.data.labels.inverse import RawValues, raw_values
from segtrain.inference.writers.base import Writer
from segtrain.inference.writers.coco import CocoFile
from segtrain.inference.writers.geojson import GeoJsonFiles
from segtrain.inference.writers.layers import LayerWriter
from segtrain.inference.writers.masks import (
    MaskFormat,
    color_layer,
    id_layers,
    label_layers,
    overlay_layer,
)
from segtrain.inference.writers.region_writer import RegionFiles, RegionWriter
from segtrain.inference.writers.scores import (
    NumpyProbabilities,
    probability_layer,
    uncertainty_layers,
)
from segtrain.inference.writers.video import OverlayWriter
from segtrain.schema.sections import Output
from segtrain.terminal import logger

OUTPUTS: tuple[str, ...] = get_args(Output)
"""The kinds of files that a prediction can write."""
_REGIONS: dict[str, Callable[[Path, LabelContract], RegionFiles]] = {
    "geojson": GeoJsonFiles,
    "coco": CocoFile,
}
_MOST_SHOWN = 3
_NO_AND_YES = ("no", "yes")


def build_writers(
    outputs: Sequence[str],
    output: Path,
    masks: MaskFormat,
    *,
    label_map: Any = None,
    probabilities_format: str = "float16",
    min_area: int = 1,
    opacity: float = 0.5,
) -> list[Writer]:
    """Build a writer for each output; nothing is written yet.

    Args:
        outputs: Names of :data:`OUTPUTS`.
        output: The folder to write to.
        masks: The values of class ids in files.
        label_map: `dataset.label_map` of the training.
        probabilities_format: ``float16`` or ``uint8``.
        min_area: The smallest region of `geojson` and `coco`, in pixels.
        opacity: Of the colours in overlays.

    Raises:
        CheckpointError: When a class has no original label value.
    """
    labels = masks.labels
    found: list[Writer] = []
    for name in dict.fromkeys(outputs):
        if name == "ids":
            found.append(LayerWriter(output, id_layers(masks)))
        elif name == "color":
            found.append(LayerWriter(output, [color_layer(masks)]))
        elif name == "overlay":
            found.append(OverlayWriter(output, overlay_layer(labels, opacity)))
        elif name == "labels":
            found.append(LayerWriter(output, label_layers(masks, _raws(labels, label_map))))
        elif name not in _REGIONS:
            found.append(_scores(name, output, labels, probabilities_format))
    files = [kind(output, labels) for name, kind in _REGIONS.items() if name in outputs]
    return [*found, RegionWriter(labels, min_area, files)] if files else found


def _scores(name: str, output: Path, labels: LabelContract, form: str) -> Writer:
    if name == "uncertainty":
        layers = uncertainty_layers(multi_label=labels.multi_label)
    elif form == "float16":
        return NumpyProbabilities(output, labels.num_ids)
    else:
        layers = [probability_layer(labels.num_ids)]
    return LayerWriter(output, layers, needs_probabilities=True)


def _raws(labels: LabelContract, label_map: Any) -> RawValues:
    names = _NO_AND_YES if labels.multi_label else labels.names
    raws = raw_values(label_map, labels.ignore_label, tuple(names))
    if raws.shared:
        parts = [
            f"{names[class_id]} has {values[0]} for {', '.join(map(str, values[1:4]))}"
            + (", ..." if len(values) > _MOST_SHOWN + 1 else "")
            for class_id, values in list(raws.shared.items())[:_MOST_SHOWN]
        ]
        more = ", ..." if len(raws.shared) > _MOST_SHOWN else ""
        logger.info(
            "labels: where dataset.label_map has several values for a class, the smallest is"
            " written: %s%s",
            *("; ".join(parts), more),
        )
    return raws


def written_folders(output: Path) -> list[Path]:
    """Return the folders that a prediction may have written."""
    return [output / name for name in OUTPUTS if name != "coco"]
