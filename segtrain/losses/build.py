"""Build losses by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from segtrain.errors import ConfigError
from segtrain.files import config_dir
from segtrain.losses import LOSSES, MININGS, Loss
from segtrain.losses.class_weights import AutoWeights, ClassWeights, resolve_class_weights
from segtrain.losses.mining.base import MiningSpec, build_mining, is_no_mining


def list_losses() -> list[str]:
    """Return the names that :func:`build_loss` and ``loss=`` accept: losses and presets of them."""
    return sorted({*LOSSES.names(), *(path.stem for path in _presets().glob("*.yaml"))})


def _presets() -> Path:
    return config_dir() / "loss"


def _preset(name: str) -> dict[str, Any] | None:
    """The parameters of a preset such as ``ce_dice``, a file of ``configs/loss``; None: no file."""
    path = _presets() / f"{name}.yaml"
    if name in LOSSES.names() or not path.is_file():
        return None
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def list_minings() -> list[str]:
    """Return the names that ``mining=`` accepts."""
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
    """Build a loss by name.

    Args:
        spec: A name, also of a preset such as ``ce_dice``; or a mapping with ``name`` and
            parameters, as in YAML.
        num_classes: Number of channels of the logits.
        ignore_label: Target value of ignored pixels.
        class_weights: One weight per class, for the losses that accept them: a list, a file that
            holds one, a mapping by class name, or a method that computes them from the dataset:
            ``auto``, ``inverse_frequency``, ``median_frequency``, ``inverse_log``,
            ``effective_number``.
        mining: Hard-example mining for pixel losses: a name, or a mapping with ``name`` and
            parameters.
        class_names: In the order of the class ids, for class weights by name; empty if the classes
            have no names.
        auto_weights: Returns the weights that such a method computes.
        where: The key of `spec` in the configuration, for error messages.
        **params: Further parameters of the loss.

    Raises:
        ConfigError: On an unknown name or parameter, or a wrong value.

    Example:
        >>> import torch
        >>> loss = build_loss("focal", num_classes=3, gamma=0.0)
        >>> loss(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))  # ln 3
        tensor(1.0986)
    """
    preset = _preset(spec) if isinstance(spec, str) else None
    spec = {**LOSSES.named(spec if preset is None else preset, where=where), **params}
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
    """Return `spec` with its checked mining, and without the key if every valid pixel counts.

    Raises:
        ConfigError: When mining is set twice or is wrong, or the loss does not accept it.
    """
    found = dict(spec)
    own = found.pop("mining", None)
    if mining is not None and own is not None:
        raise ConfigError(f"mining is set twice: as {where}.mining and as mining; remove one")
    if mining is not None:
        build_mining(mining)  # its mistakes are reported under mining, not under loss
    elif own is not None:
        MININGS.check(own, where=f"{where}.mining")
    chosen = own if mining is None else mining
    if is_no_mining(chosen):
        return found
    if "mining" not in LOSSES.schema(found["name"], where=where):
        place = "" if where == LOSSES.kind else f"{where}: "
        raise ConfigError(
            f"{place}loss {found['name']!r} is not a pixel loss, so mining cannot select its"
            " pixels; use mining=none"
        )
    return {**found, "mining": chosen}


def _with_weights(
    spec: Mapping[str, Any],
    resolve: Callable[[ClassWeights], Sequence[float] | None],
    where: str,
) -> dict[str, Any]:
    """Return `spec` with its class weights, and those of its terms, as lists."""
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
