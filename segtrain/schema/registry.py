"""A closed set of named factories whose signatures are their schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

from segtrain.errors import ConfigError, SegtrainError
from segtrain.schema.values import Parameter, check_parameters, did_you_mean, parameters

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
        self._explained: dict[str, str] = {}

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

    def explain(self, name: str, sentence: str) -> None:
        """Answer with `sentence` who asks for `name`, which stands for something of another kind.

        Such a name is not listed, and whoever registers it takes it over.
        """
        self._explained[name] = sentence

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._factories)

    def why_not(self, name: Any, known: Iterable[str] | None = None) -> str:
        """Why there is no `name`, in one sentence.

        Args:
            name: What was asked for.
            known: What could have been; the registered names by default.
        """
        suggestion = did_you_mean(str(name), self._factories if known is None else known)
        return self._explained.get(str(name), f"unknown {self.kind} {name!r}{suggestion}")

    def get(self, name: str, *, where: str | None = None) -> Callable[..., T]:
        """The factory called `name`.

        Args:
            name: As registered.
            where: The path in the config at which it was asked for, for the message.

        Raises:
            ConfigError: When there is none, with the closest name, or with what :meth:`explain`
                was told of it.
        """
        if not isinstance(name, str) or name not in self._factories:
            place = "" if where in (None, self.kind) else f"{where}: "
            raise ConfigError(f"{place}{self.why_not(name)}")
        return self._factories[name]

    def schema(self, name: str, *, where: str | None = None) -> dict[str, Parameter]:
        """The parameters of the factory called `name`, from its signature."""
        return parameters(self.get(name, where=where))

    def named(self, spec: Any, *, where: str | None = None) -> dict[str, Any]:
        """`spec` as a mapping that has a ``name``, known or not.

        Raises:
            ConfigError: When it is neither a text nor a mapping, or names nothing.
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
        """The object that `spec` describes; `provided` are arguments that the spec may not set.

        Raises:
            ConfigError: As :meth:`check`, before anything is built.
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
        except Exception as error:  # a value that only the part itself can judge
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ConfigError(f"{where}: {self.kind} {name!r} cannot be built: {reason}") from error

    def _placed(self, message: str, where: str, own: Collection[str]) -> str:
        """A part's own sentence, which may start with one of its parameters, with its full key."""
        if message.startswith(f"{self.kind}."):  # a part that names the section it is written in
            return f"{where}.{message.removeprefix(f'{self.kind}.')}"
        first = re.match(r"\w*", message)
        if first is not None and first[0] in own:
            return f"{where}.{message}"
        says_where = re.search(rf"(^|\s){re.escape(where)}[.:=\s]", message)
        return message if says_where else f"{where}: {message}"
