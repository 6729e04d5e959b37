"""A closed set of named factories whose signatures are their schema."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from segtrain.errors import ConfigError, SegtrainError
from segtrain.schema import Parameter, check_parameters, did_you_mean, parameters

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Names for the parts that a config chooses: models, losses, datasets, optimizers, ...

    Args:
        kind: What the entries are, in the singular; it starts the messages (``unknown loss
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

    def register(self, name: str) -> Callable[[F], F]:
        """A decorator that stores a factory (a class or a function) under `name`.

        Raises:
            ConfigError: When `name` is taken: a second part of the same name would silently replace
                the first.
        """

        def decorate(factory: F) -> F:
            if name in self._factories:
                raise ConfigError(
                    f"{self.kind} {name!r} is registered already; choose another name"
                )
            self._factories[name] = factory
            return factory

        return decorate

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._factories)

    def get(self, name: str) -> Callable[..., T]:
        """The factory called `name`.

        Raises:
            ConfigError: When there is none, with the closest name.
        """
        if not isinstance(name, str) or name not in self._factories:
            raise ConfigError(
                f"unknown {self.kind} {name!r}{did_you_mean(str(name), self._factories)}"
            )
        return self._factories[name]

    def schema(self, name: str) -> dict[str, Parameter]:
        """The parameters of the factory called `name`, from its signature."""
        return parameters(self.get(name))

    def check(
        self,
        spec: str | Mapping[str, Any],
        *,
        provided: Collection[str] = (),
        where: str | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Name and checked parameters of `spec`; nothing is built.

        Args:
            spec: A name, or a mapping with the key ``name`` and parameters beside it, as it stands
                in YAML.
            provided: Parameters that the caller sets itself; in `spec` they are refused.
            where: The path of `spec` in the config, for messages; the registry's kind by default.

        Raises:
            ConfigError: On an unknown name, or an unknown, missing or wrongly typed parameter.
        """
        where = where or self.kind
        if isinstance(spec, str):
            spec = {"name": spec}
        if not isinstance(spec, Mapping):
            raise ConfigError(
                f"{where} must be the name of a {self.kind} or a mapping with a name, got {spec!r}"
            )
        if "name" not in spec:
            raise ConfigError(f"{where}.name is missing{did_you_mean('', self._factories)}")
        name = spec["name"]
        schema = self.schema(name)
        given = {str(key): value for key, value in spec.items() if key != "name"}
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
        """The object that `spec` describes; `provided` are arguments that the spec may not set.

        Raises:
            ConfigError: As :meth:`check`, before anything is built.
        """
        name, params = self.check(spec, provided=provided, where=where)
        try:
            return self.get(name)(**params, **provided)
        except SegtrainError:
            raise
        except Exception as error:  # a value that only the part itself can judge
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ConfigError(
                f"{where or self.kind}: {self.kind} {name!r} cannot be built: {reason}"
            ) from error
