"""Build a criterion from names and plain values, as a configuration has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from segtrain.criterion.criterion import LEARNED, MAIN_OUTPUT, Criterion, OutputWeights, Task
from segtrain.errors import ConfigError
from segtrain.losses import TARGETS, DerivedTarget, Loss
from segtrain.losses.build import build_loss
from segtrain.losses.class_weights import AutoWeights
from segtrain.losses.mining.base import MiningSpec
from segtrain.schema.values import check_value

# The names and weights of the dataset's classes, which are not those of a derived target.
_UNNAMED: dict[str, Any] = {"class_names": (), "auto_weights": None}


def build_criterion(  # noqa: PLR0913  one per key of the configuration
    loss: str | Mapping[str, Any],
    *,
    num_classes: int,
    ignore_label: int = 255,
    align_corners: bool = False,
    outputs: Sequence[str] | None = None,
    output_weights: OutputWeights | Literal["learned"] | None = None,
    output_losses: Mapping[str, str | Mapping[str, Any]] | None = None,
    output_targets: Mapping[str, str | Mapping[str, Any] | None] | None = None,
    strip_rows: int | Literal["auto"] | None = "auto",
    mining: MiningSpec = None,
    class_names: Sequence[str] | None = None,
    auto_weights: AutoWeights | None = None,
) -> Criterion:
    """Build a :class:`Criterion` around the loss that `loss` describes.

    Args:
        loss: As in :func:`build_loss`.
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        align_corners: As in the model.
        outputs: Names of the model's outputs. An output that is named like a registered target
            (``boundary``, ``distance``) learns that target.
        output_weights: Weight per output; by default 1 for ``out`` and 0.4 for every other. The
            weight ``learned``, of an output or of all `outputs`, is a trained number.
        output_losses: Loss per output, as in :func:`build_loss`.
        output_targets: Target per output: a name or mapping as registered with
            ``register_target``; None: the class ids.
        strip_rows: Rows of the target to upsample at a time; None: all at once.
        mining: As in :func:`build_loss`, for the main output only. Auxiliary outputs take the mean
            over all valid pixels, as in the official HRNet code.
        class_names: As in :func:`build_loss`.
        auto_weights: As in :func:`build_loss`.

    Raises:
        ConfigError: As :func:`build_loss`, with the key of the output.

    Example:
        >>> import torch
        >>> criterion = build_criterion("cross_entropy", num_classes=3, outputs=["out", "boundary"])
        >>> outputs = {"out": torch.zeros(1, 3, 2, 2), "boundary": torch.zeros(1, 1, 2, 2)}
        >>> sorted(criterion(outputs, torch.zeros(1, 4, 4, dtype=torch.long)).parts)
        ['boundary/bce', 'out/cross_entropy']
    """
    build = partial(build_loss, num_classes=num_classes, ignore_label=ignore_label)
    build = partial(build, class_names=class_names, auto_weights=auto_weights)
    plain = _without_mining(loss)
    return Criterion(
        build(loss, mining=mining),
        auxiliary_loss=build(plain),
        tasks=_build_tasks(plain, build, outputs, output_losses, output_targets),
        output_weights=_output_weights(output_weights, outputs),
        align_corners=align_corners,
        strip_rows=strip_rows,
    )


def check_output_specs(
    losses: Mapping[str, Any] | None, targets: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check which outputs have their own loss or target, but not yet the losses and targets.

    Returns:
        The two mappings, empty instead of None.

    Raises:
        ConfigError: If one of the two is not a mapping by output, or names the main output.
    """
    spec = str | dict[str, Any]
    losses = check_value(losses or {}, dict[str, spec], "criterion.output_losses")
    targets = check_value(targets or {}, dict[str, spec | None], "criterion.output_targets")
    if MAIN_OUTPUT in losses:
        raise ConfigError(
            f"criterion.output_losses.{MAIN_OUTPUT}: the main output's loss is set with `loss`"
        )
    if MAIN_OUTPUT in targets:
        raise ConfigError(
            f"criterion.output_targets.{MAIN_OUTPUT}: the main output learns the class ids"
        )
    return dict(losses), dict(targets)


def _build_tasks(
    default: str | Mapping[str, Any],
    build: Callable[..., Loss],
    outputs: Sequence[str] | None,
    output_losses: Mapping[str, str | Mapping[str, Any]] | None,
    output_targets: Mapping[str, str | Mapping[str, Any] | None] | None,
) -> dict[str, Task]:
    """The tasks of the outputs with a loss or target of their own; `default` is the other loss."""
    losses, targets = check_output_specs(output_losses, output_targets)
    by_name = [name for name in outputs or () if name in TARGETS.names()]
    tasks = {}
    for name in dict.fromkeys([*by_name, *losses, *targets]):
        target = _build_target(name, targets)
        spec = losses.get(name, target.default_loss if target else default)
        own = {} if target is None else {"num_classes": target.num_channels, **_UNNAMED}
        loss = build(spec, where=f"criterion.output_losses.{name}", **own)
        tasks[name] = Task(loss, target)
    return tasks


def _build_target(
    output: str, given: Mapping[str, str | Mapping[str, Any] | None]
) -> DerivedTarget | None:
    spec = given[output] if output in given else output if output in TARGETS.names() else None
    return None if spec is None else TARGETS.build(spec, where=f"criterion.output_targets.{output}")


def _output_weights(
    given: OutputWeights | Literal["learned"] | None, outputs: Sequence[str] | None
) -> OutputWeights | None:
    if given == LEARNED:
        if outputs is None:
            raise ConfigError(
                "criterion.output_weights: learned needs the names of the outputs; give"
                " {out: learned, ...}"
            )
        given = dict.fromkeys(outputs, LEARNED)
    if given is None:
        return None
    kind = dict[str, float | Literal["learned"]]
    weights: OutputWeights = check_value(given, kind, "criterion.output_weights")
    return weights


def _without_mining(spec: str | Mapping[str, Any]) -> str | dict[str, Any]:
    if isinstance(spec, str):
        return spec
    plain = {key: value for key, value in spec.items() if key != "mining"}
    if isinstance(plain.get("terms"), Mapping):
        plain["terms"] = {
            key: term and _without_mining(term) for key, term in plain["terms"].items()
        }
    return plain
