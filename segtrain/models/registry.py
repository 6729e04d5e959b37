"""The closed set of models that a config chooses from by name, and the weights they start from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from segtrain.errors import ConfigError
from segtrain.models.segmentor import ModuleSegmentor, Segmentor
from segtrain.models.weights import open_weights
from segtrain.schema.registry import F, Registry
from segtrain.schema.values import Parameter, parameters

# What every model's section takes beside the parameters of the model itself.
WEIGHT_KEYS = {
    "weights": Parameter("weights", str | None, None),
    "reinit": Parameter("reinit", list[str], []),
    "abn": Parameter("abn", bool | None, None),
}
_ALIGN_CORNERS = Parameter("align_corners", bool | None, None)


class ModelRegistry(Registry[Segmentor]):
    """A registry whose models may start from weights.

    Registered is a :class:`Segmentor`, or a function or class that makes a module whose forward
    gives logits or a dict of them. It takes ``num_classes``; what else it takes are the keys of its
    section, ``in_channels`` and ``align_corners`` among them where it knows them. Without the
    latter, ``align_corners`` is about the outputs alone.

    Raises:
        ConfigError: On registration, when the name is taken, or when such a function or class does
            not take ``num_classes``, or takes what every section has: ``weights``, ``reinit`` or
            ``abn``.

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
            return {"align_corners": _ALIGN_CORNERS, **parameters(factory), **WEIGHT_KEYS}
        return {**parameters(factory.factory), "align_corners": _ALIGN_CORNERS, **WEIGHT_KEYS}

    def build(
        self,
        spec: str | Mapping[str, Any],
        *,
        where: str | None = None,
        load: bool = True,
        **provided: Any,
    ) -> Segmentor:
        """The model that `spec` describes, with the weights that it names.

        Args:
            spec: A name, or a mapping with a name and parameters.
            where: The path of `spec` in the config, for messages.
            load: False leaves ``weights`` alone: a checkpoint follows.
            **provided: Arguments that `spec` may not set.

        Raises:
            ConfigError: As :meth:`Registry.build`.
            CheckpointError: When the weights cannot be read or do not fit.
            ResourceError: When weights by name are neither here nor to be had.
        """
        where = where or self.kind
        name, params = self.check(spec, provided=provided, where=where)
        given = {key: params.pop(key, rule.default) for key, rule in WEIGHT_KEYS.items()}
        weights = open_weights(**given, where=where) if load else None
        if weights is not None:
            known = weights.align_corners(params.get("align_corners"))
            if known is not None:
                params["align_corners"] = known
        model = super().build({"name": name, **params}, where=where, **provided)
        model.registered_name = name
        if weights is not None:
            model.load_report = weights.load_into(model)
        return model


def _check_signature(name: str, known: Mapping[str, Parameter]) -> None:
    if "num_classes" not in known:
        takes = ", ".join(known) or "nothing"
        raise ConfigError(f"model {name!r} must take num_classes, and takes {takes}")
    for key in WEIGHT_KEYS:
        if key in known:
            raise ConfigError(
                f"model {name!r} takes {key!r}, which model.{key} would never reach: every model"
                " has that key for the weights it starts from; choose another name"
            )


class _Adapted:
    """A factory of modules as a factory of segmentors."""

    def __init__(self, factory: Callable[..., nn.Module]) -> None:
        self.factory = factory

    def __call__(self, **params: Any) -> Segmentor:
        known = parameters(self.factory)
        chosen = params.pop("align_corners", None)
        # Null means that nobody has chosen, so the factory's own default holds.
        if chosen is not None and "align_corners" in known:
            params["align_corners"] = chosen
        module = self.factory(**params)
        if isinstance(module, Segmentor):
            if chosen not in (None, module.align_corners):
                raise ConfigError(f"align_corners is {module.align_corners} in this model")
            return module
        if not isinstance(module, nn.Module):
            raise ConfigError(f"it must return a module, got {type(module).__name__}")
        defaults = {key: rule.default for key, rule in known.items() if not rule.required}
        given = {"align_corners": chosen, **defaults, **params}
        keys = ("num_classes", "align_corners", "in_channels")
        return ModuleSegmentor(module, **{key: given[key] for key in keys if key in given})


MODELS = ModelRegistry()
