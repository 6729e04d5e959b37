"""Match the weights of a file to those of a backbone by their order, if no name matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from segtrain.models.layers.stem import differs_in_channels

COUNT = "num_batches_tracked"
BY_ORDER = "matched by order, not by name"


@dataclass(frozen=True)
class Order:
    """The weights of a backbone and of a file, compared entry by entry.

    Attributes:
        pairs: The name in the file by the name in the model; empty if an entry differs.
        difference: The first entry that differs, in words; empty if none does.
    """

    pairs: dict[str, str]
    difference: str = ""


def compare_order(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Order:
    """Compare a file with a backbone whose weights have other names.

    Entries are alike if they have the same shape and the last part of their names is the same
    (``weight``, ``running_mean``, ...); the first convolution may have another number of input
    channels. The file may have more entries at its end, such as a classifier.

    Args:
        own: The weights of the backbone in the order of its layers.
        state: The weights of the file in their order.

    Example:
        >>> import torch
        >>> own = {"conv.weight": torch.zeros(4, 3, 1, 1), "conv.bias": torch.zeros(4)}
        >>> state = {"a.weight": torch.ones(4, 3, 1, 1), "a.bias": torch.ones(4)}
        >>> compare_order(own, {**state, "fc.weight": torch.ones(9, 4)}).pairs
        {'conv.weight': 'a.weight', 'conv.bias': 'a.bias'}
        >>> compare_order(own, {**state, "a.bias": torch.ones(5)}).difference
        'entry 2 is a.bias (5,) in the file and conv.bias (4,) in the model'
    """
    has_counts = any(key.endswith(COUNT) for key in state)  # files of PyTorch 0.4.0 have none
    ours = [key for key in own if has_counts or not key.endswith(COUNT)]
    stem = next((key for key in ours if own[key].dim() == 4), None)
    for index, (our, their) in enumerate(zip(ours, state, strict=False)):
        a, b = own[our], state[their]
        is_same_shape = a.shape == b.shape or (our == stem and differs_in_channels(b, a))
        if not is_same_shape or our.split(".")[-1] != their.split(".")[-1]:
            return Order(
                {}, f"entry {index + 1} is {_named(their, b, 'file')} and {_named(our, a, 'model')}"
            )
    if len(state) < len(ours):
        absent = ours[len(state)]
        return Order({}, f"the file ends before {_named(absent, own[absent], 'model')}")
    return Order(dict(zip(ours, state, strict=False)))


def _named(key: str, value: Tensor, where: str) -> str:
    return f"{key} {tuple(value.shape)} in the {where}"
