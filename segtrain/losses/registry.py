"""The registry of losses, and the decorator that adds a class or a plain function to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from segtrain.errors import ConfigError, one_line
from segtrain.losses.base import Loss, Term
from segtrain.losses.families.pixel import PixelLoss
from segtrain.losses.mining.base import is_no_mining
from segtrain.schema.registry import Registry
from segtrain.schema.signatures import set_signature
from segtrain.schema.values import parameters

LOSSES: Registry[Loss] = Registry("loss")
R = TypeVar("R", bound=Callable[..., Any])

_FILLED_IN = ("num_classes", "ignore_label")  # parameters of a function that no configuration sets
_TRIAL_SIZE = 16  # rows and columns of the trial batch


def register_loss(name: str) -> Callable[[R], R]:
    """Register a function or a :class:`Loss` subclass as ``loss=name``; a decorator.

    A function takes ``(logits, target)`` and typed keyword parameters, which become the keys of its
    configuration; ``num_classes`` and ``ignore_label`` are filled in. It returns one of:

    - A map ``(N, H, W)``, which gets class weights, mining and strips. Ignored pixels arrive as
      class 0 and are dropped afterwards. Strips pass a few rows of the image at a time, so the
      loss of a pixel must depend on that pixel only.
    - A scalar, from all logits and the unchanged target, ``ignore_label`` included. It gets no
      class weights, no mining and no strips.

    A function that reads neighbouring pixels, or divides by a sum or a maximum over the image, must
    return a scalar. Alternatively, write a class: a :class:`PixelLoss` with a ``context`` to read
    the target around a pixel, a :class:`PixelLoss` with ``can_strip = False`` to read the logits
    around it, or a :class:`ClassMapLoss`. The logits must not be changed in place.

    Raises:
        ConfigError: When the name is taken; when a function is built, if it fails on a trial batch
            that shows every class id, or returns neither a map nor a scalar.
        TypeError: When the decorated object is not a function of two tensors or a :class:`Loss`.

    Example:
        >>> from segtrain.losses import LOSSES, register_loss
        >>> @register_loss("docs_absolute_error")
        ... def absolute_error(logits, target, *, scale: float = 1.0):
        ...     probability = logits.softmax(1).gather(1, target[:, None])[:, 0]
        ...     return scale * (1 - probability)
        >>> loss = LOSSES.build({"name": "docs_absolute_error", "scale": 2.0}, num_classes=4)
        >>> loss(torch.zeros(1, 4, 1, 2), torch.tensor([[[3, 255]]]))
        tensor(1.5000)
    """

    def decorate(part: R) -> R:
        if inspect.isclass(part) and issubclass(part, Loss):
            LOSSES.register(name)(part)
            part.registered_name = name
        elif inspect.isfunction(part) and len(inspect.signature(part).parameters) >= 2:
            LOSSES.register(name)(_constructor(part, name))
        else:
            raise TypeError(
                f"register_loss({name!r}) takes a function of (logits, target) or a Loss class,"
                f" got {part!r}"
            )
        return part

    return decorate


def _constructor(function: Callable[..., Tensor], name: str) -> Callable[..., Loss]:
    """A function that builds the loss of `function` from its parameters and those of PixelLoss."""
    after_target = list(inspect.signature(function).parameters)[2:]
    own = {
        key: parameter
        for key, parameter in parameters(function).items()
        if key in after_target and key not in _FILLED_IN
    }

    def construct(**given: Any) -> Loss:
        params = {key: given.pop(key) for key in own if key in given}
        loss = _MapFunction(function, name, params, **given)
        return loss if _returns_map(loss) else _ScalarFunction(function, name, params, **given)

    construct.__doc__ = function.__doc__
    shared = parameters(PixelLoss)
    set_signature(construct, own | {key: shared[key] for key in shared if key not in own})
    return construct


class _Function(Term):
    """A loss that calls a function ``(logits, target, **params)``."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        name: str,
        params: Mapping[str, Any],
        **common: Any,
    ) -> None:
        super().__init__(**common)
        accepted = inspect.signature(function).parameters
        filled_in = {key: getattr(self, key) for key in _FILLED_IN if key in accepted}
        self.function = partial(function, **params, **filled_in)
        self.registered_name = name  # type: ignore[misc]


class _MapFunction(_Function, PixelLoss):
    """A function that returns a map of pixel losses."""

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.function(logits, target)


class _ScalarFunction(_Function):
    """A function that returns one number."""

    can_strip = False

    def __init__(
        self, *function: Any, class_weights: Any = None, mining: Any = None, **common: Any
    ) -> None:
        super().__init__(*function, **common)
        for key, is_set in (
            ("class_weights", class_weights is not None),
            ("mining", not is_no_mining(mining)),
        ):
            if is_set:
                raise ConfigError(
                    f"loss {self.registered_name!r} returns one number, so {key} has nothing to act"
                    " on; return a map (N, H, W)"
                )

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        valid = self.valid(target)
        if not bool(valid.any()):  # the function may divide by the number of valid pixels
            return logits.sum() * 0
        # The function may read ignored pixels, but they get no gradient.
        logits = torch.where(valid[:, None], logits, logits.detach())
        return self.function(logits, target)


def _returns_map(loss: _MapFunction) -> bool:
    """Whether the function returns a map, not a scalar, for a trial batch of all class ids."""
    name, size = loss.registered_name, (1, _TRIAL_SIZE, _TRIAL_SIZE)
    logits = torch.zeros(1, loss.num_classes, *size[1:])
    largest = max(loss.num_classes, 2) - 1  # one channel tells two classes apart
    # With more classes than pixels: ids at even distances, the first and the last among them.
    target = torch.linspace(0, largest, logits[0, 0].numel()).round().long().reshape(size)
    try:
        with torch.no_grad():
            result = loss.function(logits, target)
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error, limit=len(str(error)))}"
        hint = "" if loss.num_classes > 1 else "; one channel is the logit of id 1 against id 0"
        raise ConfigError(
            f"loss {name!r} failed on a trial batch of logits {tuple(logits.shape)} and class ids 0"
            f" to {largest}: {reason}{hint}"
        ) from error
    shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
    if shape not in (size, ()):
        raise ConfigError(
            f"loss {name!r} must return a map (N, H, W) or a scalar tensor, got {shape} for a trial"
            f" {size}"
        )
    return shape == size
