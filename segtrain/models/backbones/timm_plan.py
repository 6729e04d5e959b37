"""How to build an architecture of timm as a backbone, found by trials on the meta device."""

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

_FINEST_STRIDE = 4  # heads gain less from finer features than they cost
_NUM_LAYERS = 4  # number of layers to use if all have the same stride
Arguments = tuple[tuple[str, Any], ...]
Size = tuple[int, int]


@dataclass(frozen=True)
class Options:
    """Options of the user; see :class:`~segtrain.models.backbones.timm.TimmBackbone`."""

    output_stride: int | None = None
    out_indices: tuple[int, ...] | None = None
    drop_path_rate: float = 0.0
    img_size: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``timm.create_model``, without the options that are not set."""
        given = {
            "output_stride": self.output_stride,
            "drop_path_rate": self.drop_path_rate or None,
            "img_size": self.img_size,
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class FeaturePlan:
    """How to build a feature extractor, and the properties of its features.

    Attributes:
        arguments: Arguments of ``timm.create_model``.
        channels: Number of channels of each feature map.
        strides: Stride of each feature map.
        divisor: Height and width must be multiples of this number. With 1, any size is accepted and
            the features have size / stride, rounded up.
        is_tiled: Whether only squares of side `divisor` are accepted.
        is_nhwc: Whether the features are channels-last, ``(N, h, w, C)``.
        norm_stride: As in :class:`~segtrain.models.backbones.Backbone`.
        unused: Names of the parameters that no feature depends on.
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
    """Import timm.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import timm  # noqa: PLC0415  an optional dependency
    except ImportError as error:
        raise ConfigError(
            "the backbones of timm require the package timm: pip install 'segtrain[timm]'"
        ) from error
    module: ModuleType = timm
    return module


def create(architecture: str, arguments: Arguments, *, in_chans: int = 3) -> Any:
    """Build the feature extractor of `architecture` with random weights.

    Raises:
        ConfigError: If timm cannot build it with these arguments.
    """
    timm = import_timm()
    try:
        return timm.create_model(
            architecture, pretrained=False, features_only=True, in_chans=in_chans, **dict(arguments)
        )
    except Exception as error:  # each architecture raises its own kinds
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
    """Find out how to build `architecture` with `options`, and the properties of its features.

    Raises:
        ConfigError: If it returns no features, has no such option, or its features are not aligned
            with the image.
    """
    with torch.device("meta"):
        for flexible in _ways_to_any_size(architecture):
            arguments: Arguments = (*options.arguments().items(), *flexible.items())
            try:
                net = create(architecture, arguments)
            except ConfigError:
                if flexible:  # try the next way
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
        f"timm/{architecture} cannot be a backbone: its features are not aligned with the image"
    )


def _ways_to_any_size(architecture: str) -> list[dict[str, Any]]:
    """Arguments that may make an architecture accept other sizes than the trained one."""
    if not import_timm().get_pretrained_cfg(architecture).fixed_input_size:
        return [{}]
    return [{"dynamic_img_size": True}, {"strict_img_size": False}, {}]


def _indices(reductions: Sequence[int], options: Options) -> tuple[int, ...]:
    """Indices of the feature maps to use; see `out_indices` of the backbone.

    Example:
        >>> _indices([2, 4, 8, 16, 32], Options()), _indices([16] * 12, Options())
        ((1, 2, 3, 4), (2, 5, 8, 11))
    """
    count, given = len(reductions), options.out_indices
    if given is not None:
        if not given or not all(-count <= index < count for index in given):
            raise ConfigError(
                f"out_indices must be one or more indices from 0 to {count - 1}, got {list(given)}"
            )
        return tuple(sorted({index % count for index in given}))
    if len(set(reductions)) == 1:
        layers = min(count, _NUM_LAYERS)
        return tuple(count * (layer + 1) // layers - 1 for layer in range(layers))
    coarse = [index for index, stride in enumerate(reductions) if stride >= _FINEST_STRIDE]
    if options.output_stride is not None:  # several stages may have this stride
        return tuple(coarse)
    return tuple({reductions[index]: index for index in coarse}.values())


class _Trial:
    """A feature extractor that is run on the meta device, once for each image size.

    Args:
        net: The feature extractor, on the meta device and in eval mode.
        side: Side of the images that it was built for; None means those of its weights.
    """

    def __init__(self, net: Any, side: int | None) -> None:
        self.net = net
        self.side = side or int(net.pretrained_cfg["input_size"][-1])
        self.is_nhwc = str(getattr(net, "output_fmt", "")).upper().endswith("NHWC")
        self._features: dict[Size, list[Tensor] | None] = {}
        self._norm_values: dict[Size, list[int]] = {}

    def divisor(self, stride: int) -> int | None:
        """The number that height and width must be multiples of; None if no multiple works.

        Args:
            stride: Stride of the last features according to timm.
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
        """Strides of the features of an image of `size`; None if they are not whole numbers."""
        shapes = self._shapes(size)
        if shapes is None or any(min(shape) < 1 for shape in shapes):
            return None
        strides = tuple(size[0] // height for height, _ in shapes)
        return strides if self._gives(size, strides) else None

    def _gives(self, size: Size, strides: Sequence[int]) -> bool:
        """Whether the features of an image of `size` have size / stride, rounded up."""
        expected = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
        return self._shapes(size) == expected

    def _shapes(self, size: Size) -> list[Size] | None:
        """Height and width of the features of an image of `size`; None if `net` fails on it."""
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
        except Exception:  # noqa: BLE001  a failure is an answer here
            return None
        finally:
            for handle in handles:
                handle.remove()

    def plan(self, arguments: Arguments, divisor: int | None, step: int) -> FeaturePlan:
        """Collect the results of the trials.

        Args:
            arguments: The arguments that `net` was built with.
            divisor: The result of :meth:`divisor`; None means that only squares of side `step` are
                accepted.
            step: A side that `net` accepts.
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
        """The coarsest stride of the inputs of batch norm for an image of `size`."""
        fewest = min(self._norm_values[size], default=None)
        if fewest is None or fewest == 1:
            return fewest and math.inf
        return round(math.sqrt(size[0] * size[1] / fewest))
