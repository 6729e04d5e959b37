"""A model of any backbone and any head, with auxiliary heads on any stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.backbones import BACKBONES, Backbone
from segtrain.models.heads import HEADS, Head
from segtrain.models.layers.feature_pyramid import SimpleFeaturePyramid
from segtrain.models.layers.padding import padded_to, without_padding
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor
from segtrain.models.unused import unread_features, unused_parameters
from segtrain.schema.values import check_value, did_you_mean

Spec = str | dict[str, Any]


@MODELS.register("encoder_decoder")
class EncoderDecoder(Segmentor):
    """A backbone and a head by name.

    Images are padded with zeros at the bottom and right to multiples of the coarsest stride, so
    that the features of all strides lie on each other, and the padding is removed from the logits.

    Parameters that no output depends on are frozen, such as the finer branches of the last module
    of an HRNet if the head reads only the coarsest.

    Args:
        backbone: A registered backbone, ``timm/<name>`` or ``torchvision/<name>``; or a mapping
            with the key ``name`` and the parameters of the backbone.
        head: A registered head, or a mapping with the key ``name`` and the parameters of the head.
        aux_heads: Additional outputs: a mapping from the name of the output to a mapping with the
            ``name`` of the head, the ``stage`` of the backbone that is its last input (0 is the
            finest, -1, the default, the last) and the parameters of the head. ``num_classes`` is
            one of them, for outputs that predict something other than the class ids.
            ``criterion.output_weights`` sets their weights.
        activation_checkpointing: Recompute the activations of the backbone in the backward pass
            instead of storing them: less memory, more time, the same results.
        pyramid: Whether the head gets the four levels of a
            :class:`~segtrain.models.layers.feature_pyramid.SimpleFeaturePyramid`, computed from the
            last feature map, in place of the feature maps. Null: if all feature maps have the same
            stride, as in a plain vision transformer, and the head reads more than the last one.
        **common: As in :class:`~segtrain.models.Segmentor`.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size.
        - output: ``(N, num_classes, h, w)`` under ``"out"`` and the other names of the head, at
          the resolution of the head; ``(N, num_classes, h_s, w_s)`` for each auxiliary head.

    Raises:
        ConfigError: If the backbone, the head or a parameter is unknown, the backbone has no such
            stage, or two outputs have the same name.

    Example:
        >>> import torch
        >>> model = MODELS.build(
        ...     "encoder_decoder",
        ...     num_classes=19,
        ...     backbone="hrnet_w18_small_v1",
        ...     head="hrnetv2",
        ...     aux_heads={"aux": {"name": "fcn", "stage": 2}},
        ... ).eval()
        >>> outputs = model(torch.zeros(1, 3, 75, 117))
        >>> {name: tuple(logits.shape) for name, logits in outputs.items()}
        {'out': (1, 19, 19, 30), 'aux': (1, 19, 5, 8)}
    """

    head_prefixes: ClassVar[tuple[str, ...]] = ("head", "aux_heads", "pyramid")
    backbone_prefix = "backbone."

    def __init__(
        self,
        *,
        backbone: Spec = "torchvision/resnet50",
        head: Spec = "fcn",
        aux_heads: dict[str, Spec] | None = None,
        activation_checkpointing: bool = False,
        pyramid: bool | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.backbone = self._build_backbone(backbone, activation_checkpointing)
        self.pyramid = self._build_pyramid(pyramid, head)
        self.head = self._build_head(HEADS.named(head, where="model.head"), -1, "model.head")
        self.aux_heads = nn.ModuleDict()
        self._stages: dict[str, int] = {}
        for name, spec in (aux_heads or {}).items():
            self._add_aux_head(name, spec)
        parts: list[Backbone | Head] = [self.backbone, *self._heads()]
        known = [part.norm_stride for part in parts if part.norm_stride is not None]
        self.norm_stride = max(known, default=None)
        named = (BACKBONES.named(backbone), HEADS.named(head))
        self.source = " with ".join(str(spec["name"]) for spec in named)
        self._freeze_unused()

    def _build_backbone(self, spec: Spec, checkpointing: bool) -> Backbone:
        where = "model.backbone"
        given = BACKBONES.named(spec, where=where)
        schema = BACKBONES.schema(given["name"], where=where)
        provided: dict[str, Any] = {"in_channels": self.in_channels}
        if "align_corners" in schema:
            provided["align_corners"] = self.align_corners
        if "activation_checkpointing" in schema:
            provided["activation_checkpointing"] = checkpointing
        elif checkpointing:
            raise ConfigError(
                f"activation_checkpointing: backbone {given['name']!r} does not support it; set it"
                " to false"
            )
        return BACKBONES.build(given, where=where, **provided)

    def _build_pyramid(self, given: bool | None, head: Spec) -> SimpleFeaturePyramid | None:
        strides = self.backbone.strides
        if len(set(strides)) > 1:
            if given:
                raise ConfigError(
                    f"pyramid=true needs feature maps of one stride, but those of the backbone have"
                    f" the strides {', '.join(map(str, strides))}; set pyramid to null or false"
                )
            return None
        if given is False or (given is None and not self._reads_several(head)):
            return None
        return SimpleFeaturePyramid(in_channels=self.backbone.channels[-1], stride=strides[-1])

    def _reads_several(self, head: Spec) -> bool:
        """Whether `head` reads other feature maps than the last."""
        channels = self.backbone.channels
        with torch.device("meta"):
            trial = HEADS.build(
                HEADS.named(head, where="model.head"),
                where="model.head",
                in_channels=channels,
                strides=self.backbone.strides,
                num_classes=self.num_classes,
                align_corners=self.align_corners,
            )
        return not unread_features(trial, channels) >= set(range(len(channels) - 1))

    def _add_aux_head(self, name: str, spec: Spec) -> None:
        where = f"model.aux_heads.{name}"
        self._check_output_name(name, where)
        given = HEADS.named(spec, where=where)
        _check_aux_keys(given, where)
        self._stages[name] = self._stage(given.pop("stage", -1), where)
        num_classes = check_value(
            given.pop("num_classes", self.num_classes), int, f"{where}.num_classes"
        )
        if num_classes < 1:
            raise ConfigError(f"{where}.num_classes must be at least 1, got {num_classes}")
        self.aux_heads[name] = self._build_head(
            given, self._stages[name], where, num_classes=num_classes
        )

    def _check_output_name(self, name: str, where: str) -> None:
        if name in self.head.output_names:
            raise ConfigError(
                f"{where}: the head already has an output {name!r}; choose another name"
            )
        if not name.isidentifier() or hasattr(self.aux_heads, name):
            raise ConfigError(
                f"{where}: the name of an output must consist of letters, digits and underscores"
                f" and not be reserved by PyTorch, such as 'keys'; got {name!r}"
            )

    def _build_head(
        self, given: dict[str, Any], stage: int, where: str, *, num_classes: int | None = None
    ) -> Head:
        """Build a head on the feature maps up to `stage`."""
        source = self.pyramid or self.backbone
        stop = stage % len(source.channels) + 1
        return HEADS.build(
            given,
            where=where,
            in_channels=source.channels[:stop],
            strides=source.strides[:stop],
            num_classes=num_classes or self.num_classes,
            align_corners=self.align_corners,
        )

    def _stage(self, given: Any, where: str) -> int:
        stages = len((self.pyramid or self.backbone).channels)
        is_number = isinstance(given, int) and not isinstance(given, bool)
        if not is_number or not -stages <= given < stages:
            raise ConfigError(
                f"{where}.stage must be a stage of the backbone, 0 to {stages - 1}, or negative to"
                f" count from the last, got {given!r}"
            )
        return int(given) % stages

    def _heads(self) -> list[Head]:
        return [self.head, *(head for head in self.aux_heads.values() if isinstance(head, Head))]

    def _freeze_unused(self) -> None:
        """Freeze the parameters that no output depends on, as distributed training requires."""
        unread = set(range(len((self.pyramid or self.backbone).channels)))
        for head in self._heads():
            # An auxiliary head may get only the first stages.
            stages = set(range(len(head.in_channels)))
            unread -= stages - unread_features(head, head.in_channels)
        if unread:
            for name in unused_parameters(self, self.in_channels):
                self.get_parameter(name).requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits by output name; see the class for shapes.

        Raises:
            ValueError: If the shape of `images` is not ``(N, in_channels, H, W)``.
            TypeError: If their dtype is not floating point.
        """
        self.check_images(images)
        padded = padded_to(images, self._coarsest())
        features = self.backbone(padded)
        if self.pyramid is not None:
            features = self.pyramid(features[-1])
        outputs: dict[str, Tensor] = dict(self.head(features))
        for name, head in self.aux_heads.items():
            if name in outputs:
                raise ValueError(f"two heads return an output {name!r}")
            outputs[name] = head(features[: self._stages[name] + 1])["out"]
        return {name: without_padding(value, padded, images) for name, value in outputs.items()}

    def _coarsest(self) -> int:
        """The number that height and width are padded to multiples of."""
        coarsest = self.backbone.strides[-1]
        return coarsest if self.pyramid is None else int(max(coarsest, self.pyramid.strides[-1]))

    def pretrained_backbone(self) -> dict[str, Tensor]:
        weights = self.backbone.pretrained()
        return {f"{self.backbone_prefix}{key}": value for key, value in weights.items()}


def _check_aux_keys(given: Mapping[str, Any], where: str) -> None:
    """Reject unknown keys with the allowed ones, ``stage`` and ``num_classes`` included."""
    from_backbone = ("in_channels", "strides", "align_corners")
    known = HEADS.schema(given["name"], where=where)
    allowed = ["stage", *(key for key in known if key not in from_backbone)]
    for key in given:
        if key != "name" and key not in allowed:
            raise ConfigError(
                f"{where}.{key}: an auxiliary head {given['name']!r} has no key"
                f" {key!r}{did_you_mean(key, allowed)}"
            )
