"""The command ``segtrain predict``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from segtrain.data import write_mask, write_palette_mask
from segtrain.data.datasets.found_files import IMAGE_SUFFIXES
from segtrain.errors import DataError
from segtrain.inference import Predictor
from segtrain.schema.sections import PredictConfig
from segtrain.terminal import logger, progress


def predict(config: PredictConfig) -> list[Path]:
    """Write class ids, coloured masks and overlays of images to ``ids/``, ``color/``, ``overlay/``.

    Returns:
        The paths of the images.

    Raises:
        DataError: If there are no images, or two of them would be written to the same file.
    """
    images = _images(Path(config.input))
    predictor = Predictor.from_checkpoint(config.checkpoint, device=config.device, size=config.size)
    output = Path(config.output)
    for folder in ("ids", "color", "overlay"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    with progress("predict", len(images)) as bar:
        for path in images:
            pixels = predictor.read(path)
            ids = predictor(pixels)
            _write_ids(output, path.stem, ids, predictor)
            overlay = Image.fromarray(predictor.overlay(pixels, ids))
            overlay.save(output / "overlay" / f"{path.stem}.png")
            bar.advance()
    logger.info("%d images predicted, written to %s/{ids,color,overlay}", len(images), output)
    return images


def _write_ids(output: Path, stem: str, ids: NDArray[Any], predictor: Predictor) -> None:
    """Write the class ids of an image; for multi-label data, a mask of 0 and 1 per class."""
    labels = predictor.labels
    if not labels.multi_label:
        write_mask(output / "ids" / f"{stem}.png", ids)
        write_palette_mask(output / "color" / f"{stem}.png", ids, labels.colours)
        return
    for index, name in enumerate(labels.names):
        folder = output / "ids" / re.sub(r"[^\w\- ]", "_", name)
        folder.mkdir(exist_ok=True)
        write_mask(folder / f"{stem}.png", ids[..., index])
    Image.fromarray(predictor.colorize(ids)).save(output / "color" / f"{stem}.png")


def _images(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"input={source}: this image or folder does not exist")
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(
            f"input={source}: the folder has no image; supported endings are"
            f" {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    stems = [path.stem for path in found]
    same_stem = [path.name for path in found if stems.count(path.stem) > 1]
    if same_stem:
        raise DataError(
            f"input={source}: {' and '.join(same_stem[:2])} would be written to the same file;"
            " rename one"
        )
    return found
