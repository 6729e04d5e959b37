from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from segtrain.errors import ConfigError
from segtrain.schema.registry import Registry


class Base:
    def __init__(self, *, size: int, name_of_base: str = "b") -> None:
        self.size = size
        self.name_of_base = name_of_base


class Middle(Base):
    """No constructor of its own."""


class Leaf(Middle):
    def __init__(self, *, level: float = 0.5, name_of_base: str = "leaf", **common: Any) -> None:
        super().__init__(name_of_base=name_of_base, **common)
        self.level = level


class Strict(Base):
    def __init__(self, *, level: float = 0.5, says: str = "", **common: Any) -> None:
        super().__init__(**common)
        raise ConfigError(says or f"level must be above 1, got {level}")


class Closed(Base):
    def __init__(self, *, level: float = 0.5) -> None:
        super().__init__(size=1)
        self.level = level


@pytest.fixture
def parts() -> Registry[Base]:
    registry: Registry[Base] = Registry("part")
    registry.register("leaf")(Leaf)
    registry.register("closed")(Closed)
    return registry


def test_names_are_sorted(parts: Registry[Base]) -> None:
    assert parts.names() == ["closed", "leaf"]


def test_register_gives_back_what_it_got(parts: Registry[Base]) -> None:
    assert parts.register("base")(Base) is Base
    assert parts.get("base") is Base


def test_duplicates_are_refused(parts: Registry[Base]) -> None:
    with pytest.raises(ConfigError, match=r"^part 'leaf' is registered already; choose another"):
        parts.register("leaf")(Base)
    assert parts.get("leaf") is Leaf


def test_common_is_followed_to_the_base_classes(parts: Registry[Base]) -> None:
    schema = parts.schema("leaf")
    assert {key: item.annotation for key, item in schema.items()} == {
        "level": float,
        "name_of_base": str,
        "size": int,
    }
    assert schema["name_of_base"].default == "leaf"
    assert [key for key, item in schema.items() if item.required] == ["size"]
    assert list(parts.schema("closed")) == ["level"]


@pytest.mark.parametrize("spec", ["leaf", {"name": "leaf"}])
def test_a_name_or_a_mapping(parts: Registry[Base], spec: str | Mapping[str, Any]) -> None:
    assert parts.check(spec, provided=["size"]) == ("leaf", {})
    part = parts.build(spec, size=3)
    assert isinstance(part, Leaf)
    assert (part.size, part.level, part.name_of_base) == (3, 0.5, "leaf")


def test_parameters_are_converted_and_the_spec_is_kept(parts: Registry[Base]) -> None:
    spec = {"name": "leaf", "level": 2, "size": 3}
    part = parts.build(spec)
    assert isinstance(part, Leaf)
    assert isinstance(part.level, float)
    assert spec == {"name": "leaf", "level": 2, "size": 3}


@pytest.mark.fault("F51")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("laef", "^unknown part 'laef'; did you mean 'leaf'[?] Known: closed, leaf$"),
        ("LEAF", "unknown part 'LEAF'; did you mean 'leaf'"),
        ("zzz", "^unknown part 'zzz'. Known: closed, leaf$"),
        ({"name": 3}, "unknown part 3"),
        ({"name": None}, "unknown part None"),
        ({"name": ["leaf"]}, r"unknown part \['leaf'\]"),
        ({"level": 1.0}, "^part.name is missing. Known: closed, leaf$"),
        (3, "^part must be the name of a part or a mapping with a name, got 3$"),
        (None, "part must be the name of a part or a mapping with a name, got None"),
        (
            {"name": "leaf", "lvl": 1, "size": 3},
            "^part.lvl: part 'leaf' has no parameter 'lvl'; did you mean 'level'[?] Known: level,",
        ),
        ({"name": "leaf", "level": "x", "size": 3}, "^part.level must be a number, got 'x'$"),
        ({"name": "leaf", "size": 3.5}, "^part.size must be a whole number, got 3.5$"),
        (
            {"name": "leaf"},
            "^part.size: part 'leaf' needs a value for 'size', and none was given$",
        ),
    ],
)
def test_wrong_specs(parts: Registry[Base], spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parts.build(spec)


@pytest.mark.parametrize("where", [None, "run.part", "part"])
@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("", "WHERE.level must be above 1, got 0.5"),
        ("level.inner must be more", "WHERE.level.inner must be more"),
        ("levels differ", "WHERE: levels differ"),
        ("size must be even, got 3", "WHERE: size must be even, got 3"),  # nobody sets it there
        ("part.level must be more", "WHERE.level must be more"),
        ("too much", "WHERE: too much"),
    ],
)
def test_a_constructors_own_sentence_gets_the_key(
    parts: Registry[Base], where: str | None, says: str, message: str
) -> None:
    parts.register("strict")(Strict)
    with pytest.raises(ConfigError) as caught:
        parts.build({"name": "strict", "says": says}, where=where, size=3)
    assert str(caught.value) == message.replace("WHERE", where or "part")


def test_no_place_is_named_twice(parts: Registry[Base]) -> None:
    parts.register("strict")(Strict)
    for says in ("run.part.level is odd", "unknown key run.part.x", "run.part: no"):
        with pytest.raises(ConfigError) as caught:
            parts.build({"name": "strict", "says": says}, where="run.part", size=3)
        assert str(caught.value) == says
    with pytest.raises(ConfigError, match=r"^part 'strict' is bad$"):
        parts.build({"name": "strict", "says": "part 'strict' is bad"}, size=3)


@pytest.mark.fault("F51")
def test_an_unknown_name_says_where(parts: Registry[Base]) -> None:
    message = "^run.part: unknown part 'laef'; did you mean 'leaf'"
    for ask in (parts.check, parts.build):
        with pytest.raises(ConfigError, match=message):
            ask("laef", where="run.part")


@pytest.mark.fault("F54")
def test_what_follows_from_elsewhere_is_not_set(parts: Registry[Base]) -> None:
    message = "^here.size is not set here: it follows from the rest of the configuration$"
    with pytest.raises(ConfigError, match=message):
        parts.check({"name": "leaf", "size": 3}, provided=["size"], where="here")


def test_nothing_is_built_by_a_check(parts: Registry[Base]) -> None:
    @parts.register("explosive")
    def explosive(*, size: int = 1) -> Base:
        raise AssertionError("built")

    assert parts.check({"name": "explosive", "size": 2}) == ("explosive", {"size": 2})


def test_an_empty_registry() -> None:
    with pytest.raises(ConfigError, match=r"^unknown thing 'x'. Known: none$"):
        Registry[Base]("thing").get("x")
