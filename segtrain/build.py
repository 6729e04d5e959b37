"""From names and plain values to the parts of a run: losses, criteria, models, datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from segtrain.criterion import Criterion
from segtrain.data import DATASETS, SegmentationDataset
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, MININGS, Loss
from segtrain.losses.base import ClassWeights, MiningSpec
from segtrain.models import MODELS, Segmentor
from segtrain.schema import check_value


def list_losses() -> list[str]:
    """The names that :func:`build_loss` and ``loss=`` take."""
    return LOSSES.names()


def list_models() -> list[str]:
    """The names that :func:`build_model` and ``model=`` take."""
    return MODELS.names()


def list_datasets() -> list[str]:
    """The names that :func:`build_dataset` and ``dataset=`` take."""
    return DATASETS.names()


def list_minings() -> list[str]:
    """The names that ``mining=`` takes."""
    return MININGS.names()


def build_loss(
    spec: str | Mapping[str, Any],
    *,
    num_classes: int,
    ignore_label: int = 255,
    class_weights: ClassWeights = None,
    mining: MiningSpec = None,
    **params: Any,
) -> Loss:
    """A loss by name.

    Args:
        spec: A name, or a mapping with ``name`` and parameters, as it stands in YAML.
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One weight per class, for the losses that take them.
        mining: A mining's name or mapping, for pixel losses.
        **params: Further parameters of the loss.

    Raises:
        ConfigError: On an unknown name or parameter, or a value that does not fit.

    Example:
        >>> import torch
        >>> loss = build_loss("focal", num_classes=3, gamma=0.0)
        >>> loss(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))  # ln 3
        tensor(1.0986)
    """
    spec = {"name": spec, **params} if isinstance(spec, str) else {**spec, **params}
    if class_weights is not None:
        spec["class_weights"] = class_weights
    if mining is not None:
        if spec.get("mining") is not None:
            raise ConfigError("mining is set twice: in the loss and beside it")
        spec["mining"] = mining
    if is_no_mining(spec.get("mining")) or "mining" not in spec:
        spec.pop("mining", None)
    elif "mining" not in LOSSES.schema(str(spec.get("name"))):
        raise ConfigError(
            f"loss {spec['name']!r} is no pixel loss, so no mining can choose its pixels;"
            " use mining=none"
        )
    return LOSSES.build(spec, num_classes=num_classes, ignore_label=ignore_label)


def is_no_mining(mining: MiningSpec) -> bool:
    """Whether `mining` says that every valid pixel counts."""
    return mining in (None, "none") or (
        isinstance(mining, Mapping) and dict(mining) == {"name": "none"}
    )


def build_criterion(
    loss: str | Mapping[str, Any],
    *,
    num_classes: int,
    ignore_label: int = 255,
    align_corners: bool = False,
    output_weights: Mapping[str, float] | None = None,
    strip_rows: int | Literal["auto"] | None = "auto",
    mining: MiningSpec = None,
) -> Criterion:
    """A :class:`Criterion` around the loss that `loss` describes.

    A mining acts on the main output only; auxiliary outputs take the mean over all their valid
    pixels, as in the official HRNet code.

    Args:
        loss: As in :func:`build_loss`.
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        align_corners: As in the model.
        output_weights: Weight per output; 1 for ``out`` and 0.4 for any other unless given.
        strip_rows: Rows of the target that are upsampled at a time; None: all at once.
        mining: As in :func:`build_loss`.

    Raises:
        ConfigError: As :func:`build_loss`.
    """
    common = {"num_classes": num_classes, "ignore_label": ignore_label}
    main = build_loss(loss, mining=mining, **common)  # type: ignore[arg-type]
    auxiliary = build_loss(_without_mining(loss), **common)  # type: ignore[arg-type]
    weights = (
        None
        if output_weights is None
        else check_value(output_weights, dict[str, float], "criterion.output_weights")
    )
    return Criterion(
        main,
        auxiliary_loss=auxiliary,
        output_weights=weights,
        align_corners=align_corners,
        strip_rows=strip_rows,
    )


def _without_mining(spec: str | Mapping[str, Any]) -> str | dict[str, Any]:
    if isinstance(spec, str):
        return spec
    plain = {key: value for key, value in spec.items() if key != "mining"}
    if isinstance(plain.get("terms"), Mapping):
        plain["terms"] = {
            key: term and _without_mining(term) for key, term in plain["terms"].items()
        }
    return plain


def build_model(name: str | Mapping[str, Any], *, num_classes: int, **params: Any) -> Segmentor:
    """A model by name.

    Args:
        name: A name, or a mapping with ``name`` and parameters.
        num_classes: Number of channels of every output.
        **params: Further parameters of the model, such as ``align_corners``.

    Raises:
        ConfigError: On an unknown name or parameter, or a value that does not fit.
    """
    spec = {"name": name, **params} if isinstance(name, str) else {**name, **params}
    return MODELS.build(spec, num_classes=num_classes)


def build_dataset(
    name: str | Mapping[str, Any], *, split: str = "train", **params: Any
) -> SegmentationDataset:
    """One split of a dataset by name; ``dataset[i]`` is ``(image, target, name)``.

    Args:
        name: A name, or a mapping with ``name`` and parameters.
        split: ``train`` or ``val``.
        **params: Further parameters of the dataset, such as ``root``.

    Raises:
        ConfigError: On an unknown name or parameter, or a value that does not fit.
        DataError: When files are missing or do not pair up.
    """
    spec = {"name": name, **params} if isinstance(name, str) else {**name, **params}
    return DATASETS.build(spec, split=split)
