"""Check a configuration against the registered parts, before anything is built."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch

from segtrain.assembly.criterion import configured_criterion
from segtrain.criterion.build import check_output_specs
from segtrain.data import DATASETS, Normalization
from segtrain.data.datasets.recognise import hint
from segtrain.engine import OPTIMIZERS, SCHEDULERS
from segtrain.engine.hooks import HOOKS
from segtrain.errors import ConfigError, SegtrainError
from segtrain.losses import LOSSES, MININGS, TARGETS
from segtrain.metrics import MetricCollector, build_metrics, check_choice
from segtrain.models import MODELS
from segtrain.models.adapters import ADAPTERS
from segtrain.models.weights import check_weight_keys
from segtrain.schema.registry import Registry
from segtrain.schema.sections import Config, Spec, parse_config
from segtrain.schema.values import did_you_mean

# The registry of each section, and the parameters that come from the rest of the configuration.
# All other parameters are keys of the section.
SECTIONS: dict[str, tuple[Registry[Any], tuple[str, ...]]] = {
    "dataset": (DATASETS, ("split",)),
    "model": (MODELS, ("num_classes",)),
    "loss": (LOSSES, ("num_classes", "ignore_label")),
    "mining": (MININGS, ()),
    "optimizer": (OPTIMIZERS, ("model",)),
    "scheduler": (SCHEDULERS, ("optimizer", "total_steps")),
}


def check_config(raw: Mapping[str, Any]) -> Config:
    """Check every key and value, and fill in all defaults.

    Args:
        raw: Nested plain values, as in YAML.

    Raises:
        ConfigError: With the dotted key, the value, the allowed values and the closest match.
    """
    known = _known_keys(raw)
    for key in raw:
        if key not in {field.name for field in fields(Config)}:
            raise ConfigError(f"unknown key {key}{_closest_key(str(key), known)}")
    config = parse_config(dict(raw))
    _check_outputs(config)
    _check_allowed(config, known)
    for index, spec in enumerate(config.hooks):
        HOOKS.check(spec, where=f"hooks[{index}]")
    build_metrics(config.evaluation.metrics)
    filled = {section: _checked_section(section, getattr(config, section)) for section in SECTIONS}
    model = filled["model"]
    check_weight_keys(model["weights"], reinit=model["reinit"], abn=model["abn"], where="model")
    if model["adapter"] is not None:
        model["adapter"] = _checked_adapter(model["adapter"])
    return replace(config, **filled)  # type: ignore[arg-type]


def check_parts(config: Config) -> None:
    """Build what needs no model, to run the checks in constructors that training runs, too.

    Only the schedule is built when the dataset cannot be opened, since the classes and channels are
    unknown then.

    Raises:
        ConfigError: As training would.
    """
    if config.trainer.max_steps is not None:
        some = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        SCHEDULERS.build(config.scheduler, optimizer=some, total_steps=config.trainer.max_steps)
    try:
        dataset = DATASETS.build(config.dataset, split="train")
    except SegtrainError:
        return
    labels = dataset.labels
    Normalization(config.augmentation.mean, config.augmentation.std, dataset.channels)
    metrics = build_metrics(config.evaluation.metrics)
    check_choice(config.trainer.best, metrics, labels.names)
    MetricCollector(metrics, class_names=labels.names, classes=config.evaluation.classes)
    weights = config.criterion.output_weights
    configured_criterion(
        config,
        labels,
        lambda _: [1.0] * labels.num_ids,  # no pixels are counted for a check
        # `learned` alone needs the names of the outputs, which only a model has.
        output_weights=None if isinstance(weights, str) else weights,
    )


def _checked_section(section: str, spec: Spec) -> Spec:
    registry, provided = SECTIONS[section]
    try:
        name, params = registry.check(spec, provided=provided, where=section)
    except ConfigError as error:
        raise ConfigError(f"{error}{_export_hint(section, spec)}") from None
    if section == "loss":
        _check_inside(params, section)
    return {"name": name, **_defaults(registry, name, provided), **params}


def _defaults(registry: Registry[Any], name: str, provided: Iterable[str] = ()) -> dict[str, Any]:
    return {
        key: parameter.default
        for key, parameter in registry.schema(name).items()
        if key not in provided and parameter.default is not MISSING
    }


def _checked_adapter(spec: Any) -> Spec:
    where = "model.adapter"
    ADAPTERS.build(spec, where=where)
    name, params = ADAPTERS.check(spec, where=where)
    return {"name": name, **_defaults(ADAPTERS, name), **params}


def _export_hint(section: str, spec: Spec) -> str:
    """The end of a message about the dataset if its root is an export that another one reads."""
    if section != "dataset" or not isinstance(spec.get("root"), str):
        return ""
    return hint(Path(spec["root"]).expanduser(), str(spec.get("name")))


def _check_inside(params: Mapping[str, Any], where: str) -> None:
    """Check the registered parts inside a loss: its mining, and the terms of a sum."""
    if params.get("mining") is not None:
        MININGS.check(params["mining"], where=f"{where}.mining")
    for key, term in (params.get("terms") or {}).items():
        if term is not None:
            spec = {"name": key, **{name: term[name] for name in term if name != "weight"}}
            _, inner = LOSSES.check(
                spec, provided=("num_classes", "ignore_label"), where=f"{where}.terms.{key}"
            )
            _check_inside(inner, f"{where}.terms.{key}")


def _check_allowed(config: Config, known: Iterable[str]) -> None:
    """Check that `resume_allow` names sections or keys."""
    names = {*known, *(field.name for field in fields(Config))}
    for key in config.resume_allow:
        if key not in names and key.partition(".")[0] not in SECTIONS:
            hint = _closest_key(key, sorted(names))
            raise ConfigError(f"resume_allow: there is no key {key!r}{hint}")


def _check_outputs(config: Config) -> None:
    """Check the losses and targets of single outputs."""
    provided = SECTIONS["loss"][1]
    losses, targets = check_output_specs(
        config.criterion.output_losses, config.criterion.output_targets
    )
    for name, spec in losses.items():
        where = f"criterion.output_losses.{name}"
        _, params = LOSSES.check(spec, provided=provided, where=where)
        _check_inside(params, where)
    for name, target in targets.items():
        if target is not None:
            TARGETS.check(target, where=f"criterion.output_targets.{name}")


def _known_keys(raw: Mapping[str, Any]) -> list[str]:
    """List every dotted key that this configuration may hold."""
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
    """Suggest a dotted key for `key`, which may lack its section or be misspelt."""
    by_tail = {full.rsplit(".", 1)[-1]: full for full in known}
    tail = difflib.get_close_matches(key, by_tail, n=1, cutoff=0.75)
    if tail:
        return f"; did you mean {by_tail[tail[0]]}?"
    return did_you_mean(key, [field.name for field in fields(Config)])
