"""The plan of loading: what happens to every weight, decided before any is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from segtrain.models.layers.stem import differs_in_channels, widen
from segtrain.models.load_report import LoadReport
from segtrain.models.weights.formats import WeightFile
from segtrain.models.weights.names import Match, ModelNames, match_names, outside_backbone
from segtrain.models.weights.order import COUNT

ABN = "|weight| + 1e-5"
_ABN_EPSILON = 1e-5
# Only used in training; the files of torchvision always contain it.
_AUXILIARY = ("aux_classifier.",)


@dataclass(frozen=True)
class LoadPlan:
    """What happens to every weight when a file is loaded into a model.

    The names are those in the model, except for `left_out` and `unexpected`.

    Attributes:
        values: The weights to load.
        counts: Zeros for ``num_batches_tracked``, which files of PyTorch 0.4.1 do not contain.
        is_backbone: Whether the file contains only a backbone.
        lacks_counts: Whether the file contains batch norms without ``num_batches_tracked``.
        reinitialised: Weights that keep their initial values because of ``reinit``.
        new: Weights that keep their initial values because the file contains only a backbone.
        left_out: Names in the file of weights that are not used.
        missing: Weights of the model that are not in the file.
        unexpected: Names in the file of weights that are not in the model.
        misshapen: Weights of another shape, with their shape in the file.
        converted: Descriptions of the conversions, each with the names of the converted weights.
    """

    values: dict[str, Tensor]
    counts: dict[str, Tensor]
    is_backbone: bool
    lacks_counts: bool
    reinitialised: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: dict[str, tuple[int, ...]] = field(default_factory=dict)
    converted: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def refused(self) -> dict[str, tuple[str, ...]]:
        """Reasons why weights do not fit, each with their names."""
        reasons = {
            "not in the file": self.missing,
            "not in the model": self.unexpected,
            "of another shape": tuple(self.misshapen),
        }
        return {reason: names for reason, names in reasons.items() if names}

    def report(self, file: WeightFile, notes: tuple[str, ...] = ()) -> LoadReport:
        """Return the plan as a report for the user."""
        return LoadReport(
            source=file.source,
            kind=file.kind,
            loaded=() if self.refused else tuple(self.values),
            reinitialised=self.reinitialised,
            new=self.new,
            left_out=(*(f"{file.prefix}{key}" for key in self.left_out), *file.outside),
            converted=self.converted,
            refused=self.refused,
            notes=(*file.notes, *notes),
            num_classes=file.num_classes,
            class_names=file.class_names,
            class_weights=file.class_weights,
        )


def plan_loading(file: WeightFile, names: ModelNames, kept: set[str]) -> LoadPlan:
    """Decide what happens to every weight of `file` and of the model.

    Args:
        file: The recognised file.
        names: The names of the model.
        kept: Names in the model of the weights that keep their initial values.
    """
    found = match_names(file.state, names)
    is_backbone = bool(names.head) and not file.has_heads and not (found.values.keys() & names.head)
    wanted = {key: value for key, value in found.values.items() if key not in kept}
    values, converted = _fitted(wanted, names)
    converted = {**_only(found.renamed, wanted), **converted}
    counts, lacks_counts = _counts(file, names, wanted)
    misshapen = {key: tuple(wanted[key].shape) for key in wanted if key not in values}
    absent = [key for key in names.own if key not in {*wanted, *counts, *kept}]
    new = tuple(key for key in absent if is_backbone and key in names.head)
    left_out, unexpected = _leftovers(file, names, found, is_backbone or bool(kept & names.head))
    if counts and values:
        converted[f"{COUNT} = 0"] = tuple(counts)
    return LoadPlan(
        values=values,
        counts=counts if values else {},
        is_backbone=is_backbone,
        lacks_counts=lacks_counts,
        reinitialised=tuple(key for key in names.own if key in kept),
        new=new,
        left_out=left_out,
        missing=tuple(key for key in absent if key not in new),
        unexpected=unexpected,
        misshapen=misshapen,
        converted=converted,
    )


def _only(
    renamed: dict[str, tuple[str, ...]], wanted: dict[str, Tensor]
) -> dict[str, tuple[str, ...]]:
    """Restrict `renamed` to the names in `wanted`."""
    found = {rule: tuple(key for key in keys if key in wanted) for rule, keys in renamed.items()}
    return {rule: keys for rule, keys in found.items() if keys}


def _fitted(
    wanted: dict[str, Tensor], names: ModelNames
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """The weights that have, or can be converted to, the shape and type in the model."""
    values: dict[str, Tensor] = {}
    cast: dict[str, list[str]] = {}
    converted: dict[str, tuple[str, ...]] = {}
    for key, value in wanted.items():
        own = names.own[key]
        fitted = value
        if key == names.stem and differs_in_channels(value, own):
            fitted = widen(value, own.shape[1])
            what = f"stem of {value.shape[1]} channels to {own.shape[1]}"
            converted[what] = (key,)
        if fitted.shape != own.shape or fitted.is_floating_point() != own.is_floating_point():
            continue
        if fitted.dtype != own.dtype and own.is_floating_point():
            cast.setdefault(str(fitted.dtype).removeprefix("torch."), []).append(key)
        values[key] = fitted
    return values, {**converted, **{f"from {kind}": tuple(keys) for kind, keys in cast.items()}}


def _counts(
    file: WeightFile, names: ModelNames, wanted: dict[str, Tensor]
) -> tuple[dict[str, Tensor], bool]:
    """Zeros for ``num_batches_tracked`` if the file lacks all of them, and whether it does."""
    has_norms = any(key.endswith(".running_var") for key in file.state)
    if not has_norms or any(key.endswith(COUNT) for key in file.state):
        return {}, False
    norms = [key.removesuffix("running_var") for key in wanted if key.endswith(".running_var")]
    counts = [f"{norm}{COUNT}" for norm in norms]
    return {key: torch.zeros_like(names.own[key]) for key in counts if key in names.own}, True


def _leftovers(
    file: WeightFile, names: ModelNames, found: Match, may_lack_head: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The unused names in the file: those that may be left out, and the unexpected ones."""
    rest = [key for key in file.state if key not in found.used]
    allowed = outside_backbone(rest, names) if may_lack_head else set()
    allowed |= found.after | {key for key in rest if key.startswith(_AUXILIARY)}
    left_out = tuple(key for key in rest if key in allowed)
    return left_out, tuple(key for key in rest if key not in allowed)


def with_absolute_norms(plan: LoadPlan) -> LoadPlan:
    """Convert the weight of each batch norm to what InPlaceABN used: ``|weight| + epsilon``."""
    norms = [key.removesuffix("running_var") for key in plan.values if key.endswith("running_var")]
    scales = tuple(f"{norm}weight" for norm in norms if f"{norm}weight" in plan.values)
    absolute = {key: plan.values[key].abs() + _ABN_EPSILON for key in scales}
    what = f"InPlaceABN, {ABN}"
    return replace(
        plan, values={**plan.values, **absolute}, converted={**plan.converted, what: scales}
    )
