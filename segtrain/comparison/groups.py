"""Groups of runs that differ in nothing but the seed, and the baseline of each group."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segtrain.comparison.runs import RunRecord
from segtrain.engine.sweep_directory import has_effect
from segtrain.errors import ConfigError

_NOT_COMPARED = ("seed", "dataset.fold")
_MAX_KEYS = 4  # in a message
_BARE = ("loss", "mining", "model", "dataset")  # keys whose value alone names a group
_WORD = re.compile(r",(?=[\w.]+=)")  # a comma between two words, not inside a list

Words = dict[str, str]
"""Swept keys and values, such as ``{"loss": "focal"}``."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, and the fold of a cross-validation.

    Attributes:
        words: The keys that differ between the groups, and the values of this one.
        runs: The runs, by seed and fold.
    """

    words: Words
    runs: tuple[RunRecord, ...]

    @property
    def name(self) -> str:
        """What names the group: ``focal``, or ``focal optimizer.lr=0.01``."""
        return named(self.words)

    @property
    def overrides(self) -> list[str]:
        """The words as overrides."""
        return [f"{key}={value}" for key, value in self.words.items()]

    @property
    def seeds(self) -> list[int]:
        """The seeds, each once."""
        return sorted({run.seed for run in self.runs})


def named(words: Words) -> str:
    """The name of a group with these words.

    Example:
        >>> named({"loss": "focal", "optimizer.lr": "0.01"}), named({"optimizer.lr": "0.01"})
        ('focal optimizer.lr=0.01', 'optimizer.lr=0.01')
    """
    parts = (value if key in _BARE else f"{key}={value}" for key, value in words.items())
    return " ".join(parts) or "all runs"


def group_runs(runs: Sequence[RunRecord]) -> list[Group]:
    """Group finished runs, in the order of the first run of each group.

    Raises:
        ConfigError: When a group has two runs with one seed.
    """
    found: dict[str, list[RunRecord]] = {}
    for run in runs:
        found.setdefault(_identity(run), []).append(run)
    members = [sorted(group, key=lambda run: (run.seed, run.fold or 0)) for group in found.values()]
    for group in members:
        _check_seeds(group)
    words = _differing_words([group[0] for group in members])
    return [Group(own, tuple(group)) for own, group in zip(words, members, strict=True)]


def _identity(run: RunRecord) -> str:
    flat = flattened(run.config)
    kept = {key: value for key, value in flat.items() if _counts(key)}
    return json.dumps(kept, sort_keys=True, default=str)


def _counts(key: str) -> bool:
    return has_effect(key) and key not in _NOT_COMPARED


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level with dotted keys; lists and empty mappings are values.

    Example:
        >>> flattened({"loss": {"name": "focal", "gamma": 2}, "seed": 0})
        {'loss.name': 'focal', 'loss.gamma': 2, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found.update(flattened(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _check_seeds(group: Sequence[RunRecord]) -> None:
    seen: dict[tuple[int, int | None], RunRecord] = {}
    for run in group:
        other = seen.setdefault((run.seed, run.fold), run)
        if other is not run:
            raise ConfigError(
                f"{other.path} and {run.path} are the same run with seed {run.seed}; give one of"
                " them, or the same directory once"
            )


def _differing_words(firsts: Sequence[RunRecord]) -> list[Words]:
    """The words in which groups differ: what was typed, completed from the configuration."""
    if len(firsts) == 1:
        return [{}]
    flats = [flattened(run.config) for run in firsts]
    typed = dict.fromkeys(key for run in firsts for key in run.overrides if _counts(key))
    words = [{key: _value(run, flat, key) for key in typed} for run, flat in zip(firsts, flats)]  # noqa: B905
    words = _without_equal(words)
    if len({tuple(own.items()) for own in words}) == len(firsts):
        return words
    # What was typed does not tell the groups apart, so the configuration must.
    keys = dict.fromkeys(key for flat in flats for key in flat if _counts(key))
    whole = [{key: _text(flat.get(key)) for key in keys} for flat in flats]
    return _without_equal(whole)


def _without_equal(words: Sequence[Words]) -> list[Words]:
    """Drop the keys that have one value in all groups."""
    keys = [key for key in words[0] if len({own[key] for own in words}) > 1]
    return [{key: own[key] for key in keys} for own in words]


def _value(run: RunRecord, flat: Mapping[str, Any], key: str) -> str:
    """The value of a key as typed, else as the configuration has it."""
    if key in run.overrides:
        return _text(run.overrides[key])
    if key in ("loss", "mining"):
        loss, _, mining = str(run.results.get("preset", "")).partition("+")
        return loss if key == "loss" else mining or "none"
    return _text(flat.get(key, flat.get(f"{key}.name")))


def _text(value: object) -> str:
    """A value as text, with one spelling for each number.

    Example:
        >>> _text("1e-3"), _text(0.001), _text("focal"), _text(None)
        ('0.001', '0.001', 'focal', 'null')
    """
    if value is None:
        return "null"
    try:
        return f"{float(str(value)):.12g}"
    except ValueError:
        return str(value)


def parse_words(text: str) -> Words:
    """Split a baseline such as ``loss=cross_entropy,optimizer.lr=0.01`` into keys and values.

    Raises:
        ConfigError: When a part is not ``key=value``.
    """
    words = {}
    for word in _WORD.split(text):
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"baseline={text}: {word!r} is not key=value, as in loss=focal")
        words[key] = _text(value)
    return words


class Baselines:
    """The baseline of each group.

    A group is the baseline of another if it has the values of `chosen` and agrees with the other in
    all remaining swept keys.

    Args:
        groups: The groups.
        chosen: Some keys and their values; None: the first group's value of the first swept key, or
            ``loss=cross_entropy`` if a group has it.

    Attributes:
        chosen: The keys and values in use.

    Raises:
        ConfigError: When no group or several have the values of `chosen`.
    """

    def __init__(self, groups: Sequence[Group], chosen: Words | None) -> None:
        self.groups = groups
        self.chosen = self._default() if chosen is None else chosen
        if not any(self._is_chosen(group) for group in groups):
            raise ConfigError(
                f"baseline={_joined(self.chosen)} is none of the groups: {_listed(groups)}"
            )

    def _default(self) -> Words:
        words = [group.words for group in self.groups]
        for own in words:
            if own.get("loss") == "cross_entropy":
                return {"loss": "cross_entropy"}
        return dict(list(words[0].items())[:1])

    def _is_chosen(self, group: Group) -> bool:
        return all(group.words.get(key) == value for key, value in self.chosen.items())

    def is_baseline(self, group: Group) -> bool:
        """Whether a group is a baseline."""
        return self._is_chosen(group)

    def of(self, group: Group) -> Group | None:
        """The baseline of a group; None if no group agrees with it in all other keys."""
        rest = {key: value for key, value in group.words.items() if key not in self.chosen}
        found = [
            other
            for other in self.groups
            if self._is_chosen(other)
            and all(other.words[key] == value for key, value in rest.items())
        ]
        if len(found) > 1:
            raise ConfigError(
                f"baseline={_joined(self.chosen)} fits several groups: {_listed(found)}; name more"
                " keys"
            )
        return found[0] if found else None

    def missing(self, group: Group) -> str:
        """Why a group has no baseline, and what to do."""
        candidates = [other for other in self.groups if self._is_chosen(other)]
        rest = {key: value for key, value in group.words.items() if key not in self.chosen}
        alone = [
            key
            for key, value in rest.items()
            if all(other.words[key] != value for other in candidates)
        ] or list(rest)
        if len(alone) > _MAX_KEYS:
            return (
                f"{group.name} and {candidates[0].name} differ in {len(alone)} keys, such as"
                f" {', '.join(alone[:_MAX_KEYS])}; compare runs that differ in fewer"
            )
        named_too = {key: candidates[0].words[key] for key in alone}
        return (
            f"no group with {_joined(self.chosen)} agrees with {group.name} in {', '.join(alone)};"
            f" to compare across that, name it: baseline={_joined({**self.chosen, **named_too})}"
        )


def _joined(words: Words) -> str:
    return ",".join(f"{key}={value}" for key, value in words.items())


def _listed(groups: Iterable[Group]) -> str:
    return "; ".join(" ".join(group.overrides) or group.name for group in groups)
