"""Predict class ids for images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtrain.data import EvalTransform, ImageValues, LabelContract, Reader
from segtrain.data.labels.label_map import MapGiven
from segtrain.engine.checkpoint import State, find_checkpoint, load_checkpoint, model_weights
from segtrain.engine.device import choose_device
from segtrain.engine.views import ModelViews
from segtrain.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NumericError,
    ResourceError,
    is_out_of_memory,
    one_line,
)
from segtrain.inference.inputs import ImageInput, name_of, read_pixels
from segtrain.inference.prediction import Prediction
from segtrain.inference.writers.masks import draw_overlay
from segtrain.models import MODELS, Segmentor
from segtrain.models.weights import check_values
from segtrain.schema.sections import Spec, ViewConfig
from segtrain.schema.values import build_dataclass

OVERLAY_OPACITY = 0.5
VIEW_KEYS = tuple(field.name for field in fields(ViewConfig))
ValidInput = str | Path | NDArray[Any]
"""The pixels of an image that count: a file or an array that is not 0 there."""


def restore_model(state: State, path: Path) -> Segmentor:
    """Build the model of the checkpoint `state`, loaded from `path`; in eval mode, on the CPU.

    Raises:
        CheckpointError: When the model is not registered, or the weights do not fit it or are not
            finite.
    """
    metadata = state["metadata"]
    name = metadata["model"]["name"]
    if name not in MODELS.names():
        plugins = ",".join(state["config"].get("plugins", [])) or "the file that registers it"
        raise CheckpointError(
            f"{path} holds a model {name!r} that a plugin registers; add plugins=[{plugins}], or"
            " call segtrain.load_plugins([...]) in Python"
        )
    model = MODELS.build(
        metadata["model"],
        where="model of the checkpoint",
        load=False,
        num_classes=metadata["num_classes"],
    )
    weights = model_weights(state)
    check_values(weights, path, model.state_dict())
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = one_line(error)
        raise CheckpointError(
            f"the weights do not fit model {metadata['model']['name']!r}: {reason}"
        ) from error
    return model.eval()


class Predictor:
    """Predicts class ids for images of any size.

    Args:
        model: The trained model; its output ``out`` is used.
        labels: The label contract, for class names and colours.
        mean: Mean of the normalization, per channel.
        std: Standard deviation of the normalization, per channel.
        size: Height and width that images are resized to for the model; None: no resizing. Class
            ids always have the size of the image.
        device: ``auto``, ``cpu``, ``cuda``, ...
        views: What the model sees of an image: windows, scales, flips; None: the whole, once.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        channels_last: Whether to use that memory format.
        reader: Reads image files; None: with default rules.

    Attributes:
        label_map: `dataset.label_map` of the training, to write original label values; None: raw
            values are class ids.

    Example:
        >>> from segtrain.models import MODELS
        >>> model = MODELS.build("hrnet_w18_small_v1", num_classes=3)
        >>> labels = LabelContract(num_classes=3)
        >>> predictor = Predictor(model, labels, mean=(0.5,) * 3, std=(0.5,) * 3, device="cpu")
        >>> predictor(np.zeros((40, 50, 3), dtype=np.uint8)).shape
        (40, 50)
    """

    trained_values: ImageValues | None = None
    """The values in the image files of the training; None: unknown."""
    thresholds: tuple[float, ...] | None = None
    """One probability per logit, for one logit and multi-label data; None: one half."""

    def __init__(
        self,
        model: Segmentor,
        labels: LabelContract,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None = None,
        device: str = "auto",
        views: ViewConfig | None = None,
        precision: str = "fp32",
        channels_last: bool = False,
        reader: Reader | None = None,
    ) -> None:
        self.label_map: MapGiven | None = None
        self.reader = reader or Reader(channels=model.in_channels)
        self.device = choose_device(device)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.eval().to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        self.labels = labels
        self.precision = precision
        self.size = size
        self._transform = EvalTransform(mean, std, labels, size)
        self.views = ModelViews(
            self.model,
            views or ViewConfig(),
            device=self.device,
            precision=precision,
            channels_last=channels_last,
            multi_label=labels.multi_label,
        )
        self._unresized = EvalTransform(mean, std, labels)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        size: tuple[int, int] | None = None,
        views: Spec | None = None,
    ) -> Predictor:
        """Build a predictor with the normalization, size and precision of the training run.

        Args:
            checkpoint: A file, or a run directory (its ``checkpoints/best.pt``).
            device: ``auto``, ``cpu``, ``cuda``, ...
            size: Height and width for the model, in place of those of the training run.
            views: Keys of :class:`~segtrain.schema.sections.ViewConfig` (`window`, `stride`,
                `blend`, `scales`, `flip`), in place of those of the training run.

        Raises:
            CheckpointError: When the checkpoint does not exist or cannot be used.
            ConfigError: When `views` is not valid.
        """
        path = find_checkpoint(checkpoint)
        return cls.from_state(load_checkpoint(path), path, device=device, size=size, views=views)

    @classmethod
    def from_state(
        cls,
        state: State,
        path: Path,
        *,
        device: str = "auto",
        size: tuple[int, int] | None = None,
        views: Spec | None = None,
    ) -> Predictor:
        """Build a predictor from the checkpoint `state`, loaded from `path`.

        Raises:
            CheckpointError: When the checkpoint cannot be used.
        """
        metadata: dict[str, Any] = state["metadata"]
        labels = LabelContract(
            num_classes=metadata["num_classes"],
            ignore_label=metadata["ignore_label"],
            class_names=metadata["class_names"],
            palette=metadata["palette"],
            multi_label=metadata.get("multi_label", False),
        )
        reader = Reader(metadata.get("channels", 3), **metadata.get("reading", {}))
        values = metadata.get("image_values")
        trained_size = (
            None if metadata["size"] is None else (metadata["size"][0], metadata["size"][1])
        )
        trained = state.get("config", {}).get("evaluation", {})
        known = {name: trained[name] for name in VIEW_KEYS if name in trained}
        predictor = cls(
            restore_model(state, path),
            labels,
            mean=metadata["mean"],
            std=metadata["std"],
            size=size or trained_size,
            device=device,
            views=build_dataclass(ViewConfig, {**known, **(views or {})}, "evaluation"),
            precision=metadata["precision"],
            channels_last=metadata["channels_last"],
            reader=reader,
        )
        predictor.trained_values = None if values is None else ImageValues(*values)
        predictor.label_map = state.get("config", {}).get("dataset", {}).get("label_map")
        stored = metadata.get("thresholds")
        predictor.thresholds = None if stored is None else tuple(stored)
        return predictor

    @overload
    def __call__(self, image: ImageInput, valid: ValidInput | None = None) -> NDArray[Any]: ...

    @overload
    def __call__(
        self, image: list[Any] | tuple[Any, ...], valid: Sequence[ValidInput | None] | None = None
    ) -> list[NDArray[Any]]: ...

    def __call__(
        self,
        image: ImageInput | list[Any] | tuple[Any, ...],
        valid: Any = None,
    ) -> NDArray[Any] | list[NDArray[Any]]:
        """Predict the class of each pixel, of one image or of several.

        Args:
            image: The image, or a list of images.
            valid: Not 0 at the pixels that count; the others get the ignore label, as do pixels
                without data (NaN). None: all pixels count. For a list of images a list.

        Shape:
            - image: a file, a Pillow image, an array ``(H, W, channels)`` or a tensor
              ``(channels, H, W)``, uint8, or float32 from 0 to 1; three channels are red, green,
              blue.
            - valid: a file, or ``(H, W)``.
            - output: ``(H, W)``, int64, in ``[0, num_ids)``; ``(H, W, C)``, uint8, 0 or 1, for
              multi-label data. With `valid` also the ignore label, which makes the latter int64 if
              it does not fit into uint8. For a list of images a list.

        Raises:
            DataError: When a file is not a readable image, or the sizes differ.
            NumericError: When a logit is NaN or infinite.
            ResourceError: When the image does not fit into memory.
            ValueError: When an array has the wrong shape or dtype.
        """
        if not isinstance(image, (list, tuple)):
            return self.predict(image, valid).ids
        several = [None] * len(image) if valid is None else valid
        if len(several) != len(image):
            raise ValueError(f"valid must have one entry per image, got {len(several)}")
        return [self.predict(*pair).ids for pair in zip(image, several, strict=True)]

    @overload
    def probabilities(self, image: ImageInput) -> NDArray[np.float32]: ...

    @overload
    def probabilities(self, image: list[Any] | tuple[Any, ...]) -> list[NDArray[np.float32]]: ...

    def probabilities(
        self, image: ImageInput | list[Any] | tuple[Any, ...]
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Predict the probability of each class at each pixel, of one image or of several.

        Args:
            image: The image or a list of images, as for :meth:`__call__`.

        Shape:
            - output: ``(num_ids, H, W)``, float32, from 0 to 1. They add up to 1, except for
              multi-label data. For a list of images a list.

        Raises:
            Exception: As :meth:`__call__`.
        """
        if isinstance(image, (list, tuple)):
            return [self.predict(one).probabilities() for one in image]
        return self.predict(image).probabilities()

    @torch.no_grad()
    def predict(
        self,
        image: ImageInput,
        valid: ValidInput | None = None,
        *,
        name: str | None = None,
    ) -> Prediction:
        """Predict one image.

        Args:
            image: The image, as for :meth:`__call__`.
            valid: The pixels that count, as for :meth:`__call__`.
            name: The name of the image in messages; None: that of its file.

        Raises:
            Exception: As :meth:`__call__`.
        """
        name = name or name_of(image)
        pixels = read_pixels(image, self.reader)
        counts = self._counts(valid, pixels, name)
        try:
            prediction = self._predict(pixels)
            prediction.ids = self._ignored(prediction.ids, counts)
        except NumericError as error:
            raise NumericError(f"{name}: {error}" if name else str(error)) from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(
                f"{f'{name}: ' if name else ''}an image of {pixels.shape[0]} x {pixels.shape[1]}"
                f" does not fit into the memory of {self.device}{self._less_memory()}"
            ) from error
        return prediction

    def other_values(self, found: ImageValues) -> str | None:
        """Describe the values of an image file if the model cannot be expected to fit them."""
        if self.trained_values is None or not found.differs(self.trained_values):
            return None
        return f"{found}, but the model was trained on {self.trained_values}"

    def read(self, path: str | Path) -> NDArray[Any]:
        """Read an image file.

        Raises:
            DataError: When the file is not a readable image, or has the wrong number of channels.
        """
        return read_pixels(path, self.reader)

    def read_valid(
        self, path: str | Path, image: str | Path, shape: Sequence[int]
    ) -> NDArray[np.bool_]:
        """Read the pixels of an image that count from a file, ``(H, W)``.

        Args:
            path: A file that is not 0 at these pixels.
            image: The name of the image, for messages.
            shape: Height and width of the image.

        Raises:
            DataError: When the file is not readable, or has another size than the image.
        """
        valid = self.reader.valid(path)
        if valid.shape != (*shape[:2],):
            raise DataError(
                f"{path}: the valid file is {valid.shape[0]} x {valid.shape[1]} (height x width),"
                f" but its image {image} is {shape[0]} x {shape[1]}; resize or replace one of them"
            )
        return valid

    def _counts(
        self, valid: ValidInput | None, pixels: NDArray[Any], name: str | None
    ) -> NDArray[np.bool_] | None:
        """Return the pixels that count: those of `valid` that have data; None: all."""
        counts: NDArray[np.bool_] | None
        if isinstance(valid, (str, Path)):
            counts = self.read_valid(valid, name or "given as an array", pixels.shape)
        elif valid is not None and valid.shape != pixels.shape[:2]:
            raise ValueError(f"valid must be (H, W) = {pixels.shape[:2]}, got {valid.shape}")
        else:
            counts = None if valid is None else np.not_equal(valid, 0)
        missing = np.isnan(pixels).any(2) if pixels.dtype.kind == "f" else None
        if missing is None or not missing.any():
            return counts
        known: NDArray[np.bool_] = np.logical_not(missing)
        return known if counts is None else counts & known

    def _ignored(self, ids: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Return class ids with the ignore label where pixels do not count."""
        if valid is None:
            return ids
        label = self.labels.ignore_label
        fits = np.iinfo(ids.dtype).min <= label <= np.iinfo(ids.dtype).max
        ids = ids if fits else ids.astype(np.int64)
        ids[~valid] = label
        return ids

    def _less_memory(self) -> str:
        if self.size is None:
            return "; set size, the height and width that images are resized to for the model"
        height, width = self.size
        return f" with size=[{height},{width}]; set a smaller size"

    def _predict(self, pixels: NDArray[Any]) -> Prediction:
        """Predict an array ``(H, W, channels)``; everything between pixels and class ids."""
        height, width = pixels.shape[:2]
        images = self._images(pixels, self._transform)
        logits = self.views.logits(images, (height, width), self.model.align_corners)
        return Prediction(logits, self.thresholds)

    def normalized(self, pixels: NDArray[Any]) -> Tensor:
        """Normalise pixels ``(H, W, channels)``, not resized; return ``(1, channels, H, W)``."""
        return self._images(pixels, self._unresized)

    def _images(self, pixels: NDArray[Any], transform: EvalTransform) -> Tensor:
        images, _ = transform(pixels, np.zeros(pixels.shape[:2], dtype=np.uint8))
        return transform.normalization(images[None].to(self.device))

    def views_of_windows(self, window: tuple[int, int]) -> ModelViews:
        """Return how the model is applied to an image larger than memory.

        Args:
            window: Height and width of the windows, unless the predictor has windows.

        Raises:
            ConfigError: When the predictor has several scales.
        """
        chosen = self.views.views
        if chosen.scales != (1.0,):
            raise ConfigError(
                f"evaluation.scales={list(chosen.scales)} need the whole image at once, but it has"
                " more pixels than dataset.max_pixels; leave scales out"
            )
        if chosen.window is None:
            chosen = replace(chosen, window=window)
        return self.views.with_views(chosen)

    def colorize(self, ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw class ids in the colours of the palette; return ``(H, W, 3)`` uint8."""
        return self.labels.colorize(ids)

    def overlay(self, image: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw class ids over an image of the same size; return ``(H, W, 3)`` uint8.

        Pixels with the ignore label stay as they are.

        Raises:
            ValueError: When the sizes differ.
        """
        if ids.shape[:2] != image.shape[:2]:
            raise ValueError(
                f"ids {ids.shape} and image {image.shape} must have the same height and width"
            )
        return draw_overlay(self.labels, image, ids, OVERLAY_OPACITY)
