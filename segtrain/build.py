"""From names and plain values to the parts of a run: losses, criteria, models, datasets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from segtrain.criterion import LEARNED, MAIN_OUTPUT, Criterion, OutputWeights, Task
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, MININGS, TARGETS, DerivedTarget, Loss
from segtrain.losses.mining import MiningSpec, build_mining
from segtrain.losses.weights import AutoWeights, ClassWeights, resolve_class_weights
from segtrain.models import BACKBONES, HEADS, MODELS, Segmentor
from segtrain.schema import check_value

# A derived target has classes of its own, and a dataset says nothing of them.
_UNNAMED: dict[str, Any] = {"class_names": (), "auto_weights": None}


def list_losses() -> list[str]:
    """The names that :func:`build_loss` and ``loss=`` take."""
    return LOSSES.names()


def list_models() -> list[str]:
    """The names that :func:`build_model` and ``model=`` take."""
    return MODELS.names()


def list_backbones() -> list[str]:
    """The names that ``model.backbone=`` takes, besides those of timm and torchvision."""
    return BACKBONES.names()


def list_heads() -> list[str]:
    """The names that ``model.head=`` takes."""
    return HEADS.names()


def list_minings() -> list[str]:
    """The names that ``mining=`` takes."""
    return MININGS.names()


def build_loss(
    spec: str | Mapping[str, Any],
    *,
    num_classes: int,
    ignore_label: int = 255,
    class_weights: ClassWeights = None,
    mining: MiningSpec = None,
    class_names: Sequence[str] | None = None,
    auto_weights: AutoWeights | None = None,
    where: str = "loss",
    **params: Any,
) -> Loss:
    """A loss by name.

    Args:
        spec: A name, or a mapping with ``name`` and parameters, as it stands in YAML.
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        class_weights: One weight per class, for the losses that take them: a list, a file that
            holds one, a mapping by class name, or a word for how they come from the data: ``auto``,
            ``inverse_frequency``, ``median_frequency``, ``inverse_log``, ``effective_number``.
        mining: A mining's name or mapping, for pixel losses.
        class_names: In the order of the class ids, for class weights by name; empty where the
            classes have none.
        auto_weights: Gives the weights that such a word stands for.
        where: The key of `spec` in the configuration, which starts the messages.
        **params: Further parameters of the loss.

    Raises:
        ConfigError: On an unknown name or parameter, or a value that does not fit.

    Example:
        >>> import torch
        >>> loss = build_loss("focal", num_classes=3, gamma=0.0)
        >>> loss(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))  # ln 3
        tensor(1.0986)
    """
    spec = {**LOSSES.named(spec, where=where), **params}
    if class_weights is not None:
        spec["class_weights"] = class_weights
    spec = _with_mining(spec, mining, where)
    resolve = partial(
        resolve_class_weights,
        num_classes=num_classes,
        class_names=class_names,
        auto=auto_weights,
    )
    return LOSSES.build(
        _with_weights(spec, resolve, where),
        where=where,
        num_classes=num_classes,
        ignore_label=ignore_label,
    )


def _with_mining(spec: Mapping[str, Any], mining: MiningSpec, where: str) -> dict[str, Any]:
    """`spec` with the mining that is given in it or beside it, checked; without one that is none.

    Raises:
        ConfigError: When both are given, the mining is wrong, or the loss takes none.
    """
    found = dict(spec)
    own = found.pop("mining", None)
    if mining is not None and own is not None:
        raise ConfigError(f"mining is set twice: in {where}.mining and beside it")
    if mining is not None:
        build_mining(mining)  # what is wrong with it is said of its own key, not of the loss's
    elif own is not None:
        MININGS.check(own, where=f"{where}.mining")
    chosen = own if mining is None else mining
    if is_no_mining(chosen):
        return found
    if "mining" not in LOSSES.schema(found["name"], where=where):
        place = "" if where == LOSSES.kind else f"{where}: "
        raise ConfigError(
            f"{place}loss {found['name']!r} is no pixel loss, so no mining can choose its pixels;"
            " use mining=none"
        )
    return {**found, "mining": chosen}


def _with_weights(
    spec: Mapping[str, Any],
    resolve: Callable[[ClassWeights], Sequence[float] | None],
    where: str,
) -> dict[str, Any]:
    """`spec` with its class weights, and those of its terms, as lists."""
    found = dict(spec)
    if isinstance(found.get("class_weights"), (str, Path, Mapping)):
        try:
            found["class_weights"] = resolve(found["class_weights"])
        except ConfigError as error:
            raise ConfigError(f"{where}.{error}") from error
    if isinstance(found.get("terms"), Mapping):
        found["terms"] = {
            key: _with_weights(term, resolve, f"{where}.terms.{key}")
            if isinstance(term, Mapping)
            else term
            for key, term in found["terms"].items()
        }
    return found


def is_no_mining(mining: MiningSpec) -> bool:
    """Whether `mining` says that every valid pixel counts."""
    return mining in (None, "none") or (
        isinstance(mining, Mapping) and dict(mining) == {"name": "none"}
    )


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
    """A :class:`Criterion` around the loss that `loss` describes.

    A mining acts on the main output only; auxiliary outputs take the mean over all their valid
    pixels, as in the official HRNet code.

    Args:
        loss: As in :func:`build_loss`.
        num_classes: Number of channels of the logits.
        ignore_label: Target value of the pixels that do not count.
        align_corners: As in the model.
        outputs: The names of the model's outputs, where some of them follow from their names alone:
            one called as a target (``boundary``, ``distance``) learns that target.
        output_weights: Weight per output; 1 for ``out`` and 0.4 for any other unless given.
            ``learned`` for one of them, or for all of `outputs`, makes it a trained number.
        output_losses: A loss of its own for an output, as in :func:`build_loss`.
        output_targets: A target of its own for an output: a name or mapping as registered with
            ``register_target``, or None for the class ids.
        strip_rows: Rows of the target that are upsampled at a time; None: all at once.
        mining: As in :func:`build_loss`.
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
    common: dict[str, Any] = {
        "num_classes": num_classes,
        "ignore_label": ignore_label,
        "class_names": class_names,
        "auto_weights": auto_weights,
    }
    main = build_loss(loss, mining=mining, **common)
    plain = _without_mining(loss)
    losses, targets = check_output_specs(output_losses, output_targets)
    tasks = {}
    for name in _with_tasks(outputs, losses, targets):
        target = _build_target(name, targets)
        spec = losses.get(name, target.default_loss if target else plain)
        own = {} if target is None else {"num_classes": target.num_channels, **_UNNAMED}
        where = f"criterion.output_losses.{name}"
        tasks[name] = Task(build_loss(spec, where=where, **{**common, **own}), target)
    return Criterion(
        main,
        auxiliary_loss=build_loss(plain, **common),
        tasks=tasks,
        output_weights=_output_weights(output_weights, outputs),
        align_corners=align_corners,
        strip_rows=strip_rows,
    )


def check_output_specs(
    losses: Mapping[str, Any] | None, targets: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What single outputs are given for a loss and a target; nothing inside is checked.

    Raises:
        ConfigError: When the main output is among them, or one of the two is no mapping.
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


def _with_tasks(outputs: Sequence[str] | None, *given: Mapping[str, Any]) -> dict[str, None]:
    """The outputs that learn something of their own."""
    by_name = [name for name in outputs or () if name in TARGETS.names()]
    return dict.fromkeys([*by_name, *(name for mapping in given for name in mapping)])


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
    for name, weight in weights.items():
        if not isinstance(weight, str) and not 0 <= weight < math.inf:
            raise ConfigError(
                f"criterion.output_weights.{name} must be finite and at least 0, got {weight}"
            )
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


def build_model(name: str | Mapping[str, Any], *, num_classes: int, **params: Any) -> Segmentor:
    """A model by name.

    Args:
        name: A name, or a mapping with ``name`` and parameters.
        num_classes: Number of channels of every output.
        **params: Further parameters of the model, such as ``align_corners``.

    Raises:
        ConfigError: On an unknown name or parameter, or a value that does not fit.
    """
    spec = {"name": name, **params} if isinstance(name, str) else {**name, **params}
    return MODELS.build(spec, num_classes=num_classes)
