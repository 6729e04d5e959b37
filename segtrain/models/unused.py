"""Parameters and features that a model does not use, found on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

_SIDE = 64


def unused_parameters(model: nn.Module, in_channels: int, *, side: int = _SIDE) -> tuple[str, ...]:
    """Names of the parameters that no output of `model` depends on.

    In distributed training every trainable parameter must receive a gradient, so the others have to
    be frozen. A backward pass through a copy of the model on the meta device finds them. The result
    is empty if the model cannot run there.

    Args:
        model: Maps images to a tensor, or to a list or mapping of tensors.
        in_channels: Number of channels of the images.
        side: Height and width of an image that the model accepts.

    Example:
        >>> class Half(nn.Module):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.used, self.idle = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False)
        ...
        ...     def forward(self, images: Tensor) -> Tensor:
        ...         return self.used(images)
        >>> unused_parameters(Half(), 3)
        ('idle.weight',)
    """
    trial = _without_data(model).train()  # some attention layers detach biases in eval mode
    if not _backward(trial, torch.zeros(2, in_channels, side, side, device="meta")):
        return ()
    return tuple(name for name, weight in trial.named_parameters() if weight.grad is None)


def called_modules(model: nn.Module, in_channels: int, *, side: int = _SIDE) -> set[str] | None:
    """Names of the modules that a forward pass of `model` calls.

    Others may be used without a call: some attention layers read the weight of a linear layer. The
    result is None if the model cannot run on the meta device.

    Args:
        model: Maps images to a tensor, or to a list or mapping of tensors.
        in_channels: Number of channels of the images.
        side: Height and width of an image that the model accepts.

    Example:
        >>> called_modules(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), 3) == {"", "0", "1"}
        True
    """
    trial = _without_data(model).eval()
    called: set[str] = set()
    for name, module in trial.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    try:
        with torch.no_grad():
            trial(torch.zeros(2, in_channels, side, side, device="meta"))
    except Exception:  # noqa: BLE001  a custom model may read the values
        return None
    return called


def unread_features(head: nn.Module, channels: Sequence[int]) -> set[int]:
    """Indices of the feature maps that no output of `head` depends on.

    All indices are returned if `head` cannot run on the meta device.

    Args:
        head: Maps a list of feature maps to a tensor, or to a list or mapping of tensors.
        channels: Number of channels of each feature map.

    Example:
        >>> from segtrain.models.heads.fcn import FCNHead
        >>> channels, strides = (4, 8, 16), (4, 8, 16)
        >>> head = FCNHead(in_channels=channels, strides=strides, num_classes=3)
        >>> unread_features(head, channels)
        {0, 1}
    """
    features = [
        torch.zeros(2, width, 4, 4, device="meta", requires_grad=True) for width in channels
    ]
    _backward(_without_data(head).train(), features)
    return {index for index, feature in enumerate(features) if feature.grad is None}


def _backward(trial: nn.Module, inputs: object) -> bool:
    """Run a forward and a backward pass; return whether both succeeded."""
    try:
        with torch.enable_grad():
            torch.autograd.backward(_total(trial(inputs)))
    except Exception:  # noqa: BLE001  a custom model may read the values
        return False
    return True


def _without_data(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device."""
    known: dict[int, object] = {
        id(weight): nn.Parameter(weight.detach().to("meta")) for weight in model.parameters()
    }
    known |= {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    return copy.deepcopy(model, known)


def _total(outputs: object) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs.sum()
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return torch.stack([_total(value) for value in values]).sum()  # type: ignore[attr-defined]
