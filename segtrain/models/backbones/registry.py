"""The registry of backbones, including the families of other libraries."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from segtrain.errors import ConfigError
from segtrain.models.backbones.base import Backbone
from segtrain.schema.registry import Registry

_FEW = 30  # names that an error message can list


@dataclass(frozen=True)
class Family:
    """The backbones of one library, named ``<family>/<architecture>``.

    Attributes:
        build: Function of `architecture` and the keyword arguments of a backbone.
        names: Function that returns all architectures. It imports the library, so it is called only
            when needed.
    """

    build: Callable[..., Backbone]
    names: Callable[[], list[str]]


class BackboneRegistry(Registry[Backbone]):
    """A registry in which the part of a name before a slash selects a library."""

    def __init__(self) -> None:
        super().__init__("backbone")
        self._families: dict[str, Family] = {}

    def register_family(self, name: str, family: Family) -> None:
        """Register every ``name/<architecture>``."""
        self._families[name] = family

    def why_not(self, name: Any, known: Any = None) -> str:
        listed = [*self.names(), *(f"{family}/<name>" for family in self._families)]
        family, slash, architecture = str(name).partition("/")
        close = difflib.get_close_matches(family, self._families, n=1) if slash else []
        if close:
            return f"unknown backbone {name!r}; did you mean '{close[0]}/{architecture}'?"
        return super().why_not(name, listed if known is None else known)

    def get(self, name: str, *, where: str | None = None) -> Callable[..., Backbone]:
        family, slash, architecture = str(name).partition("/")
        if not slash or family not in self._families:
            return super().get(name, where=where)
        return partial(self._families[family].build, architecture=architecture)


def check_architecture(family: str, architecture: str, names: list[str]) -> None:
    """Check that a library has an architecture.

    Raises:
        ConfigError: If `names` does not contain `architecture`, with the closest name.
    """
    if architecture not in names:
        close = difflib.get_close_matches(architecture, names, n=1)
        hint = f"; did you mean {family}/{close[0]}?" if close else ""
        if not close and len(names) <= _FEW:
            hint = f"; it has {', '.join(names)}"
        raise ConfigError(f"{family} has no backbone {architecture!r}{hint}")


BACKBONES = BackboneRegistry()
