"""The command ``segtrain predict``."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from segtrain.data.datasets.found_files import FoundFiles, find_files
from segtrain.data.datasets.pairing import Pairing, pair_valid_files
from segtrain.data.io.writer import LARGEST_PALETTE_ID
from segtrain.errors import (
    ConfigError,
    DataError,
    IncompleteError,
    NoFilesError,
    NumericError,
    ResourceError,
    exit_code_of,
    is_out_of_memory,
    one_line,
)
from segtrain.inference import Predictor
from segtrain.inference.files import FilePredictor, may_lack_data
from segtrain.inference.predictor import OVERLAY_OPACITY
from segtrain.inference.sources import Source, find_sources
from segtrain.inference.writers import build_writers, written_folders
from segtrain.inference.writers.masks import MaskFormat
from segtrain.schema.sections import PredictConfig
from segtrain.terminal import logger, progress

_MAX_NAMES = 3
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the next input would fail alike


def predict(config: PredictConfig) -> list[Path]:
    """Write class ids, coloured masks, overlays and more of images, volumes and videos.

    Pixels that do not count by `valid`, or have no data, get the ignore label in ``ids/``, are
    black in ``color/`` and stay as they are in ``overlay/``. An input that fails is reported, and
    the others are still predicted.

    Returns:
        The paths of the inputs.

    Raises:
        ConfigError: If `output` is a file.
        DataError: If there are no images, two of them would be written to the same file, or one has
            no valid file.
        CheckpointError: If the checkpoint cannot be used, or has more classes than a file can hold.
        IncompleteError: If some inputs failed; it has the exit code of the first one.
    """
    output = Path(config.output)
    if output.is_file():
        raise ConfigError(f"output={output} is a file; name a folder")
    sources = find_sources(config.input, written_folders(output))
    valid_files = {} if config.valid is None else _valid_files(config.valid, sources)
    predictor = Predictor.from_checkpoint(
        config.checkpoint, device=config.device, size=config.size, views=config.evaluation
    )
    with_ignored = bool(valid_files) or any(map(may_lack_data, sources))
    masks = MaskFormat(predictor.labels, with_ignored=with_ignored)
    writers = build_writers(
        config.outputs,
        output,
        masks,
        label_map=predictor.label_map,
        probabilities_format=config.probabilities_format,
        min_area=config.min_area,
        opacity=OVERLAY_OPACITY,
    )
    output.mkdir(parents=True, exist_ok=True)
    failures: list[tuple[Source, Exception]] = []
    with progress("predict", len(sources)) as bar:
        files = FilePredictor(predictor, writers, bar.show)
        try:
            for source in sources:
                try:
                    files(source, valid_files.get(source.path))
                except Exception as error:  # noqa: BLE001  what is not about the input is raised
                    failures.append((source, _failure(source, error)))
                    if len(sources) > 1:
                        logger.warning("%s", failures[-1][1])
                bar.advance("")
        finally:
            files.close()
    if masks.largest > LARGEST_PALETTE_ID:
        logger.info(
            "ids are files of 16 bits and color are RGB files, because ids run up to %d and 8 bits"
            " hold ids up to %d",
            *(masks.largest, LARGEST_PALETTE_ID),
        )
    names = ",".join(dict.fromkeys(config.outputs))
    logger.info("%d images predicted, written to %s/{%s}", files.num_images, output, names)
    _report(failures, len(sources))
    return [source.path for source in sources]


def _failure(source: Source, error: Exception) -> Exception:
    """Return the error of an input in words; an error that is not about the input is raised."""
    if isinstance(error, (DataError, NumericError, ResourceError)):
        return error
    if isinstance(error, OSError) and error.errno not in _OF_THE_DISK:
        return ResourceError(f"{source.path}: {one_line(error)}")
    if is_out_of_memory(error):
        return ResourceError(f"{source.path}: out of memory ({one_line(error, 80)})")
    raise error


def _report(failures: Sequence[tuple[Source, Exception]], total: int) -> None:
    """Raise an error that names the first inputs that failed, if any did."""
    if not failures:
        return
    first = failures[0][1]
    if total == 1:
        raise first
    named = ", ".join(str(source.path) for source, _ in failures[:_MAX_NAMES])
    more = ", ..." if len(failures) > _MAX_NAMES else ""
    reason = str(first) if len(failures) == 1 else f"{named}{more}; the warnings say why"
    raise IncompleteError(
        f"{len(failures)} of {total} inputs failed and {total - len(failures)} were predicted:"
        f" {reason}",
        exit_code_of(first),
    )


def _valid_files(given: str, sources: Sequence[Source]) -> dict[Path, Path]:
    """Return the valid file of each image."""
    images = {source.path: source.stem for source in sources if not source.is_video}
    if len(images) < len(sources):
        raise DataError(
            f"valid={given}: the frames of a video have no valid files; leave valid out"
        )
    if len(images) == 1 and Path(given).is_file():
        return {path: Path(given) for path in images}
    try:
        found = find_files(Path(), given, "valid")
    except NoFilesError:
        raise DataError(
            f"valid={given}: this directory or glob has no image files; give one whose files have"
            " the names of the images"
        ) from None
    stems = FoundFiles(next(iter(images)).parent, [images])
    pairs = pair_valid_files(stems, found, "valid", Pairing(None), set(images))
    if pairs.error is not None:
        raise pairs.error
    return {image: file for image, file, _ in pairs.triples}
