"""The check of the values of weights, wherever a file of weights is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segtrain.errors import CheckpointError


def check_values(
    values: Mapping[str, Any], source: object, own: Mapping[str, Tensor] | None = None
) -> None:
    """Check that weights are dense tensors of finite real numbers.

    Args:
        values: The weights by name; what is not a tensor (``get_extra_state``) is not checked.
        source: The file that they come from, for messages.
        own: The state dict of the model before loading. An entry that is not finite there, such as
            a mask of attention, does not have to be finite in the file.

    Raises:
        CheckpointError: If they are not.

    Example:
        >>> check_values({"weight": torch.ones(2)}, "best.pt")
        >>> check_values({"weight": torch.tensor([1.0, float("nan")])}, "best.pt")
        Traceback (most recent call last):
        segtrain.errors.CheckpointError: best.pt: weight contains NaN or infinity; ...
    """
    for key, value in values.items():
        if not isinstance(value, Tensor):
            continue
        is_plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
        if not is_plain or value.is_complex():
            raise CheckpointError(
                f"{source}: {key} is not a dense tensor of real numbers; nothing was loaded"
            )
        if not _is_finite(value) and (own is None or key not in own or _is_finite(own[key])):
            raise CheckpointError(
                f"{source}: {key} contains NaN or infinity; nothing was loaded, use an earlier"
                " checkpoint"
            )


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.float().isfinite().all())
