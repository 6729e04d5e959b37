"""The command ``segtrain predict``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from segtrain.data.datasets.found_files import (
    IMAGE_SUFFIXES,
    FoundFiles,
    ending,
    find_files,
    list_endings,
    without_ending,
)
from segtrain.data.datasets.pairing import Pairing, pair_valid_files
from segtrain.data.datasets.slices import slices_of
from segtrain.data.io.nifti import VOLUME_ENDINGS
from segtrain.data.io.storage import volume_of
from segtrain.data.io.writer import LARGEST_PALETTE_ID
from segtrain.errors import DataError, NoFilesError
from segtrain.inference import Predictor
from segtrain.inference.mask_files import MaskFiles
from segtrain.schema.sections import PredictConfig
from segtrain.terminal import logger, progress

_SUFFIXES = IMAGE_SUFFIXES | {*VOLUME_ENDINGS}
_PROBED = 5  # images whose values are compared with those of the training


def predict(config: PredictConfig) -> list[Path]:
    """Write class ids, coloured masks and overlays of images to ``ids/``, ``color/``, ``overlay/``.

    Pixels that do not count by `valid` get the ignore label in ``ids/``, are black in ``color/``
    and stay as they are in ``overlay/``. The files are those of
    :class:`~segtrain.inference.mask_files.MaskFiles`. Each slice of a NIfTI volume is an image,
    written as ``VOLUME_SLICE.png``.

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
            masks.write(_stem(path), ids)
            overlay = Image.fromarray(predictor.overlay(pixels, ids))
            overlay.save(output / "overlay" / f"{_stem(path)}.png")
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
    stems = FoundFiles(images[0].parent, [{path: _stem(path) for path in images}])
    pairs = pair_valid_files(stems, found, "valid", Pairing(None), set(images))
    if pairs.error is not None:
        raise pairs.error
    return {image: file for image, file, _ in pairs.triples}


def _stem(image: Path) -> str:
    """Return the name of the files that are written; that of a slice starts with its volume."""
    volume = volume_of(image)
    return image.stem if volume is None else f"{without_ending(Path(volume.name))}_{image.stem}"


def _images(source: Path) -> list[Path]:
    if source.is_file():
        return slices_of(source) or [source]
    if not source.is_dir():
        raise DataError(f"input={source}: this image or folder does not exist")
    files = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    found = [path for path in files if ending(path) in _SUFFIXES]
    others = Counter(ending(path) for path in files if path not in found and path.is_file())
    held = list_endings(others) if others else ""
    if not found:
        raise DataError(
            f"input={source}: the folder has no image{f', but {held}' if held else ''}; supported"
            f" endings are {', '.join(sorted(_SUFFIXES))}"
        )
    if held:
        logger.warning("input=%s: files that are no images are passed over: %s", source, held)
    found = [part for path in found for part in slices_of(path) or [path]]
    times = Counter(map(_stem, found))
    same_stem = [str(path.relative_to(source)) for path in found if times[_stem(path)] > 1]
    if same_stem:
        raise DataError(
            f"input={source}: {' and '.join(same_stem[:2])} would be written to the same file;"
            " rename one"
        )
    return found
