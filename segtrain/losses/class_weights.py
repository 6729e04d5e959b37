"""Class weights: a list, a mapping by class name, a file, or computed from the dataset."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from segtrain.errors import ConfigError, one_line
from segtrain.foreign import parse_yaml, read_small_text
from segtrain.schema.sections import AUTO, WEIGHT_METHODS
from segtrain.schema.values import did_you_mean

ClassWeights = Sequence[float] | Mapping[str, float] | str | Path | None
AutoWeights = Callable[[str], Sequence[float]]
"""Returns the weights that one of :data:`WORDS` stands for, from the statistics of a dataset."""
WORDS = (AUTO, *WEIGHT_METHODS)
_IN_A_FILE = "a list of numbers or a mapping of class names to numbers"
_ALLOWED = f"{_IN_A_FILE}, a JSON or YAML file of either, or one of {', '.join(WORDS)}"
_INSIDE = "class_weights"  # the key of the weights in a file that holds more than them


def check_class_weights(weights: ClassWeights, num_classes: int) -> Tensor | None:
    """Return `weights` as a float32 tensor, or None if there are none.

    Args:
        weights: A list, or the path of a JSON or YAML file that holds one. A mapping by class name
            and the :data:`WORDS` need a dataset; see :func:`resolve_class_weights`.
        num_classes: Number of channels of the logits.

    Shape:
        - output: ``(C,)``, float32; ``(2,)`` for one channel, which tells two classes apart.

    Raises:
        ConfigError: When the number of weights is wrong, a weight is not a number, is negative or
            is not finite, or all weights are 0.
    """
    found = resolve_class_weights(weights, num_classes=num_classes)
    return None if found is None else torch.tensor(found, dtype=torch.float32)


def resolve_class_weights(
    weights: ClassWeights,
    *,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    auto: AutoWeights | None = None,
) -> list[float] | None:
    """Return `weights` as a list, from any form that a configuration accepts.

    Args:
        weights: A list; a mapping by class name, in which a class without an entry has weight 1;
            the path of a JSON or YAML file that holds either, at the top level or under
            ``class_weights``; one of :data:`WORDS`; or None.
        num_classes: Number of channels of the logits: one weight per channel, two for one channel.
        class_names: In the order of the class ids, for a mapping; empty if the classes have no
            names.
        auto: Returns the weights that a word stands for, from the statistics of the dataset.

    Raises:
        ConfigError: When a file cannot be read, a name is not a class, `class_names` or `auto` is
            needed and missing, or the numbers are wrong as in :func:`check_class_weights`.

    Example:
        >>> resolve_class_weights({"car": 3.0}, num_classes=2, class_names=["road", "car"])
        [1.0, 3.0]
    """
    if weights is None:
        return None
    found: Any = weights
    subject, allowed = "class_weights", _ALLOWED
    if isinstance(weights, (str, Path)):
        found = _look_up(weights, auto)
        subject, allowed = f"class_weights from {weights}", _IN_A_FILE
    found = _as_list(found)
    mistake = _find_mistake(found)
    if mistake:
        raise ConfigError(f"{subject} must be {allowed}, but {mistake}")
    numbers = found
    if isinstance(found, Mapping):
        names = _names_for(found, class_names, num_classes, subject)
        numbers = [found.get(name, 1.0) for name in names]
    _check_numbers(numbers, found, num_classes, subject)
    return [float(number) for number in numbers]


def _as_list(found: Any) -> Any:
    """Convert a tensor or an array to a list; leave anything else as it is."""
    return found.tolist() if hasattr(found, "tolist") else found


def _find_mistake(found: Any) -> str:
    """Return why `found` is not a list or a mapping of numbers, or an empty text if it is."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            if not isinstance(key, str):
                return f"its key {key!r} is not text: put class names in quotes"
            if not _is_number(value):
                return f"{key!r} is {value!r}"
        return ""
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
        return f"it is {found!r}"
    wrong = [index for index, value in enumerate(found) if not _is_number(value)]
    return f"entry {wrong[0]} is {found[wrong[0]]!r}" if wrong else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _names_for(
    found: Mapping[str, float], known: Sequence[str] | None, num_classes: int, subject: str
) -> Sequence[str]:
    """Return the class names, after a check that every key of `found` is one of them."""
    if not known:
        reason = "need class names, which only a dataset has"
        if known is not None:
            reason = "are not possible here: these classes have no names"
        raise ConfigError(
            f"{subject} by class name {reason}; give a list of {max(num_classes, 2)} numbers here"
        )
    for name in found:
        if name not in known:
            raise ConfigError(f"{subject}: no class {name!r}{did_you_mean(name, known)}")
    return known


def _check_numbers(numbers: Sequence[float], found: Any, num_classes: int, subject: str) -> None:
    needed = max(num_classes, 2)
    if len(numbers) != needed:
        raise ConfigError(
            f"{subject} has {len(numbers)} values, but num_classes is {num_classes}"
            f" and {needed} are needed"
        )
    limit = torch.finfo(torch.float32)
    fit = all(0 <= number <= limit.max for number in numbers)
    if not fit or not any(number >= limit.tiny for number in numbers):
        shown = dict(found) if isinstance(found, Mapping) else list(found)
        raise ConfigError(f"{subject} must be finite, not negative and not all 0, got {shown}")


def _look_up(source: str | Path, auto: AutoWeights | None) -> Any:
    """Return the weights that a word stands for or a file holds, not yet checked."""
    if source not in WORDS:
        return _read_file(source)
    if auto is None:
        raise ConfigError(
            f"class_weights: {source} takes its numbers from a dataset's statistics, which are"
            " not available here; give a list, a mapping by class name or a file"
        )
    return auto(str(source))


def _read_file(source: str | Path) -> Any:
    """Return the contents of a JSON or YAML file, not yet checked."""
    hint = ""
    try:
        path = Path(source).expanduser()
        text = read_small_text(path)
        found = json.loads(text) if path.suffix == ".json" else parse_yaml(text)
        inside = found.get(_INSIDE) if isinstance(found, dict) else None
        return found if inside is None or _is_number(inside) else inside
    except (OSError, ValueError, RuntimeError, RecursionError, yaml.YAMLError) as error:
        reason = one_line(error)
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
            close = difflib.get_close_matches(str(source).lower(), WORDS, n=1)
            hint = f"; did you mean {close[0]!r}? " if close else "; "
            hint += f"class_weights are {_ALLOWED}"
        raise ConfigError(
            f"class_weights: {source} cannot be read as a file of weights: {reason}{hint}"
        ) from error
