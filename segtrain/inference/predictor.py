"""Predict class ids for images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segtrain.data import EvalTransform, LabelContract, Reader, as_rgb
from segtrain.engine.checkpoint import State, find_checkpoint, load_checkpoint, model_weights
from segtrain.engine.device import autocast, choose_device
from segtrain.engine.evaluator import predict_ids
from segtrain.errors import (
    ChannelsError,
    CheckpointError,
    DataError,
    ResourceError,
    is_out_of_memory,
    one_line,
)
from segtrain.models import MODELS, Segmentor

OVERLAY_OPACITY = 0.5


def restore_model(state: State, path: Path) -> Segmentor:
    """Build the model of the checkpoint `state`, loaded from `path`; in eval mode, on the CPU.

    Raises:
        CheckpointError: When the model is not registered, or the weights do not fit it.
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
    try:
        model.load_state_dict(model_weights(state))
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

    def __init__(
        self,
        model: Segmentor,
        labels: LabelContract,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None = None,
        device: str = "auto",
        precision: str = "fp32",
        channels_last: bool = False,
        reader: Reader | None = None,
    ) -> None:
        self.reader = reader or Reader(channels=model.in_channels)
        self.device = choose_device(device)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.eval().to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.labels = labels
        self.precision = precision
        self.size = size
        self._transform = EvalTransform(mean, std, labels, size)

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
        trained_size = (
            None if metadata["size"] is None else (metadata["size"][0], metadata["size"][1])
        )
        return cls(
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

    @torch.no_grad()
    def __call__(
        self, image: str | Path | NDArray[Any], valid: str | Path | NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Predict the class of each pixel.

        Args:
            image: The image, or its file.
            valid: Which pixels count, as an array or a file: those that are not 0. The others get
                the `ignore_label` of the label contract. None: all pixels count.

        Shape:
            - image: ``(H, W, channels)``, uint8, or float32 from 0 to 1; three channels are red,
              green, blue.
            - valid: ``(H, W)``.
            - output: ``(H, W)``, int64, in ``[0, num_ids)``; ``(H, W, C)``, uint8, 0 or 1, for
              multi-label data.

        Raises:
            DataError: When a file is not readable, or the file `valid` has another size.
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
        try:
            return self._only_valid(self._class_ids(pixels), valid)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            name = f"{image}: " if isinstance(image, (str, Path)) else ""
            raise ResourceError(
                f"{name}an image of {pixels.shape[0]} x {pixels.shape[1]} does not fit into the"
                f" memory of {self.device}{self._less_memory()}"
            ) from error

    def _only_valid(
        self, ids: NDArray[Any], valid: str | Path | NDArray[Any] | None
    ) -> NDArray[Any]:
        """Set the pixels that do not count to the ignore label."""
        if valid is None:
            return ids
        name = str(valid) if isinstance(valid, (str, Path)) else "valid"
        counts = self.reader.valid(valid) if isinstance(valid, (str, Path)) else valid != 0
        if counts.shape != ids.shape[:2]:
            raise DataError(
                f"{name}: it is {' x '.join(map(str, counts.shape))} (height x width), but the"
                f" image is {ids.shape[0]} x {ids.shape[1]}"
            )
        if not 0 <= self.labels.ignore_label <= 255:
            ids = ids.astype(np.int64)
        ids[~counts] = self.labels.ignore_label
        return ids

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

    def _less_memory(self) -> str:
        if self.size is None:
            return "; set size, the height and width that images are resized to for the model"
        height, width = self.size
        return f" with size=[{height},{width}]; set a smaller size"

    def _class_ids(self, pixels: NDArray[Any]) -> NDArray[Any]:
        height, width = pixels.shape[:2]
        tensor, _ = self._transform(pixels, np.zeros((height, width), dtype=np.uint8))
        batch = tensor[None].to(self.device, memory_format=self.memory_format)
        with autocast(self.device, self.precision):
            logits = self.model(batch)["out"]
        multi_label = self.labels.multi_label
        size = (height, width)
        found = predict_ids(logits, size, self.model.align_corners, multi_label=multi_label)[0]
        ids: NDArray[Any] = (found.permute(1, 2, 0) if multi_label else found).cpu().numpy()
        return ids

    def colorize(self, ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw class ids in the colours of the palette; return ``(H, W, 3)`` uint8."""
        return self.labels.colorize(ids)

    def overlay(self, image: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw class ids over an image of the same size; return ``(H, W, 3)`` uint8."""
        pixels = as_rgb(image)
        mixed = (1 - OVERLAY_OPACITY) * pixels + OVERLAY_OPACITY * self.colorize(ids)
        ignored = (ids[..., 0] if ids.ndim == 3 else ids) == self.labels.ignore_label
        mixed[ignored] = pixels[ignored]
        return mixed.round().astype(np.uint8)
