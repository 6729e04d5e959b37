"""Check plain values against type annotations, with an error message that says what is allowed.

The constructor's signature is the schema of every registered part (see
:mod:`segtrain.schema.registry`), and the fields of the dataclasses in
:mod:`segtrain.schema.sections` are the schema of everything else. Both are checked here, with the
same words.
"""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from segtrain.errors import ConfigError
from segtrain.schema.ranges import ranges_of

_D = TypeVar("_D")
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Parameter:
    """One keyword parameter: its name, its annotation and its default (`MISSING` when required)."""

    name: str
    annotation: Any
    default: Any = MISSING

    @property
    def required(self) -> bool:
        return self.default is MISSING


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" message: the closest match and the known names.

    Example:
        >>> did_you_mean("dicee", ["dice", "focal"])
        "; did you mean 'dice'? Known: dice, focal"
        >>> did_you_mean("zebra", ["dice", "focal"])
        '. Known: dice, focal'
    """
    names = sorted(known)
    close = difflib.get_close_matches(
        word.lower(), [name.lower() for name in names], n=1, cutoff=0.5
    )
    listing = ", ".join(names) if names else "none"
    if not close:
        return f". Known: {listing}"
    match = next(name for name in names if name.lower() == close[0])
    return f"; did you mean {match!r}? Known: {listing}"


def parameters(factory: Callable[..., Any]) -> dict[str, Parameter]:
    """The keyword parameters of `factory`; ``**common`` stands for those of the base classes.

    The parameters that a :func:`functools.partial` sets are left out.
    """
    if isinstance(factory, partial):
        known = parameters(factory.func)
        return {name: rule for name, rule in known.items() if name not in factory.keywords}
    found: dict[str, Parameter] = {}
    for function in _signature_chain(factory):
        signature = inspect.signature(function)
        hints = _hints(function)
        for name, parameter in signature.parameters.items():
            if name == "self" or parameter.kind in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                continue
            default = MISSING if parameter.default is parameter.empty else parameter.default
            found.setdefault(name, Parameter(name, hints.get(name, Any), default))
    return found


def forwards_to(*targets: type) -> Callable[[_F], _F]:
    """Declare that a constructor passes its ``**`` arguments on to `targets`.

    :func:`parameters` then lists the parameters of `targets` instead of those of its base classes.

    Example:
        >>> class Lens:
        ...     def __init__(self, focus: float = 1.0): ...
        >>> class Camera:
        ...     @forwards_to(Lens)
        ...     def __init__(self, *, name: str, **lens): ...
        >>> list(parameters(Camera))
        ['name', 'focus']
    """

    def mark(initializer: _F) -> _F:
        initializer.forwards_to = targets  # type: ignore[attr-defined]
        return initializer

    return mark


def _signature_chain(factory: Callable[..., Any]) -> list[Callable[..., Any]]:
    if not inspect.isclass(factory):
        return [factory]
    chain: list[Callable[..., Any]] = []
    for cls in factory.__mro__:
        initializer = cls.__dict__.get("__init__")
        if initializer is None or cls is object:
            continue
        chain.append(initializer)
        targets = getattr(initializer, "forwards_to", ())
        if targets:
            return chain + [init for target in targets for init in _signature_chain(target)]
        kinds = [parameter.kind for parameter in inspect.signature(initializer).parameters.values()]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return chain


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    # Many modules import names of these two for type checkers only.
    known = {**vars(typing), **vars(collections.abc)}
    try:
        return typing.get_type_hints(function, localns=known, include_extras=True)
    except (NameError, TypeError):
        return {}


def check_parameters(
    given: Mapping[str, Any], allowed: Mapping[str, Parameter], *, where: str, owner: str
) -> dict[str, Any]:
    """Check the parameters `given` for a part against the `allowed` ones, and convert the values.

    Args:
        given: Parameters by name.
        allowed: The schema, as returned by :func:`parameters`.
        where: The dotted path of `given` in the config, for error messages.
        owner: The part that the parameters belong to, for error messages, such as
            ``loss 'focal'``.

    Raises:
        ConfigError: When a key is unknown or missing, or a value has the wrong type.
    """
    for key in given:
        if key not in allowed:
            raise ConfigError(
                f"{where}.{key}: {owner} has no parameter {key!r}{did_you_mean(str(key), allowed)}"
            )
    checked = {}
    for key, value in given.items():
        checked[key] = check_value(value, allowed[key].annotation, f"{where}.{key}")
        for note in ranges_of(allowed[key].annotation):
            note.check(f"{where}.{key}", checked[key])
    missing = [
        name for name, parameter in allowed.items() if parameter.required and name not in given
    ]
    if missing:
        raise ConfigError(
            f"{where}.{missing[0]}: {owner} needs a value for {missing[0]!r}, and none was given"
        )
    return checked


def build_dataclass(cls: type[_D], given: Any, where: str = "") -> _D:
    """Build the dataclass `cls` from a nested mapping after checking every key and value.

    Raises:
        ConfigError: When a key is unknown (the message has the closest one) or missing, or a value
            has the wrong type.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where or 'the config'} must be a mapping of keys, got {given!r}")
    hints = typing.get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"unknown key {prefix}{key}{did_you_mean(str(key), known)}")
        nested = _nested_dataclass(hints[key])
        if nested is not None and (nested is hints[key] or isinstance(value, Mapping)):
            values[key] = build_dataclass(nested, value, f"{prefix}{key}")
        else:
            values[key] = check_value(value, hints[key], f"{prefix}{key}")
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{prefix}{name} needs a value, and none was given")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def _nested_dataclass(annotation: Any) -> Any:
    """The dataclass in `annotation`, which may also allow null; None if there is none."""
    options = (annotation, *typing.get_args(annotation))
    return next((option for option in options if is_dataclass(option)), None)


def check_value(value: Any, annotation: Any, where: str) -> Any:
    """Check a value, and convert it where nothing is lost: an int to a float, a list to a tuple.

    Raises:
        ConfigError: When `annotation` does not allow `value`.

    Example:
        >>> check_value(3, float, "loss.gamma")
        3.0
        >>> check_value("abc", float, "loss.gamma")
        Traceback (most recent call last):
        segtrain.errors.ConfigError: loss.gamma must be a number, got 'abc'
        >>> check_value("dot", list[str], "classes")
        Traceback (most recent call last):
        segtrain.errors.ConfigError: classes must be a list of (a text), got 'dot'; write [dot]
    """
    for given in (value, value.tolist()) if hasattr(value, "tolist") else (value,):
        try:  # a tensor or an array is also given as a list
            return _convert(given, annotation)
        except _MismatchError:
            pass
    message = f"{where} must be {describe(annotation)}, got {value!r}"
    if isinstance(value, str) and _is_allowed([value], annotation):  # brackets were forgotten
        message += f"; write [{value}]"
    raise ConfigError(message)


def _is_allowed(value: Any, annotation: Any) -> bool:
    try:
        _convert(value, annotation)
    except _MismatchError:
        return False
    return True


class _MismatchError(Exception):
    """A value does not fit its annotation; the caller adds the key to the message."""


def _convert(value: Any, annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:  # the ranges are checked by the caller, who knows the key
        return _convert(value, arguments[0])
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is Literal:
        return _require(value in arguments, value)
    if annotation in (None, type(None)):
        return _require(value is None, value)
    if isinstance(annotation, type) and annotation in _SCALARS:
        return _SCALARS[annotation](value)
    container = origin or annotation
    if inspect.isclass(container) and issubclass(
        container, (tuple, list, collections.abc.Sequence)
    ):
        return _convert_sequence(value, container, arguments)
    if inspect.isclass(container) and issubclass(container, collections.abc.Mapping):
        return _convert_mapping(value, arguments)
    if inspect.isclass(container):
        return _require(isinstance(value, container), value)
    return value


def _require(fits: bool, value: Any) -> Any:
    if not fits:
        raise _MismatchError
    return value


def _convert_float(value: Any) -> float:
    if isinstance(value, str) and value.lower() in ("inf", "-inf"):
        return float(value)
    _require(isinstance(value, (int, float)) and not isinstance(value, bool), value)
    _require(not math.isnan(value), value)
    return float(value)


_SCALARS: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: _require(isinstance(value, bool), value),
    int: lambda value: _require(isinstance(value, int) and not isinstance(value, bool), value),
    float: _convert_float,
    str: lambda value: _require(isinstance(value, str), value),
    Path: lambda value: Path(_require(isinstance(value, (str, Path)), value)),
}


def _convert_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    for argument in arguments:
        # 3 stays an int where int | float is allowed.
        if isinstance(argument, type) and type(value) is argument:
            return value
    for argument in arguments:
        try:
            return _convert(value, argument)
        except _MismatchError:
            continue
    raise _MismatchError


def _convert_sequence(value: Any, container: type, arguments: tuple[Any, ...]) -> Any:
    _require(isinstance(value, (list, tuple)), value)
    if issubclass(container, tuple) and arguments and arguments[-1] is not Ellipsis:
        _require(len(value) == len(arguments), value)
        return tuple(
            _convert(item, argument) for item, argument in zip(value, arguments, strict=True)
        )
    item_type = arguments[0] if arguments else Any
    items = [_convert(item, item_type) for item in value]
    return tuple(items) if issubclass(container, tuple) else items


def _convert_mapping(value: Any, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    _require(isinstance(value, Mapping), value)
    key_type, value_type = arguments or (Any, Any)
    return {_convert_key(key, key_type): _convert(item, value_type) for key, item in value.items()}


def _convert_key(key: Any, key_type: Any) -> Any:
    # The keys of a mapping on the command line arrive as text.
    if key_type is int and isinstance(key, str):
        try:
            return int(key)
        except ValueError:
            raise _MismatchError from None
    return _convert(key, key_type)


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    None: "null",
    type(None): "null",
    Any: "anything",
}


def describe(annotation: Any) -> str:
    """Describe an annotation in words.

    Example:
        >>> describe(float | None), describe(Literal["a", "b"]), describe(list[int])
        ('a number or null', "'a' or 'b'", 'a list of (a whole number)')
        >>> describe(dict[str, float]), describe(dict[str, dict[str, Any]])
        ('a mapping of names to (a number)', 'a mapping by name')
    """
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return describe(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(argument) for argument in arguments))
    if origin is Literal:
        return " or ".join(repr(argument) for argument in arguments)
    container = origin or annotation
    if inspect.isclass(container) and issubclass(container, collections.abc.Mapping):
        return f"a mapping{_described_items(arguments)}"
    if inspect.isclass(container) and issubclass(
        container, (tuple, list, collections.abc.Sequence)
    ):
        return _describe_sequence(container, arguments)
    return getattr(annotation, "__name__", str(annotation))


def _described_items(arguments: tuple[Any, ...]) -> str:
    if not arguments:
        return ""
    key, value = arguments
    if key is not str:
        return f" of ({describe(key)}) to ({describe(value)})"
    # A wrong key inside a section gets a message of its own.
    return f" of names to ({describe(value)})" if _is_plain(value) else " by name"


def _is_plain(annotation: Any) -> bool:
    """Whether `annotation` allows only single values such as a number or a text."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return all(_is_plain(argument) for argument in typing.get_args(annotation))
    is_scalar = annotation in _WORDS and annotation is not Any
    return is_scalar or typing.get_origin(annotation) is Literal


def _describe_sequence(container: type, arguments: tuple[Any, ...]) -> str:
    if not arguments:
        return "a list"
    if issubclass(container, tuple) and arguments[-1] is not Ellipsis:
        return "a list of " + ", ".join(f"({describe(argument)})" for argument in arguments)
    return f"a list of ({describe(arguments[0])})"
