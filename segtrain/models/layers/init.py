"""How the weights of our own models start."""

from __future__ import annotations

from torch import nn

_CLASSIFIER_STD = 0.01


def init_layers(module: nn.Module) -> None:
    """Kaiming-normal convolutions (fan-out, ReLU), zero biases, batch norms with weight 1, bias 0.

    The official HRNet code draws every convolution from a normal distribution of standard deviation
    0.001, which is of no matter where ImageNet weights overwrite the trunk. From scratch, on random
    images in w18_small_v1, the variances that batch norm then divides by lie between 1e-5 and 2e-3,
    in places no larger than its epsilon of 1e-5, so those layers are normalised in part only. With
    Kaiming they lie between 0.1 and 40.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def init_classifier(conv: nn.Conv2d) -> None:
    """Small weights and zero bias, so that training starts near uniform class probabilities."""
    nn.init.normal_(conv.weight, std=_CLASSIFIER_STD)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
