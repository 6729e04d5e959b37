"""Functions whose parameters are stated by a schema instead of their code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from segtrain.schema.values import Parameter


def set_signature(function: Callable[..., Any], schema: Mapping[str, Parameter]) -> None:
    """Give `function` the signature from which a registry reads `schema` again.

    Example:
        >>> from segtrain.schema.values import parameters
        >>> def build(**given): ...
        >>> set_signature(build, {"gamma": Parameter("gamma", float, 2.0)})
        >>> parameters(build)["gamma"].default
        2.0
    """
    function.__annotations__ = {item.name: item.annotation for item in schema.values()}
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if item.required else item.default,
            )
            for item in schema.values()
        ]
    )
