"""The losses that are compared: those of this package, plain PyTorch, and other libraries.

A contender is a function of low-resolution logits and a target, and upsamples the logits itself.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from workloads import IGNORE_LABEL

import segtrain

Contender = Callable[[Tensor, Tensor], Tensor]

# The cases of this package by name: the argument `loss` of `segtrain.build_criterion`.
OURS: dict[str, Mapping[str, Any]] = {
    "cross_entropy": {"name": "cross_entropy"},
    "focal": {"name": "focal"},
    "ohem": {
        "name": "cross_entropy",
        "mining": {"name": "ohem", "threshold": 0.7, "min_kept": 100_000},
    },
    "dice": {"name": "dice"},
    "jaccard": {"name": "jaccard"},
    "tversky": {"name": "tversky"},
    "sum": {"name": "sum", "terms": {"cross_entropy": {}, "dice": {}, "focal": {}}},
    "lovasz_softmax": {"name": "lovasz_softmax"},
}


def upsampled(loss: Contender) -> Contender:
    """Wrap `loss` to upsample the logits to the size of the target."""

    def call(logits: Tensor, target: Tensor) -> Tensor:
        size = target.shape[-2:]
        return loss(F.interpolate(logits, size=size, mode="bilinear", align_corners=False), target)

    return call


def ours(
    name: str, num_classes: int, strip_rows: int | Literal["auto"] | None = "auto"
) -> Contender:
    """Build the criterion of the case `name`, or of the loss `name` with its default arguments."""
    return criterion_total(OURS.get(name, {"name": name}), num_classes, strip_rows=strip_rows)


def criterion_total(
    loss: Mapping[str, Any],
    num_classes: int,
    *,
    strip_rows: int | Literal["auto"] | None = "auto",
    device: torch.device | str = "cpu",
) -> Contender:
    """Build the criterion of `loss` on `device`; the contender is its total."""
    criterion = segtrain.build_criterion(
        loss,
        num_classes=num_classes,
        ignore_label=IGNORE_LABEL,
        align_corners=False,
        strip_rows=strip_rows,
    ).to(device)
    return lambda logits, target: criterion({"out": logits}, target).total


def is_there(name: str) -> bool:
    """Return whether the loss of the case `name` is registered."""
    return OURS.get(name, {"name": name})["name"] in segtrain.list_losses()


def other_losses() -> list[str]:
    """Return the registered losses that are not in `OURS` and have no required arguments."""
    names = [name for name in segtrain.list_losses() if name not in OURS]
    return [name for name in names if _has_defaults(name)]


def _has_defaults(name: str) -> bool:
    try:
        segtrain.build_loss(name, num_classes=2)
    except segtrain.ConfigError:
        return False
    return True


# Plain PyTorch at the size of the target: the baseline, and formulas that check the values.


def plain_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy over the valid pixels."""
    return F.cross_entropy(logits, target, ignore_index=IGNORE_LABEL)


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    values = F.cross_entropy(logits, target, ignore_index=IGNORE_LABEL, reduction="none")
    values = values[target != IGNORE_LABEL]
    return ((1 - torch.exp(-values)) ** 2 * values).mean()


def _ohem(logits: Tensor, target: Tensor) -> Tensor:
    values = F.cross_entropy(logits, target, ignore_index=IGNORE_LABEL, reduction="none")
    values = values[target != IGNORE_LABEL]
    probability = torch.exp(-values.detach())
    rank = min(100_000, len(values) - 1)
    return values[probability < probability.sort().values[rank].clamp(min=0.7)].mean()


def _overlap(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return intersection, predicted area and actual area of the classes in the target."""
    target = target[:, None]
    actual = target == torch.arange(logits.shape[1])[:, None, None]
    predicted = logits.softmax(1) * (target != IGNORE_LABEL)
    intersection = (predicted * actual).sum((0, 2, 3))
    areas = predicted.sum((0, 2, 3)), actual.sum((0, 2, 3))
    shown = areas[1] > 0
    return intersection[shown], areas[0][shown], areas[1][shown]


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    intersection, predicted, actual = _overlap(logits, target)
    return (1 - (2 * intersection + 1) / (predicted + actual + 1)).mean()


def _jaccard(logits: Tensor, target: Tensor) -> Tensor:
    intersection, predicted, actual = _overlap(logits, target)
    return (1 - (intersection + 1) / (predicted + actual - intersection + 1)).mean()


def _sum(logits: Tensor, target: Tensor) -> Tensor:
    return plain_cross_entropy(logits, target) + _dice(logits, target) + _focal(logits, target)


PLAIN: dict[str, Contender] = {
    "cross_entropy": plain_cross_entropy,
    "focal": _focal,
    "ohem": _ohem,
    "dice": _dice,
    "jaccard": _jaccard,
    "sum": _sum,
}
SELECTIVE = frozenset({"ohem"})  # rounding decides whether a pixel at the threshold counts


# Losses of other libraries, which are imported only when they are measured.


@dataclass(frozen=True)
class Peer:
    """A loss of another library.

    Attributes:
        package: Name of the package.
        loss: Name of the corresponding loss of this package.
        make: Returns the loss, a function of upsampled logits and target.
    """

    package: str
    loss: str
    make: Callable[[], Contender]

    @property
    def installed(self) -> bool:
        """Whether the package is installed; it is not imported."""
        return importlib.util.find_spec(self.package) is not None


def _smp(loss: str, name: str, *mode: str, **options: Any) -> Peer:
    package = "segmentation_models_pytorch"

    def make() -> Contender:
        losses = importlib.import_module(f"{package}.losses")
        return getattr(losses, name)(*mode, ignore_index=IGNORE_LABEL, **options)

    return Peer(package, loss, make)


def _monai(loss: str, name: str, **options: Any) -> Peer:
    def make() -> Contender:
        losses = importlib.import_module("monai.losses")
        function = getattr(losses, name)(to_onehot_y=True, ignore_index=IGNORE_LABEL, **options)
        return lambda logits, target: function(logits, target[:, None])

    return Peer("monai", loss, make)


def _kornia(loss: str, name: str, **options: Any) -> Peer:
    def make() -> Contender:
        function = getattr(importlib.import_module("kornia.losses"), name)
        return lambda logits, target: function(logits, target, ignore_index=IGNORE_LABEL, **options)

    return Peer("kornia", loss, make)


def _kornia_lovasz() -> Contender:
    """Kornia's Lovász loss, in which ignored pixels count as class 0: it cannot ignore them."""
    function = importlib.import_module("kornia.losses").lovasz_softmax_loss
    return lambda logits, target: function(logits, target.masked_fill(target == IGNORE_LABEL, 0))


PEERS: dict[str, Peer] = {
    "smp SoftCrossEntropyLoss": _smp("cross_entropy", "SoftCrossEntropyLoss", smooth_factor=0.0),
    "smp FocalLoss": _smp("focal", "FocalLoss", "multiclass"),
    "smp DiceLoss": _smp("dice", "DiceLoss", "multiclass"),
    "smp JaccardLoss": _smp("jaccard", "JaccardLoss", "multiclass"),
    "smp TverskyLoss": _smp("tversky", "TverskyLoss", "multiclass"),
    "smp LovaszLoss": _smp("lovasz_softmax", "LovaszLoss", "multiclass"),
    "monai FocalLoss": _monai("focal", "FocalLoss", use_softmax=True),
    "monai DiceLoss": _monai("dice", "DiceLoss", softmax=True, batch=True),
    "monai DiceLoss(jaccard)": _monai(
        "jaccard", "DiceLoss", softmax=True, batch=True, jaccard=True
    ),
    "monai TverskyLoss": _monai("tversky", "TverskyLoss", softmax=True, batch=True),
    "kornia focal_loss": _kornia("focal", "focal_loss", alpha=None, reduction="mean"),
    "kornia dice_loss": _kornia("dice", "dice_loss", average="macro"),
    "kornia tversky_loss": _kornia("tversky", "tversky_loss", alpha=0.5, beta=0.5),
    "kornia lovasz_softmax_loss": Peer("kornia", "lovasz_softmax", _kornia_lovasz),
}

BASELINE = "plain cross_entropy"


def build(case: str, num_classes: int) -> Contender:
    """Build the contender `case`: the baseline, a peer, or a loss of this package."""
    if case == BASELINE:
        return upsampled(plain_cross_entropy)
    if case in PEERS:
        return upsampled(PEERS[case].make())
    return ours(case, num_classes)
