"""Transforms of albumentations by name, checked before training starts.

This is the only file that uses that library, which is no longer maintained. It guards against four
of its defaults: masks are filled with class 0, unknown arguments only cause a warning, the import
looks for a newer version on the network, and `Compose.set_random_seed` gives every transform the
same random numbers.
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
_SIZE = (64, 96)  # of the trial images, if crops have no fixed size
_TRIALS = 4
_MIRRORS = ("HorizontalFlip", "VerticalFlip", "Transpose", "D4", "SquareSymmetry")


class AlbumentationsTransforms:
    """A sequence of transforms of albumentations.

    Args:
        specs: A mapping with ``name`` and parameters for each transform.
        void: The value of mask pixels without a source.
        channels: Number of channels of the images.
        size: Height and width of the images; None: they differ.
        has_pairs: Whether classes are swapped in mirrored images, which albumentations cannot do.

    Raises:
        ConfigError: When a transform does not exist, refuses a parameter, changes the size or
            invents labels.
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
                    f"{where} ({spec['name']}) mirrors images without swapping the classes of"
                    " dataset.flip_pairs; set augmentation.flip instead"
                )
            _try(f"{where} ({spec['name']})", step, void, (*(size or _SIZE), channels))
            steps.append(step)
        self.pipeline = _albumentations().Compose(steps)

    def __call__(
        self, image: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the transformed sample; all random numbers come from `rng`.

        Raises:
            DataError: When albumentations fails on the sample, or changes its size or type.
        """
        return _apply(self.pipeline, image, mask, int(rng.integers(2**63)))


def _apply(
    pipeline: Any, image: NDArray[Any], mask: NDArray[Any], seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    # One pair of generators for the whole chain; set_random_seed would give each transform a copy.
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
            f"{_WHERE}: {image.shape} became {result['image'].shape}, but the size is set by"
            " augmentation.crop_size; remove the transform that changes it"
        )
    if result["image"].dtype != image.dtype:
        raise DataError(
            f"{_WHERE}: {image.dtype} became {result['image'].dtype}, but images are normalised"
            " afterwards, by augmentation.mean and augmentation.std; remove the transform that does"
            " it"
        )
    return result["image"], result["mask"]


def _try(where: str, step: Any, void: int, shape: tuple[int, int, int]) -> None:
    """Apply a transform to a few random samples.

    Raises:
        ConfigError: When it fails, changes the size or invents labels.
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
                f"{where} writes labels that the mask does not have, such as {min(invented)}; set"
                " its mask interpolation to nearest (0) and its mask fill value to null, or remove"
                " it"
            )
    step.p = probability


def _build(where: str, spec: Mapping[str, Any], void: int) -> Any:
    """Build one transform.

    Raises:
        ConfigError: When the name does not exist, or the transform refuses a parameter.
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
        warnings.simplefilter("error", UserWarning)  # how it reports an invalid argument
        try:
            return kinds[name](**params)
        except Exception as error:
            raise ConfigError(
                f"{where} ({name}): albumentations refuses the parameters ({one_line(error)})"
            ) from error


def _set_fill(where: str, name: str, params: dict[str, Any], void: int, default: Any) -> None:
    """Make a transform fill masks with `void`; its default is class 0.

    Null, where the transform allows it, keeps the labels under a hole.

    Raises:
        ConfigError: When any other value is given.
    """
    keeps_labels = default is None and "fill_mask" in params and params["fill_mask"] is None
    if params.get("fill_mask") is not None:
        fix = "remove the key, or set it to null to keep the labels"
        raise ConfigError(
            f"{where}.fill_mask: {name} always fills masks with dataset.ignore_label;"
            f" {fix if default is None else 'remove the key'}"
        )
    params["fill_mask"] = None if keeps_labels else void


def _albumentations() -> Any:
    # Without this variable the import looks for a newer version on the network, which takes seconds
    # when offline. The import itself takes seconds too, so it is not at the top of the file.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return importlib.import_module("albumentations")
