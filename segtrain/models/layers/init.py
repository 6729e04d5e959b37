"""Initial weights of the built-in models."""

from __future__ import annotations

from torch import nn

_CLASSIFIER_STD = 0.01


def init_layers(module: nn.Module) -> None:
    """Initialise convolutions with Kaiming normal (fan-out) and batch norms with 1; biases are 0.

    The official HRNet code draws every convolution from a normal distribution with standard
    deviation 0.001. This has no effect if ImageNet weights overwrite the trunk. From scratch, on
    random images in w18_small_v1, batch norm then divides by variances between 1e-5 and 2e-3. Some
    are as small as its epsilon of 1e-5, so those layers are only partly normalised. With Kaiming
    initialisation the variances lie between 0.1 and 40.
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
    """Initialise with small weights and zero bias, for nearly uniform class probabilities."""
    nn.init.normal_(conv.weight, std=_CLASSIFIER_STD)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
