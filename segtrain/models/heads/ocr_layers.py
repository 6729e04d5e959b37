r"""Object-contextual representations: every pixel attends to the regions of all classes.

A first classifier divides the image into soft object regions, one per class. Each class is
represented by the mean of the pixel features over its region. Attention from the pixels to these
few representations gives each pixel a context, and a second classifier predicts the class from
pixel and context together:

.. code-block:: text

    features -+- aux_head ------------ softmax over the pixels -+
              |                                                 v
              +- conv3x3_ocr -- pixels ------------------ regions (one per class)
                                  |                             |
                                  +------- attention -----------+
                                  |            v
                                  +-------- context -- conv_bn_dropout -- cls_head

Written for segtrain, with the submodule names of the official code, so that its weight files load
by name. Differences from it: the attention map of pixels by classes is not kept in memory, pixels
and context are never concatenated in memory, and the softmax over the pixels is computed at least
in float32.

References:
    Yuan, Chen and Wang, *Object-Contextual Representations for Semantic Segmentation*, ECCV 2020,
    https://arxiv.org/abs/1909.11065, equations 2 to 5. Layers as in
    https://github.com/HRNet/HRNet-Semantic-Segmentation (MIT), branch HRNet-OCR.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.errors import NormError
from segtrain.models.heads.base import check_dropout, check_widths
from segtrain.models.heads.hrnetv2 import HRNetHead
from segtrain.models.layers.init import init_classifier, init_layers
from segtrain.models.layers.resize import resize_as


class OCRLayers(nn.Module):
    """The layers of OCR as attributes of a model or a head.

    Inherit from it before the base class of the model or head: its constructor first runs that of
    the base class. The layers are attributes and not a submodule so that their names are those of
    the official weight files.

    Args:
        ocr_channels: Width of the pixel features and of the region representations.
        key_channels: Width of the attention.
        dropout: Probability of zeroing a channel before the main classifier during training; the
            auxiliary classifier has no dropout.
        scale: Side of the max pooling windows. Only the pooled features attend to the regions, and
            their context is resized back; 1 means no pooling.
        **common: Arguments of the base class.

    Raises:
        ConfigError: If a width or `scale` is below 1, or `dropout` is outside [0, 1).
    """

    align_corners: bool
    num_classes: int
    feature_channels: int

    def __init__(
        self,
        *,
        ocr_channels: int = 512,
        key_channels: int = 256,
        dropout: float = 0.05,
        scale: int = 1,
        **common: Any,
    ) -> None:
        check_widths(ocr_channels=ocr_channels, key_channels=key_channels, scale=scale)
        check_dropout(dropout)
        super().__init__(dropout=dropout, **common)
        self.scale = scale
        in_channels, num_classes = self.feature_channels, self.num_classes
        self.conv3x3_ocr = nn.Sequential(
            nn.Conv2d(in_channels, ocr_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(ocr_channels),
            nn.ReLU(inplace=True),
        )
        self.ocr_distri_head = ObjectContext(
            ocr_channels, key_channels, dropout, scale, align_corners=self.align_corners
        )
        self.cls_head = nn.Conv2d(ocr_channels, num_classes, kernel_size=1)
        self.aux_head = HRNetHead(in_channels=in_channels, num_classes=num_classes)
        init_layers(self.conv3x3_ocr)
        init_layers(self.ocr_distri_head)
        init_classifier(self.cls_head)

    def pooled_stride(self, stride: float) -> int:
        """Largest image side that gives a single feature after pooling, for features at `stride`.

        Batch norm follows the pooling, so this is a candidate for `norm_stride`.
        """
        return int(stride * (2 * self.scale - 1))

    def ocr_outputs(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of both classifiers at the resolution of `features`.

        Shape:
            - features: ``(N, feature_channels, h, w)``.
            - output: ``(N, num_classes, h, w)`` under ``"out"`` and ``"aux"``.

        Raises:
            NormError: If batch norm would train on a single value per channel: the representation
                of the only class in the only image.
        """
        if self.training and self.cls_head.out_channels == 1 and features.shape[0] == 1:
            raise NormError(
                "batch norm cannot train on one value per channel, which OCR has with one class and"
                " one image: use at least 2 images in a batch or 2 classes"
            )
        aux = self.aux_head(features)
        pixels = self.conv3x3_ocr(features)
        fused = self.ocr_distri_head(pixels, gather(pixels, aux))
        return {"out": self.cls_head(fused), "aux": aux}


def gather(pixels: Tensor, logits: Tensor) -> Tensor:
    r"""Compute the mean of the pixel features over the soft region of each class.

    .. math:: f_k = \sum_i \frac{e^{z_{ki}}}{\sum_j e^{z_{kj}}} x_i

    Args:
        pixels: The pixel features x.
        logits: The scores z; their softmax over the pixels is the region of each class.

    Shape:
        - pixels: ``(N, C, h, w)``.
        - logits: ``(N, K, h, w)``.
        - output: ``(N, C, K, 1)``.

    Example:
        >>> pixels = torch.tensor([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 2, 2)
        >>> gather(pixels, torch.zeros(1, 5, 2, 2)).flatten().tolist()
        [3.0, 3.0, 3.0, 3.0, 3.0]
    """
    # Autocast would compute a softmax over many thousands of pixels in 16 bits.
    exact = torch.promote_types(logits.dtype, torch.float32)
    shares = logits.flatten(2).softmax(-1, dtype=exact).to(pixels.dtype)
    regions = torch.matmul(shares, pixels.flatten(2).transpose(1, 2))
    return regions.transpose(1, 2).unsqueeze(-1)


class ObjectContext(nn.Module):
    """Mix the pixel features with the context that attention gives them."""

    def __init__(
        self, channels: int, key_channels: int, dropout: float, scale: int, *, align_corners: bool
    ) -> None:
        super().__init__()
        self.object_context_block = ObjectAttention(
            channels, key_channels, scale, align_corners=align_corners
        )
        self.conv_bn_dropout = nn.Sequential(
            nn.Conv2d(2 * channels, channels, kernel_size=1, bias=False),
            _norm_relu(channels),
            nn.Dropout2d(dropout),
        )

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """``(N, C, h, w)`` and ``(N, C, K, 1)`` -> ``(N, C, h, w)``."""
        context = self.object_context_block(pixels, regions)
        conv, norm_relu, dropout = self.conv_bn_dropout
        assert isinstance(conv, nn.Conv2d)
        # The 1x1 convolution of the concatenation, computed without concatenating.
        context_weight, pixel_weight = conv.weight.chunk(2, dim=1)
        mixed = F.conv2d(context, context_weight).add_(F.conv2d(pixels, pixel_weight))
        fused: Tensor = dropout(norm_relu(mixed))
        return fused


class ObjectAttention(nn.Module):
    """Attention from the pixels to the regions.

    With a `scale` above 1 only the maxima over windows of ``scale x scale`` pixels are queries, and
    their context is resized back.
    """

    def __init__(
        self, channels: int, key_channels: int, scale: int, *, align_corners: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        self.align_corners = align_corners
        self.f_pixel = _two_layers(channels, key_channels)
        self.f_object = _two_layers(channels, key_channels)
        self.f_down = nn.Sequential(_conv1x1(channels, key_channels), _norm_relu(key_channels))
        self.f_up = nn.Sequential(_conv1x1(key_channels, channels), _norm_relu(channels))

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """``(N, C, h, w)`` and ``(N, C, K, 1)`` -> ``(N, C, h, w)``."""
        queries = pixels if self.scale == 1 else self._pool(pixels)
        query = self.f_pixel(queries)
        # One attention head: softmax of query x key / sqrt(key_channels), times value.
        tokens = F.scaled_dot_product_attention(
            _as_tokens(query), _as_tokens(self.f_object(regions)), _as_tokens(self.f_down(regions))
        )
        context: Tensor = self.f_up(tokens.squeeze(1).transpose(1, 2).reshape(query.shape))
        if self.scale == 1:
            return context
        return resize_as(context, pixels, align_corners=self.align_corners)

    def _pool(self, pixels: Tensor) -> Tensor:
        # A window is at most as large as the feature map, which may be smaller than `scale`.
        return F.max_pool2d(pixels, tuple(min(self.scale, side) for side in pixels.shape[-2:]))


def _as_tokens(features: Tensor) -> Tensor:
    """``(N, C, h, w)`` -> ``(N, 1, h * w, C)``; no copy for channels_last."""
    return features.flatten(2).transpose(1, 2).unsqueeze(1)


def _two_layers(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        _conv1x1(in_channels, channels),
        _norm_relu(channels),
        _conv1x1(channels, channels),
        _norm_relu(channels),
    )


def _conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)


def _norm_relu(channels: int) -> nn.Sequential:
    # Nested, because the official keys are f_pixel.1.0, not f_pixel.1.
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
