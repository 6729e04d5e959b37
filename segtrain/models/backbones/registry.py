"""The backbones that a config chooses from by name, families of other libraries among them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from segtrain.errors import ConfigError
from segtrain.models.backbones.base import Backbone
from segtrain.schema.registry import Registry

_FEW = 30  # names that a sentence can list


@dataclass(frozen=True)
class Family:
    """The backbones of one library, each called ``<family>/<architecture>``.

    Attributes:
        build: Takes `architecture` and the keyword arguments of a backbone.
        names: Every architecture there is; imports the library, so it is called late.
    """

    build: Callable[..., Backbone]
    names: Callable[[], list[str]]


class BackboneRegistry(Registry[Backbone]):
    """A registry in which a name before a slash is a whole library."""

    def __init__(self) -> None:
        super().__init__("backbone")
        self._families: dict[str, Family] = {}

    def register_family(self, name: str, family: Family) -> None:
        """Offer every ``name/<architecture>``."""
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
    """Refuses an architecture that its library does not have.

    Raises:
        ConfigError: With the closest one.
    """
    if architecture not in names:
        close = difflib.get_close_matches(architecture, names, n=1)
        hint = f"; did you mean {family}/{close[0]}?" if close else ""
        if not close and len(names) <= _FEW:
            hint = f"; it has {', '.join(names)}"
        raise ConfigError(f"{family} has no backbone {architecture!r}{hint}")


BACKBONES = BackboneRegistry()
