"""Padding of TensorFlow's kind ("same") in timm, for tracing with symbolic sizes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def same_padding(size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Return the padding of both sides together with which a convolution rounds sizes up.

    The number is that of ``timm.layers.get_same_padding``. That function rounds a floating-point
    quotient and takes a maximum; with symbolic sizes, every layer makes the expressions of the next
    one longer, and a trace takes many minutes. These whole numbers, none of them negative, cancel.

    Example:
        >>> [same_padding(size, kernel_size=3, stride=2, dilation=1) for size in (8, 9)]
        [1, 2]
    """
    reach = (kernel_size - 1) * dilation + 1
    padding = (size + stride - 1) // stride * stride - stride + reach - size
    return padding if reach >= stride else max(padding, 0)


@contextmanager
def exact_same_padding() -> Iterator[None]:
    """Let timm, if it is loaded, compute its padding with :func:`same_padding`."""
    module = sys.modules.get("timm.layers.padding")
    if module is None:
        yield
        return
    original = module.get_same_padding
    module.get_same_padding = same_padding  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.get_same_padding = original  # type: ignore[attr-defined]
