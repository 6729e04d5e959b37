"""Transforms of albumentations by name, checked before anything is trained.

The only file that knows that library, which is no longer maintained. Four of its habits are guarded
here: it paints class 0 into masks unless told otherwise, unknown arguments are only warned about,
importing it asks the network for a newer version, and `Compose.set_random_seed` gives every
transform the same stream.
"""

from __future__ import annotations

import importlib
import inspect
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.errors import ConfigError, DataError, one_line
from segtrain.schema.values import did_you_mean

_WHERE = "augmentation.transforms"
_SIZE = (64, 96)  # of what a transform is tried on where crops have no size of their own
_TRIALS = 4
_MIRRORS = ("HorizontalFlip", "VerticalFlip", "Transpose", "D4", "SquareSymmetry")


class AlbumentationsTransforms:
    """Transforms of albumentations, one after the other.

    Args:
        specs: A mapping with ``name`` and parameters for each.
        void: The value that masks get where there is no source.
        channels: Of the images.
        size: Height and width of the images; None: they differ.
        has_pairs: Whether classes change places in the mirror, of which albumentations knows
            nothing.

    Raises:
        ConfigError: When a transform does not exist, refuses a parameter, changes the size or makes
            labels of its own.
    """

    def __init__(
        self,
        specs: Sequence[Mapping[str, Any]],
        void: int,
        channels: int,
        size: tuple[int, int] | None = None,
        *,
        has_pairs: bool = False,
    ) -> None:
        steps = []
        for index, spec in enumerate(specs):
            where = f"{_WHERE}[{index}]"
            step = _build(where, spec, void)
            if has_pairs and spec["name"] in _MIRRORS:
                raise ConfigError(
                    f"{where} ({spec['name']}) mirrors images and leaves left and right of"
                    " dataset.flip_pairs as they are; set augmentation.flip instead"
                )
            _try(f"{where} ({spec['name']})", step, void, (*(size or _SIZE), channels))
            steps.append(step)
        self.pipeline = _albumentations().Compose(steps)

    def __call__(
        self, image: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The sample after them; chance comes from `rng` alone.

        Raises:
            DataError: When albumentations fails on the sample, or changes its size.
        """
        return _apply(self.pipeline, image, mask, int(rng.integers(2**63)))


def _apply(
    pipeline: Any, image: NDArray[Any], mask: NDArray[Any], seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    # One pair of streams for the whole chain: set_random_seed would start each one anew.
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    try:
        result = pipeline(image=np.ascontiguousarray(image), mask=np.ascontiguousarray(mask))
    except Exception as error:
        raise DataError(
            f"{_WHERE}: albumentations failed on an image of {image.shape} {image.dtype}:"
            f" {one_line(error)}"
        ) from error
    if result["image"].shape != image.shape or result["mask"].shape != mask.shape:
        raise DataError(
            f"{_WHERE}: {image.shape} became {result['image'].shape}, but the size is that of"
            " augmentation.crop_size, so leave out what changes it"
        )
    if result["image"].dtype != image.dtype:
        raise DataError(
            f"{_WHERE}: {image.dtype} became {result['image'].dtype}, but images are normalised"
            " afterwards, by augmentation.mean and augmentation.std, so leave out what does"
        )
    return result["image"], result["mask"]


def _try(where: str, step: Any, void: int, shape: tuple[int, int, int]) -> None:
    """Apply a transform to a few samples.

    Raises:
        ConfigError: When it fails, changes the size or makes labels of its own.
    """
    probability, step.p = step.p, 1.0
    pipeline = _albumentations().Compose([step])
    rng = np.random.default_rng(0)
    known = np.array([1, 2, void], dtype=np.uint8 if void < 256 else np.uint16)
    for seed in range(_TRIALS):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        try:
            _, found = _apply(pipeline, image, rng.choice(known, shape[:2]), seed)
        except DataError as error:
            raise ConfigError(str(error).replace(_WHERE, where, 1)) from error
        invented = set(np.unique(found).tolist()) - set(known.tolist())
        if invented:
            raise ConfigError(
                f"{where} makes labels that the mask does not have, such as {min(invented)}; set"
                " its interpolation of masks to nearest (0) and what it fills them with to null, or"
                " leave it out"
            )
    step.p = probability


def _build(where: str, spec: Mapping[str, Any], void: int) -> Any:
    """One transform.

    Raises:
        ConfigError: When there is none of the name, or it refuses a parameter.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ConfigError(f"{where} must be a mapping with a name, got {spec!r}")
    library, name = _albumentations(), spec["name"]
    kinds = dict(inspect.getmembers(library, inspect.isclass))
    kinds = {key: kind for key, kind in kinds.items() if issubclass(kind, library.BasicTransform)}
    if name not in kinds:
        raise ConfigError(
            f"{where}: albumentations has no transform {name!r}{did_you_mean(name, kinds)}"
        )
    params = {str(key): value for key, value in spec.items() if key != "name"}
    known = inspect.signature(kinds[name]).parameters
    for key in params:
        if key not in known:
            raise ConfigError(
                f"{where}.{key}: {name} has no parameter {key!r}{did_you_mean(key, known)}"
            )
    if "fill_mask" in known:
        _set_fill(where, name, params, void, known["fill_mask"].default)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # its way to refuse an argument
        try:
            return kinds[name](**params)
        except Exception as error:
            raise ConfigError(
                f"{where} ({name}): albumentations refuses it ({one_line(error)})"
            ) from error


def _set_fill(where: str, name: str, params: dict[str, Any], void: int, default: Any) -> None:
    """Have masks filled with `void`; the default paints class 0.

    Raises:
        ConfigError: When something else is given. Null keeps the labels under a hole.
    """
    keeps_labels = default is None and "fill_mask" in params and params["fill_mask"] is None
    if params.get("fill_mask") is not None:
        rest = "leave it out, or null to keep the labels" if default is None else "leave it out"
        raise ConfigError(
            f"{where}.fill_mask: {name} fills masks with dataset.ignore_label by itself; {rest}"
        )
    params["fill_mask"] = None if keeps_labels else void


def _albumentations() -> Any:
    # Without this variable the import asks the network for a newer version; offline, that takes
    # seconds. The import itself takes seconds too, hence not at the top of the file.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return importlib.import_module("albumentations")
