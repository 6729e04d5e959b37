"""An emulated device, to test on a CPU what depends on the device of tensors.

Inside :func:`elsewhere` a tensor on the emulated device reports the device ``meta``, and its
numbers are stored on the CPU. An operation on tensors of both devices raises, as with CUDA.
Operations that make the CPU wait for the device are recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
_READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::bincount")
_MOVES = ("aten::_to_copy", "aten::copy_")
waits: list[str] = []  # the operations for which the CPU waited, in order


class MixedDevicesError(RuntimeError):
    """An operation has tensors on the CPU and on the device."""


class Elsewhere(Tensor):
    """A tensor on the device."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        found: Elsewhere = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        found.inner = inner
        return found

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Autocast(torch.autocast):
    """There is no autocast for ``meta``."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)


def _tolist(tensor: Tensor, plain: Any = Tensor.tolist) -> Any:
    if isinstance(tensor, Elsewhere):
        waits.append("tolist")
    return plain(on_cpu(tensor))


@contextmanager
def elsewhere() -> Iterator[list[str]]:
    """Enter the emulation; the value is the list of waits."""
    waits.clear()
    with (
        mock.patch("torch.autocast", _Autocast),
        mock.patch("torch.Tensor.tolist", _tolist),
        _Mode(),
    ):
        yield waits


def on_device(tensor: Tensor) -> Elsewhere:
    """Return a copy of a tensor on the device, as a leaf."""
    return Elsewhere(tensor.detach().clone())


def on_cpu(tensor: Tensor) -> Tensor:
    """Return the stored tensor of a tensor on the device."""
    return tensor.inner if isinstance(tensor, Elsewhere) else tensor


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    _check(name, tensors, there)
    target = kwargs.get("device")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        result_is_there = torch.device(target) == DEVICE
    else:
        result_is_there = isinstance(args[0], Elsewhere) if name == "aten::copy_" else bool(there)
    places = {isinstance(tensor, Elsewhere) for tensor in tensors}
    if there and name in _READS:
        waits.append(name)
    if name in _MOVES and len(places | {result_is_there}) == 2 and any(map(Tensor.numel, tensors)):
        waits.append("copy to the device" if result_is_there else "copy to the CPU")
    inner = tree_map(on_cpu_if_tensor, (args, kwargs))
    result = func(*inner[0], **inner[1])
    known = {id(tensor.inner): tensor for tensor in there}  # results of in-place operations
    given = {id(leaf) for leaf in tree_leaves(inner)}

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if result_is_there:
            if id(value) in known:
                return known[id(value)]
            return Elsewhere(value.clone() if id(value) in given else value)
        return value

    return tree_map(wrap, result)


def on_cpu_if_tensor(value: Any) -> Any:
    return on_cpu(value) if isinstance(value, Tensor) else value


def _check(name: str, tensors: list[Tensor], there: list[Elsewhere]) -> None:
    """Raise where CUDA raises; zero-dimensional tensors may be on the CPU."""
    if any(tensor.is_meta and not isinstance(tensor, Elsewhere) for tensor in tensors):
        raise MixedDevicesError(f"{name}: made by new_tensor, which copies to the device and waits")
    here = [t for t in tensors if not isinstance(t, Elsewhere) and t.dim() > 0]
    if there and here and name not in _MOVES:
        shapes = [tuple(tensor.shape) for tensor in here]
        raise MixedDevicesError(f"{name}: tensors of {shapes} are on the CPU, others are not")
