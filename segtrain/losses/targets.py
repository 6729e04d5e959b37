"""Targets derived from class ids, for auxiliary outputs that learn something else."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from segtrain.losses.distance import boundary_distance, boundary_pixels
from segtrain.schema.arguments import check_at_least_one, check_positive
from segtrain.schema.registry import Registry

T = TypeVar("T", bound="type[DerivedTarget]")


class DerivedTarget(ABC):
    """Target of an auxiliary output, derived from the class ids of the main output.

    Attributes:
        num_channels: Number of channels of an output that learns it.
        default_loss: The loss of such an output if the configuration names none.

    Example:
        >>> class Seen(DerivedTarget):
        ...     num_channels = 1
        ...     default_loss = {"name": "bce"}
        ...     def __call__(self, target, ignore_label):
        ...         return torch.where(target == ignore_label, target, target.clamp(max=1))
        >>> Seen()(torch.tensor([[[0, 4, 255]]]), 255)
        tensor([[[  0,   1, 255]]])
    """

    num_channels: ClassVar[int]
    default_loss: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def __call__(self, target: Tensor, ignore_label: int) -> Tensor:
        """Return the derived target, on the device of `target`; `target` is not changed.

        Shape:
            - target: ``(N, H, W)``, int64, class ids or `ignore_label`.
            - output: ``(N, H, W)``, int64, ids or `ignore_label`; or ``(N, num_channels, H, W)``,
              float, with NaN at ignored pixels.
        """


TARGETS: Registry[DerivedTarget] = Registry("target")


def register_target(name: str) -> Callable[[T], T]:
    """Register a :class:`DerivedTarget` subclass as `name`; a decorator.

    Raises:
        ConfigError: When the name is taken.
        TypeError: When the decorated object is not a :class:`DerivedTarget` class.
    """

    def decorate(part: T) -> T:
        if not (inspect.isclass(part) and issubclass(part, DerivedTarget)):
            raise TypeError(f"register_target({name!r}) takes a DerivedTarget class, got {part!r}")
        return TARGETS.register(name)(part)

    return decorate


@register_target("boundary")
class BoundaryTarget(DerivedTarget):
    """1 at pixels next to a boundary between two classes, 0 elsewhere.

    Args:
        width: Number of pixels on each side of the boundary, at least 1.

    Note:
        Ignored pixels stay ignored. The edge of an ignored region is not a boundary, because the
        class behind it is unknown.

    Example:
        >>> BoundaryTarget()(torch.tensor([[[3, 3, 7, 255, 7]]]), 255)
        tensor([[[  0,   1,   1, 255,   0]]])
    """

    num_channels = 1
    # Boundary pixels are few: without mining, a network that finds none of them scores well.
    default_loss: ClassVar[Mapping[str, Any]] = {
        "name": "bce",
        "mining": {"name": "hard_negative"},
    }

    def __init__(self, *, width: int = 1) -> None:
        self.width = check_at_least_one("width", width)

    def __call__(self, target: Tensor, ignore_label: int) -> Tensor:
        found = boundary_pixels(target, ignore_label, self.width).long()
        return torch.where(target == ignore_label, ignore_label, found)


@register_target("distance")
class DistanceTarget(DerivedTarget):
    """Distance to the nearest boundary between two classes, scaled to [0, 1].

    Args:
        max_distance: The distance in pixels that becomes 1, above 0; larger distances become 1 too.
            A network cannot tell from afar how far away a boundary is.

    Note:
        Pixels next to a boundary are half a pixel away from it. In an image without a boundary all
        values are 1. Distances are computed on the CPU; see
        :func:`~segtrain.losses.distance.distance_to`.

    Example:
        >>> DistanceTarget(max_distance=2.0)(torch.tensor([[[0, 0, 0, 1, 255]]]), 255)
        tensor([[[[1.0000, 0.7500, 0.2500, 0.2500,    nan]]]])
    """

    num_channels = 1
    default_loss: ClassVar[Mapping[str, Any]] = {"name": "smooth_l1", "beta": 0.1}

    def __init__(self, *, max_distance: float = 20.0) -> None:
        self.max_distance = check_positive("max_distance", max_distance)

    def __call__(self, target: Tensor, ignore_label: int) -> Tensor:
        distance = boundary_distance(target, ignore_label).clamp(max=self.max_distance)
        found = torch.where(target == ignore_label, torch.nan, distance / self.max_distance)
        return found[:, None]
