"""The configuration against everything that is registered, before anything is built."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, get_type_hints

from segtrain.config import Config, Spec, parse_config
from segtrain.data import DATASETS
from segtrain.engine import OPTIMIZERS, SCHEDULERS
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, MININGS
from segtrain.models import MODELS
from segtrain.registry import Registry
from segtrain.schema import did_you_mean

# What each section's parts get from elsewhere; the rest of their parameters are the keys of the
# section.
SECTIONS: dict[str, tuple[Registry[Any], tuple[str, ...]]] = {
    "dataset": (DATASETS, ("split",)),
    "model": (MODELS, ("num_classes",)),
    "loss": (LOSSES, ("num_classes", "ignore_label")),
    "mining": (MININGS, ()),
    "optimizer": (OPTIMIZERS, ("model",)),
    "scheduler": (SCHEDULERS, ("optimizer", "total_steps")),
}


def check_config(raw: Mapping[str, Any]) -> Config:
    """A :class:`Config` whose every key and value was checked, with all defaults filled in.

    Raises:
        ConfigError: With the dotted key, what was got, what is allowed and the closest match.
    """
    known = _known_keys(raw)
    for key in raw:
        if key not in {field.name for field in fields(Config)}:
            raise ConfigError(f"unknown key {key}{_closest_key(str(key), known)}")
    config = parse_config(dict(raw))
    filled = {section: _checked_section(section, getattr(config, section)) for section in SECTIONS}
    return replace(config, **filled)  # type: ignore[arg-type]


def _checked_section(section: str, spec: Spec) -> Spec:
    registry, provided = SECTIONS[section]
    name, params = registry.check(spec, provided=provided, where=section)
    if section == "loss":
        _check_inside(params, section)
    defaults = {
        key: parameter.default
        for key, parameter in registry.schema(name).items()
        if key not in provided and parameter.default is not MISSING
    }
    return {"name": name, **defaults, **params}


def _check_inside(params: Mapping[str, Any], where: str) -> None:
    """What a loss holds of other registered parts: its mining, and the terms of a sum."""
    if params.get("mining") is not None:
        MININGS.check(params["mining"], where=f"{where}.mining")
    for key, term in (params.get("terms") or {}).items():
        if term is not None:
            spec = {"name": key, **{name: term[name] for name in term if name != "weight"}}
            _, inner = LOSSES.check(
                spec, provided=("num_classes", "ignore_label"), where=f"{where}.terms.{key}"
            )
            _check_inside(inner, f"{where}.terms.{key}")


def _known_keys(raw: Mapping[str, Any]) -> list[str]:
    """Every dotted key that this configuration may hold."""
    keys = list(_dataclass_keys(Config))
    for section, (registry, provided) in SECTIONS.items():
        spec = raw.get(section)
        name = spec.get("name") if isinstance(spec, Mapping) else None
        if name in registry.names():
            keys += [
                f"{section}.{key}" for key in registry.schema(str(name)) if key not in provided
            ]
    return keys


def _dataclass_keys(cls: type, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        if is_dataclass(hints[field.name]):
            yield from _dataclass_keys(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _closest_key(key: str, known: list[str]) -> str:
    """`key` may be a dotted key without its section, or a misspelt one."""
    by_tail = {full.rsplit(".", 1)[-1]: full for full in known}
    tail = difflib.get_close_matches(key, by_tail, n=1, cutoff=0.75)
    if tail:
        return f"; did you mean {by_tail[tail[0]]}?"
    return did_you_mean(key, [field.name for field in fields(Config)])
