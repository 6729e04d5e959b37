"""The command ``segtrain predict``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from segtrain.data.datasets.found_files import (
    IMAGE_SUFFIXES,
    FoundFiles,
    find_files,
    list_endings,
)
from segtrain.data.datasets.pairing import Pairing, pair_valid_files
from segtrain.data.io.writer import LARGEST_PALETTE_ID
from segtrain.errors import DataError, NoFilesError
from segtrain.inference import Predictor
from segtrain.inference.mask_files import MaskFiles
from segtrain.schema.sections import PredictConfig
from segtrain.terminal import logger, progress

_PROBED = 5  # images whose values are compared with those of the training


def predict(config: PredictConfig) -> list[Path]:
    """Write class ids, coloured masks and overlays of images to ``ids/``, ``color/``, ``overlay/``.

    Pixels that do not count by `valid` get the ignore label in ``ids/``, are black in ``color/``
    and stay as they are in ``overlay/``. The files are those of
    :class:`~segtrain.inference.mask_files.MaskFiles`.

    Returns:
        The paths of the images.

    Raises:
        DataError: If there are no images, two of them would be written to the same file, or one has
            no valid file.
        CheckpointError: If the checkpoint cannot be used, or has more classes than a file can hold.
    """
    images = _images(Path(config.input))
    valid_files = {} if config.valid is None else _valid_files(config.valid, images)
    predictor = Predictor.from_checkpoint(config.checkpoint, device=config.device, size=config.size)
    _warn_of_other_values(predictor, images)
    output = Path(config.output)
    masks = MaskFiles(output, predictor.labels, with_ignored=bool(valid_files))
    masks.create_folders()
    (output / "overlay").mkdir(exist_ok=True)
    with progress("predict", len(images)) as bar:
        for path in images:
            pixels = predictor.read(path)
            valid = None
            if path in valid_files:
                valid = predictor.read_valid(valid_files[path], path, pixels.shape)
            ids = predictor(pixels, valid)
            masks.write(path.stem, ids)
            overlay = Image.fromarray(predictor.overlay(pixels, ids))
            overlay.save(output / "overlay" / f"{path.stem}.png")
            bar.advance()
    if masks.largest > LARGEST_PALETTE_ID:
        logger.info(
            "ids are files of 16 bits and color are RGB files, because ids run up to %d and 8 bits"
            " hold ids up to %d",
            *(masks.largest, LARGEST_PALETTE_ID),
        )
    logger.info("%d images predicted, written to %s/{ids,color,overlay}", len(images), output)
    return images


def _warn_of_other_values(predictor: Predictor, images: list[Path]) -> None:
    """Warn of files that hold other values than those of the training, such as 16 bits."""
    for path in images[:: max(len(images) // _PROBED, 1)][:_PROBED]:
        found = predictor.other_values(path)
        if found is not None:
            logger.warning(
                "%s holds %s, so predictions may mean nothing: convert the images", path, found
            )
            return


def _valid_files(given: str, images: Sequence[Path]) -> dict[Path, Path]:
    """Return the valid file of each image."""
    if len(images) == 1 and Path(given).is_file():
        return {images[0]: Path(given)}
    try:
        found = find_files(Path(), given, "valid")
    except NoFilesError:
        raise DataError(
            f"valid={given}: this directory or glob has no image files; give one whose files have"
            " the names of the images"
        ) from None
    stems = FoundFiles(images[0].parent, [{path: path.stem for path in images}])
    pairs = pair_valid_files(stems, found, "valid", Pairing(None), set(images))
    if pairs.error is not None:
        raise pairs.error
    return {image: file for image, file, _ in pairs.triples}


def _images(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"input={source}: this image or folder does not exist")
    files = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    others = Counter(path.suffix.lower() for path in files if path not in found and path.is_file())
    held = list_endings(others) if others else ""
    if not found:
        raise DataError(
            f"input={source}: the folder has no image{f', but {held}' if held else ''}; supported"
            f" endings are {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if held:
        logger.warning("input=%s: files that are no images are passed over: %s", source, held)
    stems = [path.stem for path in found]
    same_stem = [path.name for path in found if stems.count(path.stem) > 1]
    if same_stem:
        raise DataError(
            f"input={source}: {' and '.join(same_stem[:2])} would be written to the same file;"
            " rename one"
        )
    return found
