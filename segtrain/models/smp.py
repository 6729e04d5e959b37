"""The models of segmentation-models-pytorch, any of its architectures with any of its encoders."""

from __future__ import annotations

import copy
import difflib
import math
from types import ModuleType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segtrain.errors import ConfigError, ResourceError, describe_error
from segtrain.models.registry import MODELS
from segtrain.models.segmentor import Segmentor
from segtrain.schema.values import Parameter, check_parameters, did_you_mean, parameters

_ENCODER_STRIDE = 32
_TRIAL_SIZE = 512  # large enough that only a mean over the whole image gives a single value
_OURS = {
    "encoder_name": "model.encoder",
    "encoder_weights": "model.weights",
    "in_channels": "model.in_channels",
    "classes": "dataset.num_classes",
}
_ALWAYS = {
    "activation": "logits are needed",
    "upsampling": "the criterion and the predictor enlarge the logits",
    "aux_params": "it adds a classifier of whole images",
}
# Three poolings by 2 inside the decoder need 8 cells of the encoder's last feature map.
_LEAST_CELLS = {"pan": 8}
_TIMM = "tu-"
# What a trial found, by architecture, encoder and their arguments: one takes a second or two.
_TRIALS: dict[str, tuple[tuple[str, ...], float | None]] = {}


@MODELS.register("smp")
class SMPSegmentor(Segmentor):
    """An architecture and an encoder of segmentation-models-pytorch (SMP).

    Layers, their initial weights and the names in ``state_dict()`` are SMP's, so its weight files
    load. Three things differ. Images of any size are taken: they are padded with zeros, the mean of
    normalised images, at the bottom and right to the multiple that the encoder needs, and the
    logits are cropped. Where SMP enlarges the logits at the very end, they stay at the resolution
    at which they were computed: the criterion and the predictor enlarge them. And parameters that
    no output depends on are frozen, so that every trainable one gets a gradient; they are found on
    tensors without data. That concerns the stages behind the last one used (``pspnet``), the last
    convolution of the EfficientNets and the last norm and classifier of vision transformers
    (``dpt``).

    Args:
        arch: One of ``unet``, ``unetplusplus``, ``manet``, ``linknet``, ``fpn``, ``pspnet``,
            ``deeplabv3``, ``deeplabv3plus``, ``pan``, ``upernet``, ``segformer`` and ``dpt``, and
            what the installed version adds.
        encoder: As SMP calls it: ``resnet34``, ``mit_b0``; ``tu-<name>`` is timm's; ``dpt`` takes
            only vision transformers of timm.
        encoder_weights: Which weights of the encoder ``weights=imagenet`` takes; SMP calls most of
            them ``imagenet``, a few ``ssl``, ``noisy-student``, ``instagram`` and so on.
        params: Further arguments of the architecture, such as ``{decoder_channels: [64, 32, 16, 8,
            4]}``.
        encoder_params: Further arguments of a ``tu-`` encoder, those of ``timm.create_model``.
        **common: As in :class:`~segtrain.models.Segmentor`. `align_corners` is the convention of
            the outputs alone: inside its decoders SMP has conventions of its own. Weights trained
            with SMP expect true where it enlarges the logits: ``fpn``, ``pspnet``, ``deeplabv3``,
            ``deeplabv3plus``, ``pan``, ``upernet`` and ``segformer``.

    Shape:
        - images: ``(N, in_channels, H, W)``, floating point, any size; to train, a single image
          must give batch norm more than one value, which the first forward pass says.
        - output: ``(N, num_classes, ceil(H / s), ceil(W / s))`` under ``"out"``, ``s`` from 1
          (``unet``) to 8 (``pspnet``, ``deeplabv3``).

    Raises:
        ConfigError: When SMP is not installed, has no such architecture, encoder or argument, or
            the encoder takes images of one size only.

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
        # SMP's own names at the top level, so that its weight files fit.
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
        except Exception as error:  # whatever the architecture's own code says
            raise ConfigError(
                f"model.arch={self.arch} cannot be built with model.encoder={self.encoder_name}:"
                f" {describe_error(error)}"
            ) from error

    def _freeze_unused(self) -> None:
        """Freezes what no output depends on, and says where batch norm gets the fewest values."""
        key = repr((self.arch, self.encoder_name, self._params, self._encoder_params))
        if key not in _TRIALS:
            _TRIALS[key] = self._try_out()
        unused, self.norm_stride = _TRIALS[key]
        for name in unused:
            self.get_parameter(name).requires_grad_(False)

    def _try_out(self) -> tuple[tuple[str, ...], float | None]:
        """A forward and a backward pass without data."""
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
        except Exception as error:  # whatever the encoder's own code says
            raise ConfigError(
                f"model.encoder={self.encoder_name} fails on an image of {_TRIAL_SIZE} x"
                f" {_TRIAL_SIZE}: {describe_error(error)}; if it takes one size only,"
                " model.encoder_params may change that ({strict_img_size: false} or"
                " {dynamic_img_size: true} in timm)"
            ) from error
        unused = (name for name, weight in trial.named_parameters() if weight.grad is None)
        return tuple(unused), _norm_stride(sizes, max(self._divisor, self.encoder.output_stride))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits under ``"out"``; see the class for shapes.

        Raises:
            ValueError: When the shape of `images` is not ``(N, in_channels, H, W)``, or batch norm
                would get one value per channel to train on.
            TypeError: When their dtype is not floating point.
        """
        self.check_images(images)
        height, width = images.shape[-2:]
        padded = self._pad(images)
        features = self.encoder(padded)
        # The encoder of dpt gives feature maps and prefix tokens.
        parts = features if isinstance(features, tuple) else (features,)
        logits: Tensor = self.segmentation_head(self.decoder(*parts))
        stride = padded.shape[-1] // logits.shape[-1]
        return {"out": logits[..., : -(-height // stride), : -(-width // stride)]}

    def _pad(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        right, bottom = (
            max(-(-size // self._divisor) * self._divisor, self._least) - size
            for size in (width, height)
        )
        return F.pad(images, (0, right, 0, bottom)) if right or bottom else images

    def pretrained_backbone(self) -> dict[str, Tensor]:
        """SMP's own weights of the encoder, or timm's where the encoder is timm's."""
        encoders = _import_smp().encoders
        known = encoders.encoders.get(self.encoder_name)
        if known is not None and self.encoder_weights not in known["pretrained_settings"]:
            raise ConfigError(
                f"SMP has no weights {self.encoder_weights!r} for the encoder"
                f" {self.encoder_name}{did_you_mean('', known['pretrained_settings'])}; choose with"
                " model.encoder_weights"
            )
        try:
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
        raise ConfigError(f"model.arch: SMP has no {arch!r}{did_you_mean(arch, known)}")
    return arch.lower()


def _check_encoder(smp: ModuleType, encoder: str) -> str:
    import timm  # noqa: PLC0415  SMP needs it

    if encoder in smp.encoders.encoders or smp.encoders.is_equivalent_to_timm_universal(encoder):
        return encoder
    if encoder.startswith(_TIMM) and timm.is_model(encoder.removeprefix(_TIMM)):
        return encoder
    names = [*smp.encoders.encoders, *(f"{_TIMM}{name}" for name in timm.list_models())]
    close = difflib.get_close_matches(encoder, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"model.encoder: SMP has no {encoder!r}{hint} It has resnet34 and others of its own, and"
        " tu-<name> for every backbone of timm"
    )


def _check_params(smp: ModuleType, arch: str, given: dict[str, Any]) -> dict[str, Any]:
    for key, elsewhere in _OURS.items():
        if key in given:
            raise ConfigError(f"model.params.{key} is set with {elsewhere}")
    for key, reason in _ALWAYS.items():
        if key in given:
            raise ConfigError(f"model.params.{key} is not set here: {reason}")
    known = parameters(smp.MODEL_ARCHITECTURES_MAPPING[arch])
    allowed: dict[str, Parameter] = {
        key: rule for key, rule in known.items() if key not in (*_OURS, *_ALWAYS)
    }
    owner = f"SMP's architecture {arch!r}"
    return check_parameters(given, allowed, where="model.params", owner=owner)


def _check_encoder_params(encoder: str, given: dict[str, Any], arch: str) -> dict[str, Any]:
    if given and not encoder.startswith(_TIMM):
        raise ConfigError(
            f"model.encoder_params are for the encoders of timm, called {_TIMM}<name>, got"
            f" {', '.join(given)} for {encoder}"
        )
    # A vision transformer takes any size only if it is told to.
    return {"dynamic_img_size": True, **given} if arch == "dpt" else given


def _divisor(net: Any) -> int:
    """What height and width must be multiples of."""
    stride: int = net.encoder.output_stride
    if not hasattr(net.encoder, "output_strides"):
        return stride
    # dpt resizes the layers of a vision transformer to the strides 4, 8, ... and adds them up.
    return math.lcm(stride, 2 ** (len(net.encoder.output_strides) + 1))


def _norm_stride(sizes: list[int], coarsest: int) -> float | None:
    """The coarsest stride in `sizes`, which a batch norm saw of an image of `_TRIAL_SIZE`.

    Example:
        >>> _norm_stride([256, 16, 3], 32), _norm_stride([256, 1], 32), _norm_stride([], 32)
        (32.0, inf, None)
    """
    if 1 in sizes:
        return math.inf
    # A coarser one than the encoder's is a pooling to a few cells, always more than one.
    strides = [_TRIAL_SIZE / size for size in sizes if _TRIAL_SIZE / size <= coarsest]
    return max(strides, default=None)


def _where_to_put(
    encoder: str, weights: str, known: dict[str, Any] | None, error: Exception
) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415  SMP needs it

    what = "timm's file"
    if known is not None:
        hub = known["pretrained_settings"][weights]
        what = f"what `hf download {hub['repo_id']} --revision {hub['revision']}` gets"
    return (
        f"the weights of SMP's encoder {encoder} are not at hand and cannot be downloaded"
        f" ({describe_error(error)}): put {what} into {HF_HUB_CACHE}, or give a file as"
        " model.weights=<path>"
    )
