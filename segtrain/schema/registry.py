"""Registries: named factories whose signatures are the schema of their parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

from segtrain.errors import ConfigError, SegtrainError, describe_error
from segtrain.schema.plugins import load_entry_points
from segtrain.schema.values import Parameter, check_parameters, did_you_mean, parameters

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """The parts of one kind that a config chooses by name: models, losses, datasets, ...

    Args:
        kind: The kind of the entries, in the singular, for error messages (``unknown loss
            'dicee'``).

    Example:
        >>> colours = Registry[str]("colour")
        >>> @colours.register("grey")
        ... def grey(*, level: float = 0.5) -> str:
        ...     return f"grey {level}"
        >>> colours.build({"name": "grey", "level": 1})
        'grey 1.0'
        >>> colours.build("gray")
        Traceback (most recent call last):
        segtrain.errors.ConfigError: unknown colour 'gray'; did you mean 'grey'? Known: grey
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Callable[..., T]] = {}
        self._explained: dict[str, str] = {}

    def register(self, name: str) -> Callable[[F], F]:
        """Return a decorator that stores a factory (a class or a function) under `name`.

        Raises:
            ConfigError: When `name` is taken, since the second part would silently replace the
                first.
        """

        def decorate(factory: F) -> F:
            if name in self._factories:
                raise ConfigError(
                    f"{self.kind} {name!r} is registered already; choose another name"
                )
            self._factories[name] = factory
            return factory

        return decorate

    def explain(self, name: str, message: str) -> None:
        """Set the error message for a `name` that users expect here but that is not an entry.

        Such a name is not listed, and it can still be registered.
        """
        self._explained[name] = message

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._factories)

    def why_not(self, name: Any, known: Iterable[str] | None = None) -> str:
        """The error message for a `name` that is not registered.

        Args:
            name: The requested name.
            known: The allowed names; by default the registered ones.
        """
        suggestion = did_you_mean(str(name), self._factories if known is None else known)
        return self._explained.get(str(name), f"unknown {self.kind} {name!r}{suggestion}")

    def get(self, name: str, *, where: str | None = None) -> Callable[..., T]:
        """The factory registered as `name`.

        Args:
            name: A registered name.
            where: The dotted path in the config that holds `name`, for the error message.

        Raises:
            ConfigError: When the name is unknown; the message has the closest name, or the text
                given to :meth:`explain`.
        """
        if isinstance(name, str) and name not in self._factories:
            load_entry_points()  # a name that an installed package registers
        if not isinstance(name, str) or name not in self._factories:
            place = "" if where in (None, self.kind) else f"{where}: "
            raise ConfigError(f"{place}{self.why_not(name)}")
        return self._factories[name]

    def schema(self, name: str, *, where: str | None = None) -> dict[str, Parameter]:
        """The parameters of the factory registered as `name`, from its signature."""
        return parameters(self.get(name, where=where))

    def named(self, spec: Any, *, where: str | None = None) -> dict[str, Any]:
        """Convert `spec` to a mapping with a ``name``, which may be unknown.

        Raises:
            ConfigError: When `spec` is neither a text nor a mapping, or has no name.
        """
        where = where or self.kind
        if isinstance(spec, str):
            return {"name": spec}
        if not isinstance(spec, Mapping):
            raise ConfigError(
                f"{where} must be the name of a {self.kind} or a mapping with a name, got {spec!r}"
            )
        if "name" not in spec:
            raise ConfigError(f"{where}.name is missing{did_you_mean('', self._factories)}")
        return {str(key): value for key, value in spec.items()}

    def check(
        self,
        spec: str | Mapping[str, Any],
        *,
        provided: Collection[str] = (),
        where: str | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Check `spec` without building it; return its name and its parameters.

        Args:
            spec: A name, or a mapping with the key ``name`` and parameters, as in YAML.
            provided: Parameters that the caller sets itself; `spec` may not set them.
            where: The dotted path of `spec` in the config, for error messages; by default the
                registry's kind.

        Raises:
            ConfigError: When the name is unknown, or a parameter is unknown, missing or has the
                wrong type.
        """
        where = where or self.kind
        given = self.named(spec, where=where)
        name = given.pop("name")
        schema = self.schema(name, where=where)
        for key in provided:
            if key in given and key in schema:
                raise ConfigError(
                    f"{where}.{key} is not set here: it follows from the rest of the configuration"
                )
            schema.pop(key, None)
        return name, check_parameters(given, schema, where=where, owner=f"{self.kind} {name!r}")

    def build(
        self, spec: str | Mapping[str, Any], *, where: str | None = None, **provided: Any
    ) -> T:
        """Build the object that `spec` describes.

        Args:
            spec: As in :meth:`check`.
            where: As in :meth:`check`.
            **provided: Arguments that `spec` may not set.

        Raises:
            ConfigError: As in :meth:`check`, or when the part refuses a value.
        """
        where = where or self.kind
        name, params = self.check(spec, provided=provided, where=where)
        try:
            return self.get(name)(**params, **provided)
        except ConfigError as error:
            own = set(self.schema(name)) - set(provided)
            raise ConfigError(self._placed(str(error), where, own)) from error
        except SegtrainError:
            raise
        except Exception as error:  # a value that only the part itself can check
            reason = describe_error(error)
            raise ConfigError(f"{where}: {self.kind} {name!r} cannot be built: {reason}") from error

    def _placed(self, message: str, where: str, own: Collection[str]) -> str:
        """Put the full key before a part's own message, which may start with a parameter."""
        if message.startswith(f"{self.kind}."):  # the message starts with the section already
            return f"{where}.{message.removeprefix(f'{self.kind}.')}"
        first = re.match(r"\w*", message)
        if first is not None and first[0] in own:
            return f"{where}.{message}"
        says_where = re.search(rf"(^|\s){re.escape(where)}[.:=\s]", message)
        return message if says_where else f"{where}: {message}"
