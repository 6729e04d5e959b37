"""HRNetV2 and HRNet-OCR for segmentation: a trunk with heads, registered for every variant."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.backbones.hrnet import (
    HRNET_STRIDES,
    VARIANTS,
    HRNetTrunk,
    HRNetVariant,
    find_variant,
    imagenet_trunk,
)
from segtrain.models.heads import HRNetHead
from segtrain.models.heads.ocr_layers import OCRLayers
from segtrain.models.layers.resize import Resizing, concatenate
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor


class HRNetModel(Segmentor, HRNetTrunk):
    """Base of the HRNet models: a trunk with task heads; a subclass computes the output ``"out"``.

    Args:
        variant: A key of `VARIANTS`, or a custom variant.
        task_heads: Additional outputs: a mapping from the name of the output to its number of
            channels, such as ``{"boundary": 1, "distance": 1}``. Each gets a head in the layout of
            HRNetV2; the criterion decides what it learns.
        dropout: Probability of zeroing a channel before each classifier during training.
        fusion: As in :class:`~segtrain.models.backbones.hrnet.HRNet`.
        activation_checkpointing: As in :class:`~segtrain.models.backbones.hrnet.HRNet`.
        **common: As in :class:`~segtrain.models.Segmentor`.

    Raises:
        ConfigError: If `variant` is unknown, `dropout` is outside [0, 1), or a task head has no
            channels or a name that is taken.
    """

    norm_stride = HRNET_STRIDES[-1]
    source = "Wang, Sun et al., TPAMI 2020"
    paper_size = (1024, 2048)

    def __init__(
        self,
        *,
        variant: str | HRNetVariant,
        task_heads: dict[str, int] | None = None,
        dropout: float = 0.0,
        fusion: Resizing = "bilinear",
        activation_checkpointing: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.variant = find_variant(variant)
        self.feature_channels = sum(self.variant.branch_channels)
        self.dropout = dropout
        self.add_trunk(
            self.variant, fusion=fusion, activation_checkpointing=activation_checkpointing
        )
        for name, channels in (task_heads or {}).items():
            if name in ("out", "aux") or not name.isidentifier() or channels < 1:
                raise ConfigError(
                    "task_heads needs names other than out and aux, and at least 1 channel each,"
                    f" got {name}: {channels}"
                )
        self.task_heads = nn.ModuleDict(
            {name: self.new_head(channels) for name, channels in (task_heads or {}).items()}
        )

    def new_head(self, num_classes: int) -> HRNetHead:
        """Return a new head in the layout of HRNetV2 for the concatenated branches."""
        return HRNetHead(
            in_channels=self.feature_channels, num_classes=num_classes, dropout=self.dropout
        )

    def features(self, images: Tensor) -> Tensor:
        """Concatenated branches, ``(N, sum of C_i, ceil(H / 4), ceil(W / 4))``."""
        self.check_images(images)
        return concatenate(self.branches(images), align_corners=self.align_corners)

    def task_outputs(self, features: Tensor) -> dict[str, Tensor]:
        """Outputs of the task heads, by name."""
        return {name: head(features) for name, head in self.task_heads.items()}

    def pretrained_backbone(self) -> dict[str, Tensor]:
        return imagenet_trunk(self.variant)


class HRNetSegmentor(HRNetModel):
    """HRNetV2.

    Without the auxiliary head, ``state_dict()`` has the keys and shapes of the official
    ``seg_hrnet``.

    Args:
        aux_head: Add the output ``"aux"``: a second head of the same layout on the same features,
            as in HRNet-OCR.
        **common: As in :class:`HRNetModel`.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; to train on a single image,
          its height or width must exceed 32 pixels.
        - output: ``(N, num_classes, ceil(H / 4), ceil(W / 4))`` under ``"out"`` and, with
          `aux_head`, under ``"aux"``; the outputs of `task_heads` have their own channels.

    Example:
        >>> import torch
        >>> model = MODELS.build("hrnet_w18_small_v1", num_classes=19, aux_head=True).eval()
        >>> outputs = model(torch.zeros(1, 3, 75, 117))
        >>> {name: tuple(logits.shape) for name, logits in outputs.items()}
        {'out': (1, 19, 19, 30), 'aux': (1, 19, 19, 30)}
    """

    head_prefixes: ClassVar[tuple[str, ...]] = ("last_layer", "aux_head", "task_heads")

    def __init__(self, *, aux_head: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.last_layer = self.new_head(self.num_classes)
        self.aux_head = self.new_head(self.num_classes) if aux_head else None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits by output name; see the class for shapes.

        Raises:
            ValueError: If the shape of `images` is not ``(N, in_channels, H, W)``.
            TypeError: If their dtype is not floating point.
        """
        features = self.features(images)
        outputs = {"out": self.last_layer(features)}
        if self.aux_head is not None:
            outputs["aux"] = self.aux_head(features)
        return outputs | self.task_outputs(features)


class HRNetOCRSegmentor(OCRLayers, HRNetModel):
    """HRNetV2 trunk with object-contextual representations.

    ``state_dict()`` has the keys and shapes of the official ``seg_hrnet_ocr``. By default the
    criterion weights ``"out"`` by 1 and ``"aux"`` by 0.4, as the official recipes do.

    Args:
        **common: As in :class:`~segtrain.models.heads.ocr_layers.OCRLayers` and
            :class:`HRNetModel`. `dropout` also applies to the task heads.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; to train on a single image,
          its height or width must exceed 32 pixels and `num_classes` must be at least 2.
        - output: ``(N, num_classes, ceil(H / 4), ceil(W / 4))`` under ``"out"`` and ``"aux"``; the
          outputs of `task_heads` have their own channels.

    Raises:
        ConfigError: If a width or `scale` is below 1, or as in :class:`HRNetModel`.

    Example:
        >>> import torch
        >>> model = MODELS.build("hrnet_w18_small_v1_ocr", num_classes=19).eval()
        >>> outputs = model(torch.zeros(1, 3, 75, 117))
        >>> {name: tuple(logits.shape) for name, logits in outputs.items()}
        {'out': (1, 19, 19, 30), 'aux': (1, 19, 19, 30)}

    References:
        :mod:`segtrain.models.heads.ocr_layers`.
    """

    head_prefixes: ClassVar[tuple[str, ...]] = (
        *("conv3x3_ocr", "ocr_distri_head", "cls_head", "aux_head"),
        "task_heads",
    )
    source = "Yuan, Chen and Wang, ECCV 2020"

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.norm_stride = max(HRNET_STRIDES[-1], self.pooled_stride(HRNET_STRIDES[0]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits by output name; see the class for shapes.

        Raises:
            ValueError: If the shape of `images` is not ``(N, in_channels, H, W)``, or batch norm
                would train on a single value per channel.
            TypeError: If their dtype is not floating point.
        """
        features = self.features(images)
        return self.ocr_outputs(features) | self.task_outputs(features)


for _variant in VARIANTS:
    MODELS.register(f"hrnet_{_variant}")(partial(HRNetSegmentor, variant=_variant))
    MODELS.register(f"hrnet_{_variant}_ocr")(partial(HRNetOCRSegmentor, variant=_variant))
