"""How an architecture of timm is built and what it then does, tried out without data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from segtrain.errors import ConfigError, one_line
from segtrain.models.unused import unused_parameters

_FINEST_STRIDE = 4  # finer features cost more than heads make of them
_NUM_LAYERS = 4  # of an architecture that has one stride
Arguments = tuple[tuple[str, Any], ...]
Size = tuple[int, int]


@dataclass(frozen=True)
class Options:
    """What a user may set; see :class:`~segtrain.models.backbones.timm.TimmBackbone`."""

    output_stride: int | None = None
    out_indices: tuple[int, ...] | None = None
    drop_path_rate: float = 0.0
    img_size: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Those of ``timm.create_model``; what is not set is left to timm."""
        given = {
            "output_stride": self.output_stride,
            "drop_path_rate": self.drop_path_rate or None,
            "img_size": self.img_size,
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class FeaturePlan:
    """What is known of a feature extractor before it is built.

    Attributes:
        arguments: Of ``timm.create_model``.
        channels: Of each feature map.
        strides: Of each feature map.
        divisor: What height and width must be multiples of; 1: any size gives features of the size
            / stride, rounded up.
        is_tiled: It takes squares of `divisor` only.
        is_nhwc: Channels come last.
        norm_stride: As in :class:`~segtrain.models.backbones.Backbone`.
        unused: Parameters that no feature depends on.
    """

    arguments: Arguments
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    divisor: int
    is_tiled: bool
    is_nhwc: bool
    norm_stride: float | None
    unused: tuple[str, ...]


def import_timm() -> ModuleType:
    """timm, or a sentence.

    Raises:
        ConfigError: When it is not installed.
    """
    try:
        import timm  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(
            "the backbones of timm need the package timm: pip install 'segtrain[timm]'"
        ) from error
    module: ModuleType = timm
    return module


def create(architecture: str, arguments: Arguments, *, in_chans: int = 3) -> Any:
    """The feature extractor of `architecture`, its weights drawn at random.

    Raises:
        ConfigError: When timm cannot build it so.
    """
    timm = import_timm()
    try:
        return timm.create_model(
            architecture, pretrained=False, features_only=True, in_chans=in_chans, **dict(arguments)
        )
    except Exception as error:  # whatever the architecture's own code says
        raise ConfigError(_why_not(architecture, dict(arguments), error)) from error


def _why_not(architecture: str, arguments: dict[str, Any], error: Exception) -> str:
    message = one_line(error)
    for name in Options.__annotations__:
        if name in arguments and name in message:
            return f"{name}: timm/{architecture} has no such option"
    reason = f": {message}" if message else ""
    if "output_stride" in arguments:
        stride = arguments["output_stride"]
        return f"output_stride of timm/{architecture} cannot be {stride}{reason}"
    return f"timm/{architecture} cannot be built as a backbone: {type(error).__name__}{reason}"


@cache
def plan_features(architecture: str, options: Options) -> FeaturePlan:
    """How `architecture` is built with `options`, and what it gives then.

    Raises:
        ConfigError: When it gives no features, has no such option, or takes one size only.
    """
    with torch.device("meta"):
        for flexible in _ways_to_any_size(architecture):
            arguments: Arguments = (*options.arguments().items(), *flexible.items())
            try:
                net = create(architecture, arguments)
            except ConfigError:
                if flexible:  # it has another way, or none
                    continue
                raise
            reductions = [int(info["reduction"]) for info in net.feature_info.info]
            arguments = (*arguments, ("out_indices", _indices(reductions, options)))
            trial = _Trial(create(architecture, arguments).eval(), options.img_size)
            if (divisor := trial.divisor(max(reductions))) is not None:
                return trial.plan(arguments, divisor, max(reductions))
        if trial.strides((trial.side, trial.side)) is not None:
            return trial.plan(arguments, None, trial.side)
    raise ConfigError(
        f"timm/{architecture} gives features that do not line up with the image, so it cannot be a"
        " backbone"
    )


def _ways_to_any_size(architecture: str) -> list[dict[str, Any]]:
    """What to build it with, so that it takes other sizes than the one it was trained at."""
    if not import_timm().get_pretrained_cfg(architecture).fixed_input_size:
        return [{}]
    return [{"dynamic_img_size": True}, {"strict_img_size": False}, {}]


def _indices(reductions: Sequence[int], options: Options) -> tuple[int, ...]:
    """Which feature maps are used: see `out_indices` of the backbone.

    Example:
        >>> _indices([2, 4, 8, 16, 32], Options()), _indices([16] * 12, Options())
        ((1, 2, 3, 4), (2, 5, 8, 11))
    """
    count, given = len(reductions), options.out_indices
    if given is not None:
        if not given or not all(-count <= index < count for index in given):
            raise ConfigError(
                f"out_indices must be one or more of 0 to {count - 1}, got {list(given)}"
            )
        return tuple(sorted({index % count for index in given}))
    if len(set(reductions)) == 1:
        layers = min(count, _NUM_LAYERS)
        return tuple(count * (layer + 1) // layers - 1 for layer in range(layers))
    coarse = [index for index, stride in enumerate(reductions) if stride >= _FINEST_STRIDE]
    if options.output_stride is not None:  # stages that would differ in stride without it
        return tuple(coarse)
    return tuple({reductions[index]: index for index in coarse}.values())


class _Trial:
    """A feature extractor, run on images that have no data, once for each size.

    Args:
        net: On the meta device and in evaluation mode.
        side: Of the images that it was made for; None: of those of its weights.
    """

    def __init__(self, net: Any, side: int | None) -> None:
        self.net = net
        self.side = side or int(net.pretrained_cfg["input_size"][-1])
        self.is_nhwc = str(getattr(net, "output_fmt", "")).upper().endswith("NHWC")
        self._features: dict[Size, list[Tensor] | None] = {}
        self._norm_values: dict[Size, list[int]] = {}

    def divisor(self, stride: int) -> int | None:
        """What height and width must be multiples of; None where no multiple will do.

        Args:
            stride: Of the last features, as timm has it.
        """
        strides = self.strides((2 * stride, 3 * stride))
        odd = (2 * stride + 3, 3 * stride - 5)
        if strides is not None and self._gives((1, 1), strides) and self._gives(odd, strides):
            return 1
        for divisor in (stride, 2 * stride, 4 * stride, self.side):
            strides = self.strides((2 * divisor, 3 * divisor))
            if strides is not None and self._gives((divisor, divisor), strides):
                return divisor
        return None

    def strides(self, size: Size) -> tuple[int, ...] | None:
        """Strides of the features of an image of `size`, where they are whole."""
        shapes = self._shapes(size)
        if shapes is None or any(min(shape) < 1 for shape in shapes):
            return None
        strides = tuple(size[0] // height for height, _ in shapes)
        return strides if self._gives(size, strides) else None

    def _gives(self, size: Size, strides: Sequence[int]) -> bool:
        """Whether the features of an image of `size` have the size / stride, rounded up."""
        expected = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
        return self._shapes(size) == expected

    def _shapes(self, size: Size) -> list[Size] | None:
        """Height and width of the features of an image of `size`; None where it fails."""
        if size not in self._features:
            self._features[size] = self._run(size)
        features, first = self._features[size], 1 if self.is_nhwc else 2
        if features is None:
            return None
        return [(feature.shape[first], feature.shape[first + 1]) for feature in features]

    def _run(self, size: Size) -> list[Tensor] | None:
        counts = self._norm_values[size] = []

        def note(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
            counts.append(inputs[0].numel() // norm.num_features)

        norms = [layer for layer in self.net.modules() if isinstance(layer, _BatchNorm)]
        handles = [norm.register_forward_pre_hook(note) for norm in norms]
        try:
            with torch.no_grad():
                return list(self.net(torch.zeros(1, 3, *size)))
        except Exception:  # noqa: BLE001  it is asked whether it can
            return None
        finally:
            for handle in handles:
                handle.remove()

    def plan(self, arguments: Arguments, divisor: int | None, step: int) -> FeaturePlan:
        """What was found.

        Args:
            arguments: That `net` was made with.
            divisor: As from :meth:`divisor`; None: it takes squares of `step` only.
            step: A side that it takes.
        """
        step = step if divisor in (None, 1) else int(divisor or step)
        size = (step, step) if divisor is None else (2 * step, 3 * step)
        strides, features = self.strides(size), self._features[size]
        assert strides is not None
        assert features is not None
        return FeaturePlan(
            arguments=arguments,
            channels=tuple(feature.shape[3 if self.is_nhwc else 1] for feature in features),
            strides=strides,
            divisor=step if divisor is None else divisor,
            is_tiled=divisor is None,
            is_nhwc=self.is_nhwc,
            norm_stride=self._norm_stride(size),
            unused=unused_parameters(self.net, 3, side=size[0]),
        )

    def _norm_stride(self, size: Size) -> float | None:
        """The coarsest stride at which batch norm counted values in an image of `size`."""
        fewest = min(self._norm_values[size], default=None)
        if fewest is None or fewest == 1:
            return fewest and math.inf
        return round(math.sqrt(size[0] * size[1] / fewest))
