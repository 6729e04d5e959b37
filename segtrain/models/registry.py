"""The registry of models, which also loads their initial weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from segtrain.errors import ConfigError
from segtrain.models.adapters import ADAPTERS, add_adapter
from segtrain.models.segmentor import ModuleSegmentor, Segmentor
from segtrain.models.weights import open_weights
from segtrain.schema.registry import F, Registry
from segtrain.schema.values import Parameter, parameters

WEIGHT_KEYS = {
    "weights": Parameter("weights", str | None, None),
    "reinit": Parameter("reinit", list[str], []),
    "abn": Parameter("abn", bool | None, None),
}
# Keys of every model section, in addition to the parameters of the model itself.
_SECTION_KEYS = {
    **WEIGHT_KEYS,
    "adapter": Parameter("adapter", str | dict[str, Any] | None, None),
}
_ALIGN_CORNERS = Parameter("align_corners", bool | None, None)


class ModelRegistry(Registry[Segmentor]):
    """A registry whose models may start from weights.

    An entry is a :class:`Segmentor` class, or a function or class that returns a module whose
    forward pass returns logits or a dict of logits. It must accept ``num_classes``. Its other
    parameters are the keys of its section; ``in_channels`` and ``align_corners`` are optional.
    Without a parameter ``align_corners``, that key applies to the outputs only.

    Raises:
        ConfigError: On registration, if the name is taken, the entry does not accept
            ``num_classes``, or it accepts a key that every section has: ``weights``, ``reinit``,
            ``abn`` or ``adapter``.

    Example:
        >>> import torch
        >>> models = ModelRegistry()
        >>> @models.register("pixelwise")
        ... def pixelwise(num_classes: int, kernel_size: int = 1) -> nn.Module:
        ...     return nn.Conv2d(3, num_classes, kernel_size, padding="same")
        >>> model = models.build({"name": "pixelwise", "kernel_size": 3}, num_classes=5)
        >>> model(torch.zeros(2, 3, 8, 8))["out"].shape
        torch.Size([2, 5, 8, 8])
    """

    def __init__(self) -> None:
        super().__init__("model")

    def register(self, name: str) -> Callable[[F], F]:
        store = super().register(name)

        def decorate(factory: F) -> F:
            made = factory.func if isinstance(factory, partial) else factory
            is_segmentor = inspect.isclass(made) and issubclass(made, Segmentor)
            _check_signature(name, parameters(factory))
            store(factory if is_segmentor else _Adapted(factory))
            return factory

        return decorate

    def schema(self, name: str, *, where: str | None = None) -> dict[str, Parameter]:
        factory = self.get(name, where=where)
        if not isinstance(factory, _Adapted):
            return {"align_corners": _ALIGN_CORNERS, **parameters(factory), **_SECTION_KEYS}
        return {**parameters(factory.factory), "align_corners": _ALIGN_CORNERS, **_SECTION_KEYS}

    def build(
        self,
        spec: str | Mapping[str, Any],
        *,
        where: str | None = None,
        load: bool = True,
        **provided: Any,
    ) -> Segmentor:
        """Build the model that `spec` describes, load its weights and add its adapter.

        Args:
            spec: A name, or a mapping with the key ``name`` and parameters.
            where: The path of `spec` in the config, for error messages.
            load: Whether to load ``weights``; false if a checkpoint is loaded afterwards.
            **provided: Arguments that `spec` may not set.

        Raises:
            ConfigError: As in :meth:`Registry.build`.
            CheckpointError: If the weights cannot be read or do not fit the model.
            ResourceError: If the weights have to be downloaded and cannot be.
        """
        where = where or self.kind
        name, params = self.check(spec, provided=provided, where=where)
        given = {key: params.pop(key, rule.default) for key, rule in _SECTION_KEYS.items()}
        adapted = given.pop("adapter")
        adapter = None if adapted is None else ADAPTERS.build(adapted, where=f"{where}.adapter")
        weights = open_weights(**given, where=where) if load else None
        if weights is not None:
            known = weights.align_corners(params.get("align_corners"))
            if known is not None:
                params["align_corners"] = known
        model = super().build({"name": name, **params}, where=where, **provided)
        model.registered_name = name
        if weights is not None:
            model.load_report = weights.load_into(model)
        if adapter is not None:
            add_adapter(model, adapter, f"{where}.adapter")
        return model


def _check_signature(name: str, known: Mapping[str, Parameter]) -> None:
    if "num_classes" not in known:
        accepted = ", ".join(known) or "nothing"
        raise ConfigError(f"model {name!r} must accept num_classes, but it accepts {accepted}")
    for key in _SECTION_KEYS:
        if key in known:
            purpose = "loading weights" if key in WEIGHT_KEYS else "adapters"
            raise ConfigError(
                f"model {name!r} has a parameter {key!r}, but model.{key} is reserved for"
                f" {purpose}; choose another name"
            )


class _Adapted:
    """Wrapper that makes a factory of modules a factory of segmentors."""

    def __init__(self, factory: Callable[..., nn.Module]) -> None:
        self.factory = factory

    def __call__(self, **params: Any) -> Segmentor:
        known = parameters(self.factory)
        chosen = params.pop("align_corners", None)
        # Null means that the user has not chosen: the default of the factory applies.
        if chosen is not None and "align_corners" in known:
            params["align_corners"] = chosen
        module = self.factory(**params)
        if isinstance(module, Segmentor):
            if chosen not in (None, module.align_corners):
                raise ConfigError(f"align_corners is always {module.align_corners} in this model")
            return module
        if not isinstance(module, nn.Module):
            raise ConfigError(f"the factory must return a module, got {type(module).__name__}")
        defaults = {key: rule.default for key, rule in known.items() if not rule.required}
        given = {"align_corners": chosen, **defaults, **params}
        keys = ("num_classes", "align_corners", "in_channels")
        return ModuleSegmentor(module, **{key: given[key] for key in keys if key in given})


MODELS = ModelRegistry()
