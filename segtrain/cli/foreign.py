"""Refuse what would let a configuration run code through Hydra.

Hydra imports and calls what the section ``hydra`` names as ``_target_``, such as callbacks. The
files of a user's own folder may therefore not touch that section. On the command line, only the
launcher and the sweeper of a sweep can be chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from segtrain.errors import ConfigError, one_line
from segtrain.foreign import parse_yaml, read_small_text

_SECTION = "hydra"
_PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)
_REFUSED = {
    "hydra.sweeper.custom_search_space": "it names code to run",
    "hydra.sweeper.storage": "a search is kept in memory, and resume=auto repeats it",
}
_ALLOWED = re.compile(
    r"hydra(/(launcher|sweeper)|\.(launcher|sweeper)(\.[A-Za-z]\w*)+|\.sweep\.dir)"
)


def check_folder(folder: Path) -> None:
    """Check that no file of a folder of configs reaches the section ``hydra``.

    Raises:
        ConfigError: When a file does, or cannot be read as YAML.
    """
    for path in sorted((*folder.rglob("*.yaml"), *folder.rglob("*.yml"))):
        if path.relative_to(folder).parts[0] == _SECTION:
            _refuse(path, "lies in a folder hydra")
        try:
            text = read_small_text(path)
            content = parse_yaml(text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} is not valid YAML: {one_line(error)}") from None
        if any(_is_of_hydra(package) for package in _PACKAGE.findall(text)):
            _refuse(path, "has the package hydra")
        if not isinstance(content, dict):
            continue
        if any(_is_of_hydra(str(key)) for key in content):
            _refuse(path, "has the key hydra")
        if any(
            _is_of_hydra(word) for text in _texts(content.get("defaults")) for word in _words(text)
        ):
            _refuse(path, "has hydra in its defaults")


def check_key(key: str, word: str) -> None:
    """Check that an override of the section ``hydra`` is one of a launcher or a sweeper.

    Args:
        key: The key, such as ``hydra/launcher``.
        word: The whole override, for the message.

    Raises:
        ConfigError: When it is not.

    Example:
        >>> check_key("hydra/launcher", "hydra/launcher=joblib")
        >>> check_key("hydra.callbacks.x", "hydra.callbacks.x={}")
        Traceback (most recent call last):
        segtrain.errors.ConfigError: hydra.callbacks.x={}: of hydra, only hydra/launcher, ...
    """
    if key in _REFUSED:
        raise ConfigError(f"{word} cannot be set: {_REFUSED[key]}; leave it out")
    if _ALLOWED.fullmatch(key) is None or "_target_" in word:
        raise ConfigError(
            f"{word}: of hydra, only hydra/launcher, hydra/sweeper, their keys such as"
            " hydra.launcher.n_jobs, and hydra.sweep.dir can be set; leave it out"
        )


def _refuse(path: Path, what: str) -> None:
    raise ConfigError(
        f"{path} {what}, through which a file could run code; choose a launcher or a sweeper on the"
        " command line instead, as in hydra/launcher=joblib"
    )


def _is_of_hydra(name: str) -> bool:
    """Whether a key, a group or a package is the section ``hydra`` or lies in it."""
    return re.split(r"[./]", name.lstrip("/"))[0] == _SECTION


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in nested lists and mappings, keys included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _words(text: str) -> list[str]:
    """The parts of an entry of a defaults list: ``override /group@package`` has three."""
    return re.split(r"[\s@:]+", text)
