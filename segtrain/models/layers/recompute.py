"""Activation checkpointing that leaves the running statistics of batch norm alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recomputed(function: Callable[..., Any], *inputs: Tensor, layers: Sequence[nn.Module]) -> Any:
    """``function(*inputs)``, keeping only the inputs; the backward pass computes the rest again.

    The second pass draws the same random numbers and leaves the buffers of batch norm as the first
    left them, so gradients, statistics and the random state are those of a plain call.

    Args:
        function: What to compute; a module or a method of one.
        *inputs: Its arguments.
        layers: The modules whose running statistics `function` updates; those inside them count.

    Example:
        >>> import torch
        >>> layer = nn.BatchNorm2d(2, momentum=0.5)
        >>> images = torch.ones(1, 2, 4, 4, requires_grad=True)
        >>> recomputed(layer, images, layers=[layer]).sum().backward()
        >>> layer.running_mean.tolist(), layer.num_batches_tracked.item()
        ([0.5, 0.5], 1)

    References:
        Chen, Xu, Zhang and Guestrin, *Training Deep Nets with Sublinear Memory Cost*, 2016,
        https://arxiv.org/abs/1604.06174; the mechanism is ``torch.utils.checkpoint``, which by
        itself would count every batch twice in the running statistics.
    """
    if torch.compiler.is_compiling():
        # A compiled graph writes each buffer once, whatever it computes again.
        return checkpoint(function, *inputs, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _BorrowedStatistics(layers)

    return checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)


class _BorrowedStatistics:
    """Batch norm updates copies of its buffers in here.

    A class and not a generator: a graph that is kept is gone through, and entered, more than once.
    Copies and not None: the backward pass wants as many saved tensors as the forward pass kept.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = layers
        self._own: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        for layer in chain.from_iterable(layer.modules() for layer in self._layers):
            for name, buffer in list(layer.named_buffers(recurse=False)):
                if name in _STATISTICS:
                    self._own.append((layer, name, buffer))
                    setattr(layer, name, buffer.clone())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._own:
            layer, name, buffer = self._own.pop()
            setattr(layer, name, buffer)
