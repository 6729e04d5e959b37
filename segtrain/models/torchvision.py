"""The segmentation models of torchvision, with the names of its weight files."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor, nn

from segtrain.models.backbones.torchvision import imagenet_weights, new_stem
from segtrain.models.heads.base import check_dropout
from segtrain.models.layers.resize import resize_as
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor


class TorchvisionSegmentor(Segmentor):
    """Base class of the models of torchvision: a backbone and a classifier.

    The layers, their initial weights and the names in ``state_dict()`` are those of torchvision, so
    its COCO weights load. The logits have the resolution of the features: torchvision upsamples
    them to the image, segtrain leaves this to the criterion and the predictor.

    Args:
        **common: As in :class:`~segtrain.models.Segmentor`.

    Attributes:
        imagenet_name: The classifier of torchvision that provides the ImageNet weights.
        imagenet_prefix: Prefix of the backbone's weights in that classifier.
    """

    head_prefixes: ClassVar[tuple[str, ...]] = ("classifier", "aux_classifier")
    backbone_prefix = "backbone."
    imagenet_name: ClassVar[str]
    imagenet_prefix: ClassVar[str] = ""
    paper_size = (520, 520)

    def _take(self, net: Any, stem: str) -> None:
        """Take over the parts of `net`, with a stem for the channels of the images."""
        self.backbone: nn.Module = net.backbone
        self.classifier: nn.Module = net.classifier
        parent, _, name = stem.rpartition(".")
        conv = self.backbone.get_submodule(stem)
        assert isinstance(conv, nn.Conv2d)
        setattr(self.backbone.get_submodule(parent), name, new_stem(conv, self.in_channels))

    def pretrained_backbone(self) -> dict[str, Tensor]:
        """Return the default ImageNet weights of torchvision, without the classifier."""
        own = self.state_dict()
        renamed = {
            f"{self.backbone_prefix}{key.removeprefix(self.imagenet_prefix)}": value
            for key, value in imagenet_weights(self.imagenet_name).items()
        }
        return {key: value for key, value in renamed.items() if key in own}


class _ResNetSegmentor(TorchvisionSegmentor):
    """A ResNet-50 whose last two stages are dilated instead of strided."""

    imagenet_name = "resnet50"
    architecture: ClassVar[str]

    def __init__(self, *, aux_head: bool, dropout: float, **common: Any) -> None:
        from torchvision.models import segmentation  # noqa: PLC0415  slow to import, and not always needed

        super().__init__(**common)
        check_dropout(dropout)
        net = getattr(segmentation, self.architecture)(
            weights=None,
            weights_backbone=None,
            num_classes=self.num_classes,
            aux_loss=aux_head,
        )
        self._take(net, "conv1")
        self.aux_classifier: nn.Module | None = net.aux_classifier
        for layer in self.classifier.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = dropout

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits by output name; see the class for shapes.

        Raises:
            ValueError: If the shape of `images` is not ``(N, in_channels, H, W)``, or batch norm
                would train on a single value per channel.
            TypeError: If their dtype is not floating point.
        """
        self.check_images(images)
        features = self.backbone(images)
        outputs = {"out": self.classifier(features["out"])}
        if self.aux_classifier is not None:
            outputs["aux"] = self.aux_classifier(features["aux"])
        return outputs


@MODELS.register("fcn_resnet50")
class FCNResNet50(_ResNetSegmentor):
    """A fully convolutional network on a ResNet-50 dilated to stride 8, from torchvision.

    Args:
        aux_head: Add the output ``"aux"``: a second head on the third stage.
        dropout: Probability of dropout before the classifier during training; it is always 0.1
            before the classifier of ``"aux"``.
        **common: As in :class:`~segtrain.models.Segmentor`.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; to train on a single
          image, its height or width must exceed 8 pixels.
        - output: ``(N, num_classes, ceil(H / 8), ceil(W / 8))`` under ``"out"``, and ``"aux"`` with
          `aux_head`.

    Raises:
        ConfigError: If `dropout` is outside [0, 1).

    Example:
        >>> import torch
        >>> model = MODELS.build("fcn_resnet50", num_classes=19).eval()
        >>> model(torch.zeros(1, 3, 75, 117))["out"].shape
        torch.Size([1, 19, 10, 15])

    References:
        Long, Shelhamer and Darrell, *Fully Convolutional Networks for Semantic Segmentation*, CVPR
        2015, https://arxiv.org/abs/1411.4038. The paper has strides up to 32 and skip connections;
        torchvision dilates instead.
    """

    architecture = "fcn_resnet50"
    norm_stride = 8
    source = "torchvision; Long et al., CVPR 2015"

    def __init__(self, *, aux_head: bool = False, dropout: float = 0.1, **common: Any) -> None:
        super().__init__(aux_head=aux_head, dropout=dropout, **common)


@MODELS.register("deeplabv3_resnet50")
class DeepLabV3ResNet50(_ResNetSegmentor):
    """DeepLabV3 on a ResNet-50 dilated to stride 8, from torchvision.

    Args:
        aux_head: Add the output ``"aux"``: an FCN head on the third stage.
        dropout: Probability of dropout after the pyramid during training; it is always 0.1 before
            the classifier of ``"aux"``.
        **common: As in :class:`~segtrain.models.Segmentor`.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; at least 2 images to train,
          because batch norm follows the image pooling.
        - output: ``(N, num_classes, ceil(H / 8), ceil(W / 8))`` under ``"out"``, and ``"aux"`` with
          `aux_head`.

    Raises:
        ConfigError: If `dropout` is outside [0, 1).

    Example:
        >>> import torch
        >>> model = MODELS.build("deeplabv3_resnet50", num_classes=19, aux_head=True).eval()
        >>> outputs = model(torch.zeros(1, 3, 75, 117))
        >>> {name: tuple(logits.shape) for name, logits in outputs.items()}
        {'out': (1, 19, 10, 15), 'aux': (1, 19, 10, 15)}

    References:
        Chen, Papandreou, Schroff and Adam, *Rethinking Atrous Convolution for Semantic Image
        Segmentation*, 2017, https://arxiv.org/abs/1706.05587. The
        pyramid has the dilations 12, 24 and 36, as in the paper at stride 8; torchvision adds a 3x3
        convolution after it.
    """

    architecture = "deeplabv3_resnet50"
    norm_stride = math.inf
    source = "torchvision; Chen et al., 2017"

    def __init__(self, *, aux_head: bool = False, dropout: float = 0.5, **common: Any) -> None:
        super().__init__(aux_head=aux_head, dropout=dropout, **common)


@MODELS.register("lraspp_mobilenet_v3_large")
class LRASPPMobileNetV3Large(TorchvisionSegmentor):
    """Lite R-ASPP on a MobileNetV3-Large dilated to stride 16, from torchvision.

    Args:
        **common: As in :class:`~segtrain.models.Segmentor`. `align_corners` also applies to
            the resize inside the head, where torchvision always uses false.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; to train on a single
          image, its height or width must exceed 16 pixels.
        - output: ``(N, num_classes, ceil(H / 8), ceil(W / 8))`` under ``"out"``.

    Example:
        >>> import torch
        >>> model = MODELS.build("lraspp_mobilenet_v3_large", num_classes=19).eval()
        >>> model(torch.zeros(1, 3, 75, 117))["out"].shape
        torch.Size([1, 19, 10, 15])

    References:
        Howard et al., *Searching for MobileNetV3*, ICCV 2019, https://arxiv.org/abs/1905.02244. The
        paper averages over large windows with a stride; torchvision averages over the image.
    """

    norm_stride = 16
    imagenet_name = "mobilenet_v3_large"
    imagenet_prefix = "features."
    source = "torchvision; Howard et al., ICCV 2019"

    def __init__(self, **common: Any) -> None:
        from torchvision.models import segmentation  # noqa: PLC0415

        super().__init__(**common)
        net = segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=self.num_classes
        )
        self._take(net, "0.0")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits under ``"out"``; see the class for shapes.

        Raises:
            ValueError: If the shape of `images` is not ``(N, in_channels, H, W)``, or batch norm
                would train on a single value per channel.
            TypeError: If their dtype is not floating point.
        """
        self.check_images(images)
        features = self.backbone(images)
        low, high = features["low"], features["high"]
        head: Any = self.classifier
        mixed = resize_as(head.cbr(high) * head.scale(high), low, align_corners=self.align_corners)
        return {"out": head.low_classifier(low) + head.high_classifier(mixed)}
