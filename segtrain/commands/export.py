"""The command ``segtrain export``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segtrain.assembly.scored_split import check_addresses
from segtrain.data import DATASETS
from segtrain.data.datasets.found_files import find_files
from segtrain.errors import ConfigError, DataError, NoFilesError, SegtrainError
from segtrain.export import Exported, GraphOptions, Trained, export_model, format_of
from segtrain.schema.plugins import load_plugins
from segtrain.schema.sections import ExportConfig
from segtrain.terminal import logger

Images = list[tuple[str, NDArray[Any]]]


def export(config: ExportConfig) -> Exported:
    """Write a model and the JSON beside it, and print how far it agrees with the checkpoint.

    Raises:
        ConfigError: If the options do not fit each other or the model, or a package is missing.
        CheckpointError: If the checkpoint cannot be used.
        DataError: If there are no images to compare on.
        NumericError: If the file does not compute what the model does.
    """
    output = Path(config.output)
    written = format_of(output)
    options = GraphOptions(
        normalize=config.normalize, upsample=config.upsample, argmax=config.argmax
    )
    load_plugins(config.plugins)
    trained = Trained.load(config.checkpoint, config.size)
    if not config.dynamic and trained.size is None:
        raise ConfigError("dynamic=false needs size=[HEIGHT,WIDTH], the size of every image")
    _warn_of_precision(trained)
    images = _images(config, trained)
    exported = export_model(
        trained, output, written, options, images, dynamic=config.dynamic, opset=config.opset
    )
    logger.info("%s", exported.agreement)
    logger.info("%s written, with %s", exported.path, exported.contract.name)
    return exported


def _warn_of_precision(trained: Trained) -> None:
    precision = trained.state["metadata"]["precision"]
    if precision != "fp32":
        logger.warning(
            "the model was trained and scored in %s, and the export computes in float32, so its"
            " scores may differ a little from those of the training",
            precision,
        )


def _images(config: ExportConfig, trained: Trained) -> Images:
    if config.images is None:
        return _validation_images(trained, config.num_images)
    try:
        found = find_files(Path(), config.images, "images")
    except NoFilesError:
        raise DataError(
            f"images={config.images}: this directory or glob does not exist or has no image files;"
            " give images to compare on"
        ) from None
    paths = [list(found)[index] for index in _spread(len(found), config.num_images)]
    return [(path.name, trained.predictor.read(path)) for path in paths]


def _validation_images(trained: Trained, most: int) -> Images:
    """Return images of the validation split of the training.

    Raises:
        DataError: If the split cannot be opened or read any more.
    """
    spec: Mapping[str, Any] = trained.state["config"]["dataset"]
    try:
        check_addresses(dict(spec), {}, trained.path)
        dataset = DATASETS.build(dict(spec), split="val")
        samples = [dataset[index] for index in _spread(len(dataset), most)]
    except SegtrainError as error:
        raise DataError(
            f"the validation split of the training cannot be read ({error}); give images to compare"
            " on with images=FOLDER"
        ) from error
    return [(sample.name, sample.image) for sample in samples]


def _spread(count: int, most: int) -> list[int]:
    """Return up to `most` of `count` indices, at equal distances.

    Example:
        >>> _spread(10, 3), _spread(2, 3)
        ([0, 3, 6], [0, 1])
    """
    taken = min(count, most)
    return [index * count // taken for index in range(taken)]
