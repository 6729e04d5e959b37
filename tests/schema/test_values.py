from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from segtrain.errors import ConfigError
from segtrain.schema.values import build_dataclass, check_value, describe, did_you_mean, parameters

INF = float("inf")


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (3, float, 3.0),
        ("inf", float, INF),
        ("-Inf", float, -INF),
        (3, int, 3),
        (True, bool, True),
        ("a", str, "a"),
        ("a/b", Path, Path("a/b")),
        (Path("a"), Path, Path("a")),
        (None, None, None),
        (None, float | None, None),
        (3, float | None, 3.0),
        (3, int | float, 3),
        (3, float | int, 3),
        (3.0, int | float, 3.0),
        ("auto", int | Literal["auto"] | None, "auto"),
        (4, int | Literal["auto"] | None, 4),
        ("b", Literal["a", "b"], "b"),
        ((1, 2), list[int], [1, 2]),
        ([1, 2], list[float], [1.0, 2.0]),
        ([1, "x"], list, [1, "x"]),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
        ([1], tuple, (1,)),
        ([1, 2], Sequence[float] | None, [1.0, 2.0]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"0": 1, 255: 2}, dict[int, int], {0: 1, 255: 2}),
        ({"a": {"b": None}}, Mapping[str, Mapping[str, Any] | None], {"a": {"b": None}}),
        ({"a": [1]}, Mapping, {"a": [1]}),
        ("ohem", str | Mapping[str, object] | None, "ohem"),
        ({"name": "ohem"}, str | Mapping[str, object] | None, {"name": "ohem"}),
        ([[0, 1], [2, 3]], list[tuple[int, int]], [(0, 1), (2, 3)]),
        (object, Any, object),
    ],
)
def test_what_fits(value: Any, annotation: Any, expected: Any) -> None:
    found = check_value(value, annotation, "key")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("value", "annotation", "words"),
    [
        ("3", float, "a number, got '3'"),
        (True, float, "a number, got True"),
        (float("nan"), float, "a number, got nan"),
        (3.0, int, "a whole number, got 3.0"),
        (True, int, "a whole number, got True"),
        (1, bool, "true or false, got 1"),
        ("true", bool, "true or false, got 'true'"),
        (3, str, "a text, got 3"),
        (3, Path, "a path, got 3"),
        (0, None, "null, got 0"),
        ("c", Literal["a", "b"], "'a' or 'b', got 'c'"),
        ("some", int | Literal["auto"] | None, "a whole number or 'auto' or null, got 'some'"),
        ("12", list[int], r"a list of \(a whole number\), got '12'"),
        ([1, "x"], list[int], r"a list of \(a whole number\), got \[1, 'x'\]"),
        ([1.0], tuple[int, int], r"a list of \(a whole number\), \(a whole number\), got \[1.0\]"),
        ([1, 2, 3], tuple[int, int], r"a list of \(a whole number\), \(a whole number\), got"),
        (3, tuple, "a list, got 3"),
        ([1], dict[str, int], r"a mapping of names to \(a whole number\), got \[1\]"),
        (
            {"x": 1},
            dict[int, int],
            r"a mapping of .* to .*, got {'x': 1}",
        ),
        (
            {"a": "x"},
            dict[str, float] | None,
            r"a mapping of .* or null, got {'a': 'x'}",
        ),
        (3, complex, "complex, got 3"),
    ],
)
def test_what_does_not_fit(value: Any, annotation: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^a.key must be {words}"):
        check_value(value, annotation, "a.key")


def test_describe_says_a_thing_once() -> None:
    assert describe(list[int] | tuple[int, ...]) == "a list of (a whole number)"
    assert describe(Any) == "anything"


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("dicee", ["focal", "dice"], "; did you mean 'dice'? Known: dice, focal"),
        ("DICE", ["Dice"], "; did you mean 'Dice'? Known: Dice"),
        ("zebra", ["dice"], ". Known: dice"),
        ("zebra", [], ". Known: none"),
    ],
)
def test_did_you_mean(word: str, known: list[str], expected: str) -> None:
    assert did_you_mean(word, known) == expected


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (dict, "a mapping"),
        (Mapping[str, Mapping[str, Any] | None], "a mapping by name"),
        (dict[str, str | dict[str, Any]], "a mapping by name"),
        (dict[str, Any], "a mapping by name"),
        (
            dict[str, float | Literal["learned"]] | Literal["learned"] | None,
            "a mapping of names to (a number or 'learned') or 'learned' or null",
        ),
        (dict[int, int], "a mapping of (a whole number) to (a whole number)"),
    ],
)
def test_describe_a_mapping(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


def test_parameters_of_a_function() -> None:
    def function(first: int, *rest: int, second: str = "x", **others: int) -> None: ...

    found = parameters(function)
    assert list(found) == ["first", "second"]
    assert found["first"].required
    assert not found["second"].required
    assert (found["second"].annotation, found["second"].default) == (str, "x")


def test_parameters_of_a_partial_are_those_it_leaves_open() -> None:
    class Base:
        def __init__(self, *, size: int = 1, **common: int) -> None: ...

    class Derived(Base):
        def __init__(self, *, variant: str, **common: int) -> None: ...

    assert list(parameters(Derived)) == ["variant", "size"]
    assert list(parameters(partial(Derived, variant="x"))) == ["size"]


def test_an_annotation_for_type_checkers_only_is_not_checked() -> None:
    def function(first: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert parameters(function)["first"].annotation is Any


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"size must be above 0, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    rate: float
    inner: Inner = Inner()
    perhaps: Inner | None = None
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError("rate must not be negative")


def test_nested_dataclasses() -> None:
    built = build_dataclass(Outer, {"rate": 1, "inner": {"size": 2}, "names": ("a",)})
    assert built == Outer(rate=1.0, inner=Inner(size=2), names=["a"])


def test_a_dataclass_or_null() -> None:
    assert build_dataclass(Outer, {"rate": 1, "perhaps": {"size": 2}}).perhaps == Inner(size=2)
    assert build_dataclass(Outer, {"rate": 1, "perhaps": None}).perhaps is None


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"rat": 1},
            "^unknown key rat; did you mean 'rate'[?] Known: inner, names, perhaps, rate$",
        ),
        ({"rate": 1, "inner": {"siz": 2}}, "^unknown key inner.siz; did you mean 'size'"),
        ({"rate": 1, "perhaps": {"siz": 2}}, "^unknown key perhaps.siz; did you mean 'size'"),
        ({}, "^rate needs a value, and none was given$"),
        ({"rate": "x"}, "^rate must be a number, got 'x'$"),
        ({"rate": 1, "inner": {"size": "x"}}, "^inner.size must be a whole number, got 'x'$"),
        ({"rate": 1, "inner": {"size": 0}}, "^inner.size must be above 0, got 0$"),
        ({"rate": 1, "perhaps": {"size": 0}}, "^perhaps.size must be above 0, got 0$"),
        ({"rate": -1}, "^rate must not be negative$"),
        ({"rate": 1, "inner": 3}, "^inner must be a mapping of keys, got 3$"),
        ({"rate": 1, "inner": None}, "^inner must be a mapping of keys, got None$"),
        ({"rate": 1, "perhaps": 3}, "^perhaps must be Inner or null, got 3$"),
        ([1], r"^the config must be a mapping of keys, got \[1\]$"),
    ],
)
def test_wrong_configs(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_dataclass(Outer, given)
