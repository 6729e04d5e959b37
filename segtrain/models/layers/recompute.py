"""Activation checkpointing that updates the running statistics of batch norm only once."""

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
    """Return ``function(*inputs)``, storing only the inputs; the backward pass recomputes the rest.

    The recomputation draws the same random numbers and does not change the buffers of batch norm,
    so gradients, statistics and the random state are the same as without checkpointing.

    Args:
        function: A module or a method of a module.
        *inputs: Arguments of `function`.
        layers: The modules whose running statistics `function` updates, directly or in submodules.

    Example:
        >>> import torch
        >>> layer = nn.BatchNorm2d(2, momentum=0.5)
        >>> images = torch.ones(1, 2, 4, 4, requires_grad=True)
        >>> recomputed(layer, images, layers=[layer]).sum().backward()
        >>> layer.running_mean.tolist(), layer.num_batches_tracked.item()
        ([0.5, 0.5], 1)

    References:
        Chen, Xu, Zhang and Guestrin, *Training Deep Nets with Sublinear Memory Cost*, 2016,
        https://arxiv.org/abs/1604.06174; computed with ``torch.utils.checkpoint``, which
        alone would update the running statistics twice per batch.
    """
    if torch.compiler.is_compiling():
        # A compiled graph writes each buffer once, also with recomputation.
        return checkpoint(function, *inputs, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _BorrowedStatistics(layers)

    return checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)


class _BorrowedStatistics:
    """Context in which batch norm updates copies of its buffers.

    This is a class and not a generator because a retained graph enters the context more than once.
    The buffers are copies and not None because the recomputation must save the same number of
    tensors as the forward pass.
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
