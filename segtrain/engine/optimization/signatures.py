"""The parameters of classes of torch as a configuration sees them."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Union

import torch

from segtrain.schema.ranges import Range
from segtrain.schema.values import Parameter, parameters

ABOVE_ZERO = Range(0, open_low=True)
_RANGES = {
    "lr": ABOVE_ZERO,
    "weight_decay": Range(0),
    "momentum": Range(0, 1),
    "betas": Range(0, 1 - 1e-9),
    "eps": Range(0),
}


def own_parameters(
    cls: Callable[..., Any], left_out: Collection[str], defaults: Mapping[str, Any] | None = None
) -> dict[str, Parameter]:
    """The parameters of a constructor, with annotations that the values of a config can meet.

    Args:
        cls: An optimizer or a schedule.
        left_out: Names of parameters that a config does not set.
        defaults: Defaults that differ from those of torch.

    Example:
        >>> own_parameters(torch.optim.RAdam, ["params", "lr"], {"eps": 1e-6})["eps"].default
        1e-06
    """
    found = {}
    for name, parameter in parameters(cls).items():
        if name in left_out:
            continue
        annotation = _for_config(parameter.annotation)
        if name in _RANGES and annotation in (float, int, tuple[float, float]):
            annotation = Annotated[annotation, _RANGES[name]]
        default = (defaults or {}).get(name, parameter.default)
        found[name] = Parameter(name, annotation, default)
    return found


def _for_config(annotation: Any) -> Any:
    """An annotation without tensors, since a config holds numbers and lists."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        kept = [_for_config(one) for one in arguments if one is not torch.Tensor]
        return Union[tuple(kept)]  # noqa: UP007  the members are only known here
    if origin is tuple:
        return tuple.__class_getitem__(tuple(_for_config(one) for one in arguments))
    if origin is collections.abc.Iterable:
        return list.__class_getitem__(arguments)
    return annotation
