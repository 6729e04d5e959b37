"""The names of the losses, and how a plain function becomes one of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses.base import Loss, Term
from segtrain.losses.families.pixel import PixelLoss
from segtrain.schema.registry import Registry
from segtrain.schema.values import parameters

LOSSES: Registry[Loss] = Registry("loss")
R = TypeVar("R", bound=Callable[..., Any])

_FILLED_IN = ("num_classes", "ignore_label")  # what a function may ask for and no config sets
_PROBE_SIZE = 16  # rows and columns of the tensors with which a function is asked what it returns
_MOST_PROBED_IDS = _PROBE_SIZE**2


def register_loss(name: str) -> Callable[[R], R]:
    """A decorator that makes a function or a :class:`Loss` subclass selectable as ``loss=name``.

    A function takes ``(logits, target)`` and keyword parameters with defaults and types, which
    become the keys of its config. A parameter called ``num_classes`` or ``ignore_label`` is filled
    in. What it returns decides what it is:

    - A map ``(N, H, W)``: ignored pixels come as class 0 and are dropped afterwards, and class
      weights, mining and strips are taken care of. Strips ask for a few rows of the image at a
      time, so each pixel's loss has to follow from that pixel alone.
    - A scalar: it sees all logits and the target as it is, ``ignore_label`` included, and there is
      no mining, no class weights and no strips.

    A function that looks at neighbouring pixels, or divides by a sum or a maximum over the image,
    must therefore return a scalar and not a map. Or it becomes a class: a :class:`PixelLoss` with a
    ``context``, where it is the target around a pixel that it looks at, or with ``can_strip =
    False``, where it is the logits; or a :class:`ClassMapLoss`. In no case may it change the logits
    in place.

    Raises:
        ConfigError: When the name is taken; when a function is built, if it fails on a trial batch
            that shows every class id, or returns neither a map nor a scalar.
        TypeError: When what is decorated is neither a function of two tensors nor a :class:`Loss`.

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
            LOSSES.register(name)(_factory_of(part, name))
        else:
            raise TypeError(
                f"register_loss({name!r}) takes a function of (logits, target) or a Loss class,"
                f" got {part!r}"
            )
        return part

    return decorate


def _factory_of(function: Callable[..., Tensor], name: str) -> Callable[..., Loss]:
    """A constructor for `function` with its own parameters and those of a pixel loss."""
    wanted = list(inspect.signature(function).parameters.values())[2:]
    filled = [item.name for item in wanted if item.name in _FILLED_IN]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    own = [item for item in wanted if item.name not in filled and item.kind not in variadic]
    taken = {parameter.name for parameter in own}
    common = [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default_of(item),
            annotation=item.annotation,
        )
        for item in parameters(PixelLoss).values()
        if item.name not in taken
    ]

    def factory(**given: Any) -> Loss:
        shared = {"ignore_label": 255} | {key: given[key] for key in given if key not in taken}
        passed = {key: given[key] for key in given if key in taken}
        passed |= {key: shared[key] for key in filled}
        loss = _FunctionLoss(function, passed, **shared)
        loss.registered_name = name  # type: ignore[misc]
        return loss if _returns_map(loss, name) else _scalar_loss(function, passed, shared, name)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    signature = inspect.Signature([*keyword_only, *common])
    factory.__signature__ = signature  # type: ignore[attr-defined]
    hints = {item.name: item.annotation for item in parameters(function).values()}
    hints |= {item.name: item.annotation for item in common}
    factory.__annotations__ = {
        key: hint for key, hint in hints.items() if key not in ("logits", "target")
    }
    factory.__doc__ = function.__doc__
    return factory


def _default_of(item: Any) -> Any:
    return inspect.Parameter.empty if item.required else item.default


class _FunctionLoss(PixelLoss):
    """A function ``(logits, target, **params)`` that returns a map of pixel losses."""

    def __init__(
        self, function: Callable[..., Tensor], params: Mapping[str, Any], **common: Any
    ) -> None:
        super().__init__(**common)
        self.function = function
        self.params = dict(params)

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.function(logits, target, **self.params)


class _ScalarFunctionLoss(Term):
    """A function that returns one number: no mining, no class weights, no strips."""

    can_strip = False

    def __init__(
        self, function: Callable[..., Tensor], params: Mapping[str, Any], **common: Any
    ) -> None:
        super().__init__(**common)
        self.function = function
        self.params = dict(params)

    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        valid = self.valid(target)
        if not bool(valid.any()):  # a mean over nothing is the function's business nowhere
            return logits.sum() * 0
        # The value may depend on the ignored pixels as the function likes; a gradient must not
        # reach them.
        logits = torch.where(valid[:, None], logits, logits.detach())
        return self.function(logits, target, **self.params)


def _returns_map(loss: _FunctionLoss, name: str) -> bool:
    """Whether the function returns a map or a number, asked with zeros and every class id."""
    size = (1, _PROBE_SIZE, _PROBE_SIZE)
    logits = torch.zeros(1, loss.num_classes, *size[1:])
    largest = max(loss.num_classes, 2) - 1  # one channel tells two classes apart
    # Of more classes than the trial has pixels: evenly, with the first and the last.
    target = torch.linspace(0, largest, _MOST_PROBED_IDS).round().long().reshape(size)
    try:
        with torch.no_grad():
            result = loss.function(logits, target, **loss.params)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
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


def _scalar_loss(
    function: Callable[..., Tensor], passed: Mapping[str, Any], shared: dict[str, Any], name: str
) -> Loss:
    for key in ("class_weights", "mining"):
        if shared.pop(key, None) not in (None, "none", {"name": "none"}):
            raise ConfigError(
                f"loss {name!r} returns one number, so {key} has nothing to act on; return a map"
                " (N, H, W)"
            )
    loss = _ScalarFunctionLoss(function, passed, **shared)
    loss.registered_name = name  # type: ignore[misc]
    return loss
