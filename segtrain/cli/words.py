"""The words of a command line, as a user types them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from segtrain.errors import ConfigError

_HOME = re.compile(r"~(?=/|$)")
_OUTER = re.compile(r"[\"$`\\!]")  # what a shell reads inside double quotes
_NEEDS_QUOTES = re.compile(r"[^\w.:/+\-]", re.ASCII)


def typed(key: str, value: str) -> str:
    """Return ``key=value`` as it must be typed in a shell, so that the value is one text.

    Example:
        >>> print(typed("dataset.root", "my data (1)"))
        "dataset.root='my data (1)'"
        >>> print(typed("loss", "focal"))
        loss=focal
    """
    if not _NEEDS_QUOTES.search(value):
        return f"{key}={value}"
    quote = '"' if "'" in value else "'"
    escaped = value.replace("\\", "\\\\") if value.endswith("\\") else value
    word = f"{key}={quote}{escaped.replace(quote, chr(92) + quote)}{quote}"
    return shlex.quote(word) if _OUTER.search(word) else f'"{word}"'


def expand_home(word: str) -> str:
    """Return an override whose value starts with ``~`` with the path of the home directory.

    Example:
        >>> expand_home("loss=focal")
        'loss=focal'
    """
    key, equals, value = word.partition("=")
    bare = value.strip("'\"")
    if not equals or not _HOME.match(bare):
        return word
    path = str(Path(bare).expanduser())
    quote = '"' if "'" in path else "'"
    return f"{key}={quote}{path}{quote}"


def check_words(words: Sequence[str]) -> None:
    """Check that every word is ``key=value``.

    Raises:
        ConfigError: When one is not, with the word as it must be typed.
    """
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        if (
            "=" in word.strip("=")
            or word.startswith("~")
            or (word[:1] == "=" and (not before or "=" in before))
        ):
            continue  # what is wrong with it is found when it is parsed
        after = words[index + 1 : index + 3]
        if word == "=":
            given, (key, value) = f"{before} = {''.join(after[:1])}", (before, "".join(after[:1]))
        elif word.endswith("="):  # loss= focal; without a value it is an empty text
            if not after or "=" in after[0]:
                continue
            given, (key, value) = f"{word} {after[0]}", (word[:-1], after[0])
        elif word.startswith("="):
            given, (key, value) = f"{before} {word}", (before, word[1:])
        elif after[:1] == ["="] and len(after) == 2:
            given, (key, value) = f"{word} = {after[1]}", (word, after[1])
        elif after and after[0].startswith("="):
            given, (key, value) = f"{word} {after[0]}", (word, after[0].lstrip("="))
        elif after and "=" not in after[0]:
            given, (key, value) = f"{word} {after[0]}", (word, after[0])
        else:
            raise ConfigError(f"cannot read {word!r} as key=value; write {word}=VALUE")
        raise ConfigError(f"cannot read {given!r} as key=value; write {typed(key, value)}")


def check_options(arguments: Sequence[str], known: Collection[str]) -> None:
    """Check that no key is written as an option, such as ``--loss focal``.

    Raises:
        ConfigError: When one is, with the word as it must be typed.
    """
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if not name.startswith("-") or name in known or argument == "--":
            continue
        key = name.lstrip("-").replace("-", "_")
        if not key or any(option.startswith(name) for option in known if name.startswith("--")):
            continue  # argparse takes the start of an option, too
        if not equals:
            after = arguments[index + 1 : index + 2]
            value = "" if not after or after[0].startswith("-") or "=" in after[0] else after[0]
        given = argument if equals or not value else f"{argument} {value}"
        options = ", ".join(sorted(known))
        raise ConfigError(
            f"cannot read {given!r}: keys are written without dashes, as"
            f" {typed(key, value or 'VALUE')}; the options are {options}"
        )
