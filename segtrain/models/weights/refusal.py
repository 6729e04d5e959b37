"""The error message for weights that do not fit a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from segtrain.models.weights.formats import WeightFile, is_ocr, variant_of
from segtrain.models.weights.names import AFTER_HRNET, HEAD, ModelNames
from segtrain.models.weights.order import compare_order
from segtrain.models.weights.plan import LoadPlan

_SHOWN = 3


def refusal(file: WeightFile, names: ModelNames, plan: LoadPlan, where: str) -> str:
    """Explain why `file` was not loaded: counts, the first few names, and the next step."""
    start = f"{file.source} ({file.kind})"
    if not plan.values:
        return f"{start}: {_nothing(file, names, plan)}; nothing was loaded"
    problems = [_listed(len(keys), f"{why}", keys) for why, keys in plan.refused.items()]
    if plan.misshapen:
        problems[-1] = _shapes(plan.misshapen, names)
    step = _step(file, names, plan, where)
    return f"{start} does not fit {names.label}: {'; '.join(problems)}; {step}"


def _nothing(file: WeightFile, names: ModelNames, plan: LoadPlan) -> str:
    if plan.reinitialised and not plan.missing and not plan.misshapen:
        return "reinit selects the whole model"
    if plan.misshapen:
        return _shapes(plan.misshapen, names)
    in_file, in_model = (", ".join(list(keys)[:_SHOWN]) for keys in (file.state, names.own))
    fits = "" if file.fits is None else f"; it fits model={file.fits}"
    return (
        f"none of its {len(file.state)} weights has the name of a weight of {names.label}"
        f" ({in_file}, ... in the file; {in_model}, ... in the model){_order(file, names)}{fits}"
    )


def _order(file: WeightFile, names: ModelNames) -> str:
    """The part of the message on comparing a backbone by order, which is the last rule."""
    if not names.head:
        return ""
    difference = compare_order(names.of_backbone, file.state).difference
    return f", and they are not those of its backbone in the same order: {difference}"


def _listed(count: int, what: str, keys: Iterable[str]) -> str:
    shown = list(keys)[:_SHOWN]
    more = ", ..." if count > len(shown) else ""
    return f"{count} {'is' if count == 1 else 'are'} {what} ({', '.join(shown)}{more})"


def _shapes(misshapen: Mapping[str, tuple[int, ...]], names: ModelNames) -> str:
    shown = [
        f"{key} {shape} in the file, {tuple(names.own[key].shape)} in the model"
        for key, shape in list(misshapen.items())[:_SHOWN]
    ]
    more = "; ..." if len(misshapen) > len(shown) else ""
    verb = "has" if len(misshapen) == 1 else "have"
    return f"{len(misshapen)} {verb} another shape or type ({'; '.join(shown)}{more})"


def _step(file: WeightFile, names: ModelNames, plan: LoadPlan, where: str) -> str:
    """The next step for the user."""
    reinit = f"{where}.reinit" if where else "reinit"
    of_file, of_model = variant_of(_trunk(file)), names.variant
    if of_file is not None and of_model is not None:
        if of_file != of_model:
            return f"use {_name(file, names, of_file)}"
        if not names.backbone_prefix and file.has_heads and names.is_ocr != is_ocr(file.state):
            return _other_head(file, names, reinit)
    classes = _classes(names, plan)
    if classes is not None:
        return (
            f"the file has {classes} classes, the model {names.model.num_classes}: add"
            f" {reinit}=[{_new_head(names, plan)}] to train a new head"
        )
    wrong = {*plan.missing, *plan.misshapen}
    if wrong <= names.head and names.head:
        return (
            f"add {reinit}=[{','.join(_modules(wrong, names))}] to reinitialise and train that part"
        )
    if file.is_own and file.fits == names.model.registered_name:
        return f"it was written by model={file.fits} with other parameters; use the same ones"
    if file.fits is not None:
        return f"it fits model={file.fits}"
    return "it may belong to another architecture or size"


def _trunk(file: WeightFile) -> dict[str, Tensor]:
    return {key.removeprefix("backbone."): value for key, value in file.state.items()}


def _name(file: WeightFile, names: ModelNames, variant: str) -> str:
    if names.backbone_prefix:
        return f"model.backbone=hrnet_{variant}"
    return f"model={file.fits or f'hrnet_{variant}'}"


def _other_head(file: WeightFile, names: ModelNames, reinit: str) -> str:
    fits = f"use model={file.fits}"
    if names.is_ocr:
        return (
            f"{fits}, or add {reinit}=[{','.join(AFTER_HRNET)}] to start OCR from it with its head"
            " as the auxiliary head, as the official code does"
        )
    return f"{fits}, or add {reinit}=[{HEAD}] to load only its trunk"


def _classes(names: ModelNames, plan: LoadPlan) -> int | None:
    """Number of classes of the file, if it is the only difference; None otherwise."""
    found = {shape[0] if shape else 0 for shape in plan.misshapen.values()}
    only_classes = all(
        key in names.head
        and shape[1:] == tuple(names.own[key].shape[1:])
        and names.own[key].shape[:1] == (names.model.num_classes,)
        for key, shape in plan.misshapen.items()
    )
    is_all = not plan.missing and not plan.unexpected and only_classes
    return found.pop() if len(found) == 1 and is_all else None


def _new_head(names: ModelNames, plan: LoadPlan) -> str:
    """Modules to reinitialise for other classes: all heads, or those that are left if some are."""
    chosen = {*plan.reinitialised} & names.head
    return ",".join(_modules({*plan.misshapen} | chosen, names)) if chosen else HEAD


def _modules(keys: Iterable[str], names: ModelNames) -> list[str]:
    """The names of the heads that contain `keys`."""
    keys = list(keys)
    if {*keys} == names.head:
        return [HEAD]
    prefixes = names.model.head_prefixes
    return [name for name in prefixes if any(key.startswith(f"{name}.") for key in keys)]
