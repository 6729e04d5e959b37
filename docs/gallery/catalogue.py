"""The registered losses and kinds of mining, with what their pages are made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, MININGS, Loss, PixelLoss, RegionLoss, Term
from segtrain.schema.registry import Registry
from segtrain.schema.values import Parameter

from .docstrings import Docstring, parse

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "losses"

FILLED_IN = ("num_classes", "ignore_label")  # from the dataset; no configuration sets them
# Parameters that all losses of a family have.
SHARED = ("class_weights", "mining", "activation", "classes", "per_image")
EXAMPLES = {
    "terms": {"cross_entropy": {}, "dice": {}}
}  # of required parameters without a config file
JOINT = ("generalized_dice",)  # one ratio over all classes; of one class, it would be another loss
PICTURES = {"cldice": "bar"}  # of losses that are constant in the scene of their family
FAMILIES = {"pixel": PixelLoss, "region": RegionLoss, "map": Term, "combination": Loss}


@dataclass(frozen=True)
class Entry:
    """A registered loss or mining."""

    name: str
    family: str
    picture: str  # the painter: that of the family, or another if that shows nothing
    doc: Docstring
    schema: dict[str, Parameter]
    spec: dict[str, Any]  # the name and the required parameters

    @property
    def picture_parameters(self) -> dict[str, Any]:
        """The parameters of the picture that differ from the defaults, for means over classes."""
        one_class = "classes" in self.schema and self.name not in JOINT
        return {"classes": [1]} if one_class else {}

    @property
    def own(self) -> list[str]:
        """The parameters that not every loss of the family has."""
        return [name for name in self.schema if name not in SHARED]


def losses() -> list[Entry]:
    """Return every registered loss, sorted by name."""
    return [_entry(name, LOSSES, "loss") for name in LOSSES.names()]


def minings() -> list[Entry]:
    """Return every registered mining, ``none`` first."""
    names = sorted(MININGS.names(), key=lambda name: (name != "none", name))
    return [_entry(name, MININGS, "mining") for name in names]


def build(entry: Entry, **params: Any) -> Loss:
    """Build the loss of `entry` for two classes, or for one channel if it refuses two."""
    spec = {**entry.spec, **params}
    try:
        return LOSSES.build(spec, num_classes=2, ignore_label=255)
    except ConfigError:
        try:
            return LOSSES.build(spec, num_classes=1, ignore_label=255)
        except ConfigError:
            pass
        raise  # the error of two classes, not of one channel


def _entry(name: str, registry: Registry[Any], group: str) -> Entry:
    factory = registry.get(name)
    try:
        schema = {key: item for key, item in registry.schema(name).items() if key not in FILLED_IN}
        doc = parse(factory.__doc__ or "")
        for text in _inherited_docstrings(factory):
            doc.arguments = parse(text).arguments | doc.arguments
        if not doc.summary:
            raise ValueError("there is no docstring")
        if missing := [key for key in schema if not doc.arguments.get(key)]:
            raise ValueError(f"the docstring has no line for {', '.join(missing)}")
        spec = {"name": name} | _required(name, group, schema)
        entry = Entry(name, "mining", "mining", doc, schema, spec)
        if group == "mining":
            return entry
        loss = build(entry)
    except Exception as error:
        raise RuntimeError(f"{group} {name}: {error}") from error
    family = next(family for family, base in FAMILIES.items() if isinstance(loss, base))
    if loss.dense == "regression":
        family = "regression"
    picture = "around" if family == "pixel" and _looks_around(loss) else family
    return Entry(name, family, PICTURES.get(name, picture), doc, schema, spec)


def _looks_around(loss: Loss) -> bool:
    """Whether a pixel's loss depends on the target around it."""
    target = torch.eye(8, dtype=torch.long)[None]
    return isinstance(loss, PixelLoss) and loss.context(target) is not None


def _inherited_docstrings(factory: Callable[..., Any]) -> Iterator[str]:
    bases = factory.__mro__[1:] if inspect.isclass(factory) else PixelLoss.__mro__
    for base in bases:
        if base.__module__.startswith("segtrain.") and base.__doc__:
            yield base.__doc__


def _required(name: str, group: str, schema: dict[str, Parameter]) -> dict[str, Any]:
    """Return values of the required parameters, from the config file of the name."""
    wanted = [key for key, item in schema.items() if item.required]
    if not wanted:
        return {}
    file = ROOT / "configs" / group / f"{name}.yaml"
    given = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {key: (EXAMPLES | given)[key] for key in wanted}
