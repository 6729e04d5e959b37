"""Predict class ids for images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segtrain.data import EvalTransform, ImageValues, LabelContract, Reader, as_rgb
from segtrain.engine.checkpoint import State, find_checkpoint, load_checkpoint, model_weights
from segtrain.engine.device import choose_device
from segtrain.engine.views import ModelViews
from segtrain.errors import (
    ChannelsError,
    CheckpointError,
    DataError,
    NumericError,
    ResourceError,
    is_out_of_memory,
    one_line,
)
from segtrain.models import MODELS, Segmentor
from segtrain.models.weights import check_values
from segtrain.schema.sections import ViewConfig

OVERLAY_OPACITY = 0.5


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
        self.reader = reader or Reader(channels=model.in_channels)
        self.device = choose_device(device)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.eval().to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        self.labels = labels
        self.precision = precision
        self.size = size
        self._transform = EvalTransform(mean, std, labels, size)
        self._views = ModelViews(
            self.model,
            views or ViewConfig(),
            device=self.device,
            precision=precision,
            channels_last=channels_last,
            multi_label=labels.multi_label,
        )

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, *, device: str = "auto", size: tuple[int, int] | None = None
    ) -> Predictor:
        """Build a predictor with the normalization, size and precision of the training run.

        Args:
            checkpoint: A file, or a run directory (its ``checkpoints/best.pt``).
            device: ``auto``, ``cpu``, ``cuda``, ...
            size: Height and width for the model, in place of those of the training run.

        Raises:
            CheckpointError: When the checkpoint does not exist or cannot be used.
        """
        path = find_checkpoint(checkpoint)
        state = load_checkpoint(path)
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
        predictor = cls(
            restore_model(state, path),
            labels,
            mean=metadata["mean"],
            std=metadata["std"],
            size=size or trained_size,
            device=device,
            precision=metadata["precision"],
            channels_last=metadata["channels_last"],
            reader=reader,
        )
        predictor.trained_values = None if values is None else ImageValues(*values)
        stored = metadata.get("thresholds")
        predictor.thresholds = None if stored is None else tuple(stored)
        return predictor

    @torch.no_grad()
    def __call__(
        self,
        image: str | Path | NDArray[Any],
        valid: str | Path | NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Predict the class of each pixel.

        Args:
            image: The image.
            valid: Not 0 at the pixels that count; the others get the ignore label. None: all pixels
                count.

        Shape:
            - image: a file, or ``(H, W, channels)``, uint8, or float32 from 0 to 1; three channels
              are red, green, blue.
            - valid: a file, or ``(H, W)``.
            - output: ``(H, W)``, int64, in ``[0, num_ids)``; ``(H, W, C)``, uint8, 0 or 1, for
              multi-label data. With `valid` also the ignore label, which makes the latter int64 if
              it does not fit into uint8.

        Raises:
            DataError: When a file is not a readable image, or the sizes differ.
            ResourceError: When the image does not fit into memory.
            ValueError: When an array has the wrong shape or dtype.
        """
        pixels = self.read(image) if isinstance(image, (str, Path)) else image
        channels = self.reader.channels
        wrong_shape = pixels.ndim != 3 or pixels.shape[2] != channels
        if wrong_shape or pixels.dtype not in (np.uint8, np.float32):
            raise ValueError(
                f"image must be (H, W, {channels}), uint8, or float32 from 0 to 1, got"
                f" {pixels.shape} {pixels.dtype}"
            )
        counts = self._counts(valid, pixels, image)
        try:
            return self._ignored(self._class_ids(pixels), counts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            name = f"{image}: " if isinstance(image, (str, Path)) else ""
            raise ResourceError(
                f"{name}an image of {pixels.shape[0]} x {pixels.shape[1]} does not fit into the"
                f" memory of {self.device}{self._less_memory()}"
            ) from error

    def other_values(self, path: str | Path) -> str | None:
        """Return what an image file holds if a model cannot be expected to fit it, else None."""
        if self.trained_values is None:
            return None
        found = self.reader.values(path)
        if not found.differs(self.trained_values):
            return None
        return f"{found}, but the model was trained on {self.trained_values}"

    def read(self, path: str | Path) -> NDArray[Any]:
        """Read an image file.

        Raises:
            DataError: When the file is not a readable image, or has the wrong number of channels.
        """
        try:
            return self.reader.image(path)
        except ChannelsError:
            raise DataError(
                f"{path}: this model takes images of {self.reader.channels} channels, but the file"
                " has a different number; convert it"
            ) from None

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
        self, valid: str | Path | NDArray[Any] | None, pixels: NDArray[Any], image: object
    ) -> NDArray[np.bool_] | None:
        if isinstance(valid, (str, Path)):
            name = str(image) if isinstance(image, (str, Path)) else "given as an array"
            return self.read_valid(valid, name, pixels.shape)
        if valid is not None and valid.shape != pixels.shape[:2]:
            raise ValueError(f"valid must be (H, W) = {pixels.shape[:2]}, got {valid.shape}")
        return None if valid is None else valid != 0

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

    def _class_ids(self, pixels: NDArray[Any]) -> NDArray[Any]:
        height, width = pixels.shape[:2]
        tensor, _ = self._transform(pixels, np.zeros((height, width), dtype=np.uint8))
        logits = self._views.logits(tensor[None], (height, width), self.model.align_corners)
        if not bool(logits.is_finite()):
            raise NumericError(
                "the model's logits are NaN or infinite for this image; check its values, or"
                " predict with precision fp32"
            )
        found = logits.ids(self.thresholds)[0]
        multi_label = self.labels.multi_label
        ids: NDArray[Any] = (found.permute(1, 2, 0) if multi_label else found).cpu().numpy()
        return ids

    def colorize(self, ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw class ids in the colours of the palette; return ``(H, W, 3)`` uint8."""
        return self.labels.colorize(ids)

    def overlay(self, image: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw class ids over an image of the same size; return ``(H, W, 3)`` uint8.

        Pixels with the ignore label stay as they are.
        """
        ignored = ids == self.labels.ignore_label
        ignored = ignored.any(axis=2) if self.labels.multi_label else ignored
        opacity = np.where(ignored, 0, OVERLAY_OPACITY)[..., None]
        mixed = (1 - opacity) * as_rgb(image) + opacity * self.colorize(ids)
        drawn: NDArray[np.uint8] = mixed.round().astype(np.uint8)
        return drawn
