"""Any backbone with any head, and auxiliary heads on any stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models.backbones import BACKBONES, Backbone
from segtrain.models.heads import HEADS, Head
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor
from segtrain.models.unused import unread_features, unused_parameters
from segtrain.schema.values import check_value, did_you_mean

Spec = str | dict[str, Any]


@MODELS.register("encoder_decoder")
class EncoderDecoder(Segmentor):
    """A backbone and a head by name.

    Parameters that no output depends on, such as the finer branches of the last module of an HRNet
    under a head that reads only the coarsest, are frozen.

    Args:
        backbone: A registered backbone, ``timm/<name>`` or ``torchvision/<name>``; a mapping with
            ``name`` gives it parameters.
        head: A registered head, likewise.
        aux_heads: More outputs by name, each a mapping with the ``name`` of its head, the ``stage``
            of the backbone that it ends at (0 is the finest, -1, the default, the last) and that
            head's parameters; ``num_classes`` among them where it learns something else than the
            class ids. ``criterion.output_weights`` weighs each.
        activation_checkpointing: Compute activations of the backbone again in the backward pass
            instead of keeping them: less memory, more time, the same numbers.
        **common: As in :class:`~segtrain.models.Segmentor`.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size.
        - output: ``(N, num_classes, h, w)`` under ``"out"`` and what else the head gives, at the
          resolution that the head has; ``(N, num_classes, h_s, w_s)`` for each auxiliary head.

    Raises:
        ConfigError: On an unknown backbone, head or parameter, a stage that the backbone has not,
            or two outputs of one name.

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

    head_prefixes: ClassVar[tuple[str, ...]] = ("head", "aux_heads")
    backbone_prefix = "backbone."

    def __init__(
        self,
        *,
        backbone: Spec = "torchvision/resnet50",
        head: Spec = "fcn",
        aux_heads: dict[str, Spec] | None = None,
        activation_checkpointing: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.backbone = self._build_backbone(backbone, activation_checkpointing)
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
                f"activation_checkpointing: backbone {given['name']!r} has none; set it to false"
            )
        return BACKBONES.build(given, where=where, **provided)

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
                f"{where}: the head gives the output {name!r} already; choose another name"
            )
        if not name.isidentifier() or hasattr(self.aux_heads, name):
            raise ConfigError(
                f"{where}: an output needs a name of letters, digits and underscores, and PyTorch"
                f" reserves some such as 'keys', got {name!r}"
            )

    def _build_head(
        self, given: dict[str, Any], stage: int, where: str, *, num_classes: int | None = None
    ) -> Head:
        """A head on the feature maps up to `stage`."""
        stop = stage % len(self.backbone.channels) + 1
        return HEADS.build(
            given,
            where=where,
            in_channels=self.backbone.channels[:stop],
            strides=self.backbone.strides[:stop],
            num_classes=num_classes or self.num_classes,
            align_corners=self.align_corners,
        )

    def _stage(self, given: Any, where: str) -> int:
        stages = len(self.backbone.channels)
        is_number = isinstance(given, int) and not isinstance(given, bool)
        if not is_number or not -stages <= given < stages:
            raise ConfigError(
                f"{where}.stage must be one of 0 to {stages - 1}, the stages of the backbone, or"
                f" negative to count from the last, got {given!r}"
            )
        return int(given) % stages

    def _heads(self) -> list[Head]:
        return [self.head, *(head for head in self.aux_heads.values() if isinstance(head, Head))]

    def _freeze_unused(self) -> None:
        """Freezes what no output depends on, so that several processes do not wait for it."""
        unread = set(range(len(self.backbone.channels)))
        for head in self._heads():
            # What ends before the last stage is given the first ones only.
            given = set(range(len(head.in_channels)))
            unread -= given - unread_features(head, head.in_channels)
        if unread:
            for name in unused_parameters(self, self.in_channels):
                self.get_parameter(name).requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits by output name; see the class for shapes.

        Raises:
            ValueError: When the shape of `images` is not ``(N, in_channels, H, W)``.
            TypeError: When their dtype is not floating point.
        """
        self.check_images(images)
        features = self.backbone(images)
        outputs: dict[str, Tensor] = dict(self.head(features))
        for name, head in self.aux_heads.items():
            if name in outputs:
                raise ValueError(f"two heads give the output {name!r}")
            outputs[name] = head(features[: self._stages[name] + 1])["out"]
        return outputs

    def pretrained_backbone(self) -> dict[str, Tensor]:
        weights = self.backbone.pretrained()
        return {f"{self.backbone_prefix}{key}": value for key, value in weights.items()}


def _check_aux_keys(given: Mapping[str, Any], where: str) -> None:
    """Two of the keys are no parameters of the head, which would not know them in its answer."""
    from_backbone = ("in_channels", "strides", "align_corners")
    known = HEADS.schema(given["name"], where=where)
    allowed = ["stage", *(key for key in known if key not in from_backbone)]
    for key in given:
        if key != "name" and key not in allowed:
            raise ConfigError(
                f"{where}.{key}: an auxiliary head {given['name']!r} has no key"
                f" {key!r}{did_you_mean(key, allowed)}"
            )
