"""The models of segmentation-models-pytorch: any architecture with any encoder."""

from __future__ import annotations

import copy
import difflib
import math
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segtrain.errors import ConfigError, ResourceError, describe_error
from segtrain.models.hub import asked_once
from segtrain.models.layers.padding import padded_to, without_padding
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor
from segtrain.schema.values import Parameter, check_parameters, did_you_mean, parameters

_ENCODER_STRIDE = 32
_TRIAL_SIZE = 512  # large enough that only a mean over the whole image gives one value
_OURS = {
    "encoder_name": "model.encoder",
    "encoder_weights": "model.weights",
    "in_channels": "model.in_channels",
    "classes": "dataset.num_classes",
}
_ALWAYS = {
    "activation": "the model must return logits",
    "upsampling": "the criterion and the predictor upsample the logits",
    "aux_params": "it would add a classifier of whole images",
}
# Three poolings by 2 in the decoder require at least 8 cells in the last feature map.
_LEAST_CELLS = {"pan": 8}
_TIMM = "tu-"
# Results of the trials by architecture, encoder and arguments: a trial takes a second or two.
_TRIALS: dict[str, tuple[tuple[str, ...], float | None]] = {}


@MODELS.register("smp")
class SMPSegmentor(Segmentor):
    """An architecture and an encoder of segmentation-models-pytorch (SMP).

    The layers, their initial weights and the names in ``state_dict()`` are those of SMP, so its
    weight files load. Three things differ:

    - Images of any size are accepted. They are padded at the bottom and right with zeros, the mean
      of normalised images, to the multiple that the encoder needs, and the logits are cropped.
    - The logits stay at the resolution at which they are computed. SMP upsamples them at the end of
      some architectures; here the criterion and the predictor do.
    - Parameters that no output depends on are frozen, so that every trainable parameter gets a
      gradient. A forward and a backward pass on the meta device find them: the stages after the
      last one used (``pspnet``), the last convolution of the EfficientNets, and the last norm and
      the classifier of vision transformers (``dpt``).

    Args:
        arch: One of ``unet``, ``unetplusplus``, ``manet``, ``linknet``, ``fpn``, ``pspnet``,
            ``deeplabv3``, ``deeplabv3plus``, ``pan``, ``upernet``, ``segformer`` and ``dpt``, or
            another architecture of the installed version.
        encoder: The name of an encoder in SMP, such as ``resnet34`` or ``mit_b0``, or ``tu-<name>``
            for an encoder of timm. ``dpt`` accepts only vision transformers of timm.
        encoder_weights: The encoder weights that ``weights=imagenet`` loads. SMP names most of them
            ``imagenet``, others ``ssl``, ``noisy-student`` or ``instagram``.
        params: Further arguments of the architecture, such as ``{decoder_channels: [64, 32, 16, 8,
            4]}``.
        encoder_params: Further arguments of a ``tu-`` encoder, as in ``timm.create_model``.
        **common: As in :class:`~segtrain.models.Segmentor`. `align_corners` applies to the outputs
            only; the decoders of SMP have fixed conventions. Weights trained with SMP expect true
            for the architectures that upsample their logits: ``fpn``, ``pspnet``, ``deeplabv3``,
            ``deeplabv3plus``, ``pan``, ``upernet`` and ``segformer``.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; to train on a single image,
          it must give batch norm more than one value per channel.
        - output: ``(N, num_classes, ceil(H / s), ceil(W / s))`` under ``"out"``, ``s`` from 1
          (``unet``) to 8 (``pspnet``, ``deeplabv3``).

    Raises:
        ConfigError: If SMP is not installed, has no such architecture, encoder or argument, or the
            encoder accepts images of one size only.

    Example:
        >>> model = MODELS.build("smp", num_classes=19, arch="fpn", encoder="resnet18").eval()
        >>> model(torch.zeros(1, 3, 75, 117))["out"].shape
        torch.Size([1, 19, 19, 30])

    References:
        Iakubovskii, *Segmentation Models PyTorch*,
        https://github.com/qubvel-org/segmentation_models.pytorch.
    """

    head_prefixes: ClassVar[tuple[str, ...]] = ("decoder", "segmentation_head")
    backbone_prefix = "encoder."

    def __init__(
        self,
        *,
        arch: str = "unet",
        encoder: str = "resnet34",
        encoder_weights: str = "imagenet",
        params: dict[str, Any] | None = None,
        encoder_params: dict[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        smp = _import_smp()
        self.arch = _check_arch(smp, arch)
        self.encoder_name = _check_encoder(smp, encoder)
        self.encoder_weights = encoder_weights
        self.source = f"segmentation-models-pytorch: {self.arch}, {self.encoder_name}"
        self._params = _check_params(smp, self.arch, params or {})
        self._encoder_params = _check_encoder_params(encoder, encoder_params or {}, self.arch)
        net = self._build(smp)
        # SMP's names at the top level, so that its weight files fit.
        self.encoder = net.encoder
        self.decoder = net.decoder
        self.segmentation_head = net.segmentation_head
        self._divisor = _divisor(net) if net.requires_divisible_input_shape else 1
        self._least = _LEAST_CELLS.get(self.arch, 1) * self._divisor
        self._freeze_unused()

    def _build(self, smp: ModuleType) -> Any:
        factory = smp.MODEL_ARCHITECTURES_MAPPING[self.arch]
        own = {"upsampling": 1} if "upsampling" in parameters(factory) else {}
        try:
            return factory(
                encoder_name=self.encoder_name,
                encoder_weights=None,
                in_channels=self.in_channels,
                classes=self.num_classes,
                **own,
                **self._params,
                **self._encoder_params,
            )
        except Exception as error:  # each architecture raises its own kinds
            raise ConfigError(
                f"model.arch={self.arch} cannot be built with model.encoder={self.encoder_name}:"
                f" {describe_error(error)}"
            ) from error

    def _freeze_unused(self) -> None:
        """Freeze the parameters that no output depends on, and set `norm_stride`."""
        key = repr((self.arch, self.encoder_name, self._params, self._encoder_params))
        if key not in _TRIALS:
            _TRIALS[key] = self._try_out()
        unused, self.norm_stride = _TRIALS[key]
        for name in unused:
            self.get_parameter(name).requires_grad_(False)

    def _try_out(self) -> tuple[tuple[str, ...], float | None]:
        """Run a forward and a backward pass on the meta device.

        Returns:
            The names of the parameters without a gradient, and the `norm_stride`.
        """
        trial = copy.deepcopy(self).to("meta").train()
        sizes: list[int] = []
        for layer in trial.modules():
            if isinstance(layer, _BatchNorm):
                layer.register_forward_pre_hook(
                    lambda _, inputs: sizes.append(max(inputs[0].shape[2:], default=1))
                )
        shape = (2, self.in_channels, _TRIAL_SIZE, _TRIAL_SIZE)
        try:
            with torch.enable_grad():
                trial(torch.zeros(shape, device="meta"))["out"].sum().backward()
        except Exception as error:  # each encoder raises its own kinds
            raise ConfigError(
                f"model.encoder={self.encoder_name} fails on an image of {_TRIAL_SIZE} x"
                f" {_TRIAL_SIZE}: {describe_error(error)}; if it accepts one size only, try"
                " model.encoder_params={strict_img_size: false} or {dynamic_img_size: true}"
            ) from error
        unused = (name for name, weight in trial.named_parameters() if weight.grad is None)
        return tuple(unused), _norm_stride(sizes, max(self._divisor, self.encoder.output_stride))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits under ``"out"``; see the class for shapes.

        Raises:
            ValueError: If the shape of `images` is not ``(N, in_channels, H, W)``, or batch norm
                would train on a single value per channel.
            TypeError: If their dtype is not floating point.
        """
        self.check_images(images)
        padded = padded_to(images, self._divisor, self._least)
        features = self.encoder(padded)
        # The encoder of dpt returns feature maps and prefix tokens.
        parts = features if isinstance(features, tuple) else (features,)
        logits: Tensor = self.segmentation_head(self.decoder(*parts))
        return {"out": without_padding(logits, padded, images)}

    def pretrained_backbone(self) -> dict[str, Tensor]:
        """Return the encoder weights of SMP, or those of timm for an encoder of timm."""
        encoders = _import_smp().encoders
        known = encoders.encoders.get(self.encoder_name)
        if known is not None and self.encoder_weights not in known["pretrained_settings"]:
            raise ConfigError(
                f"SMP has no weights {self.encoder_weights!r} for the encoder"
                f" {self.encoder_name}{did_you_mean('', known['pretrained_settings'])}; choose with"
                " model.encoder_weights"
            )
        try:
            with asked_once():
                encoder = self._pretrained_encoder(encoders, is_timm=known is None)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise ResourceError(
                _where_to_put(self.encoder_name, self.encoder_weights, known, error)
            ) from error
        weights = encoder.state_dict()
        return {f"{self.backbone_prefix}{key}": value for key, value in weights.items()}

    def _pretrained_encoder(self, encoders: ModuleType, *, is_timm: bool) -> nn.Module:
        depth = self._params.get("encoder_depth")
        if depth is None:
            depth = parameters(_import_smp().MODEL_ARCHITECTURES_MAPPING[self.arch])[
                "encoder_depth"
            ].default
        encoder: nn.Module
        if self.arch == "dpt":
            name = self.encoder_name.removeprefix(_TIMM)
            encoder = encoders.TimmViTEncoder(
                name=name, pretrained=True, depth=depth, **self._encoder_params
            )
        else:
            weights = True if is_timm else self.encoder_weights
            encoder = encoders.get_encoder(
                self.encoder_name, depth=depth, weights=weights, **self._encoder_params
            )
        return encoder


def _import_smp() -> ModuleType:
    try:
        import segmentation_models_pytorch  # noqa: PLC0415  an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            "the model smp needs the package segmentation-models-pytorch: pip install"
            " 'segtrain[smp]'"
        ) from error
    module: ModuleType = segmentation_models_pytorch
    return module


def _check_arch(smp: ModuleType, arch: str) -> str:
    known = smp.MODEL_ARCHITECTURES_MAPPING
    if arch.lower() not in known:
        raise ConfigError(
            f"model.arch: SMP has no architecture {arch!r}{did_you_mean(arch, known)}"
        )
    return arch.lower()


def _check_encoder(smp: ModuleType, encoder: str) -> str:
    import timm  # noqa: PLC0415  SMP needs it

    if encoder in smp.encoders.encoders or smp.encoders.is_equivalent_to_timm_universal(encoder):
        return encoder
    if encoder.startswith(_TIMM) and timm.is_model(encoder.removeprefix(_TIMM)):
        return encoder
    names = [*smp.encoders.encoders, *(f"{_TIMM}{name}" for name in timm.list_models())]
    close = difflib.get_close_matches(encoder, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise ConfigError(
        f"model.encoder: SMP has no encoder {encoder!r}{hint} It has encoders such as resnet34, and"
        " tu-<name> for every backbone of timm"
    )


def _check_params(smp: ModuleType, arch: str, given: dict[str, Any]) -> dict[str, Any]:
    for key, elsewhere in _OURS.items():
        if key in given:
            raise ConfigError(f"model.params.{key} cannot be set: use {elsewhere}")
    for key, reason in _ALWAYS.items():
        if key in given:
            raise ConfigError(f"model.params.{key} cannot be set: {reason}")
    known = parameters(smp.MODEL_ARCHITECTURES_MAPPING[arch])
    allowed: dict[str, Parameter] = {
        key: rule for key, rule in known.items() if key not in (*_OURS, *_ALWAYS)
    }
    owner = f"SMP's architecture {arch!r}"
    return check_parameters(given, allowed, where="model.params", owner=owner)


def _check_encoder_params(encoder: str, given: dict[str, Any], arch: str) -> dict[str, Any]:
    if given and not encoder.startswith(_TIMM):
        raise ConfigError(
            f"model.encoder_params apply to encoders of timm ({_TIMM}<name>) only, got"
            f" {', '.join(given)} for {encoder}"
        )
    # By default a vision transformer accepts one size only.
    return {"dynamic_img_size": True, **given} if arch == "dpt" else given


def _divisor(net: Any) -> int:
    """The number that height and width must be multiples of."""
    stride: int = net.encoder.output_stride
    if not hasattr(net.encoder, "output_strides"):
        return stride
    # dpt resizes the layers of a vision transformer to the strides 4, 8, ... and sums them.
    return math.lcm(stride, 2 ** (len(net.encoder.output_strides) + 1))


def _norm_stride(sizes: list[int], coarsest: int) -> float | None:
    """The coarsest stride of batch norm, from the sizes of its inputs.

    Args:
        sizes: Larger side of the input of each batch norm for an image of `_TRIAL_SIZE`.
        coarsest: The coarsest stride of the encoder.

    Example:
        >>> _norm_stride([256, 16, 3], 32), _norm_stride([256, 1], 32), _norm_stride([], 32)
        (32.0, inf, None)
    """
    if 1 in sizes:
        return math.inf
    # A coarser stride than that of the encoder is a pooling to a fixed number of cells above one.
    strides = [_TRIAL_SIZE / size for size in sizes if _TRIAL_SIZE / size <= coarsest]
    return max(strides, default=None)


def _where_to_put(
    encoder: str, weights: str, known: dict[str, Any] | None, error: Exception
) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415  SMP needs it

    what = "the file of timm"
    if known is not None:
        hub = known["pretrained_settings"][weights]
        what = f"the result of `hf download {hub['repo_id']} --revision {hub['revision']}`"
    return (
        f"the weights of SMP's encoder {encoder} are not in the cache and cannot be downloaded"
        f" ({describe_error(error)}): put {what} into {HF_HUB_CACHE}, or give a file with"
        " model.weights=<path>"
    )
