"""Class weights: one number per class, in the forms that people have them in."""

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
from segtrain.schema.sections import AUTO, WEIGHT_METHODS
from segtrain.schema.values import did_you_mean

ClassWeights = Sequence[float] | Mapping[str, float] | str | Path | None
AutoWeights = Callable[[str], Sequence[float]]
"""From one of :data:`WORDS` to the weights that it stands for, as a dataset's statistics say."""
WORDS = (AUTO, *WEIGHT_METHODS)
_IN_A_FILE = "a list of numbers or a mapping of class names to numbers"
_ALLOWED = f"{_IN_A_FILE}, a JSON or YAML file of either, or one of {', '.join(WORDS)}"
_INSIDE = "class_weights"  # where a file that says more than the weights has them


def check_class_weights(weights: ClassWeights, num_classes: int) -> Tensor | None:
    """`weights` as a float32 tensor ``(C,)``, or None; two for one channel, which has two classes.

    Args:
        weights: A list, or the name of a JSON or YAML file with one. A mapping by class name and
            the :data:`WORDS` need to know the dataset: see :func:`resolve_class_weights`.
        num_classes: Number of channels of the logits.

    Raises:
        ConfigError: When the length is wrong, or a weight is no number, negative or not finite, or
            all are 0.
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
    """`weights` as a list, whatever form they have.

    Args:
        weights: A list; a mapping by class name (a class that it does not name weighs 1); the path
            of a JSON or YAML file that holds either, as it is or under ``class_weights``; one of
            :data:`WORDS`; or None.
        num_classes: How many channels the logits have: one weight for each, two for one.
        class_names: In the order of the class ids, for a mapping; empty where the classes have
            none.
        auto: Gives what the words stand for: the weights that the dataset's statistics suggest.

    Raises:
        ConfigError: When a file cannot be read, a name is no class, what is needed is not there, or
            the numbers are wrong as in :func:`check_class_weights`.

    Example:
        >>> resolve_class_weights({"car": 3.0}, num_classes=2, class_names=["road", "car"])
        [1.0, 3.0]
    """
    if weights is None:
        return None
    is_source = isinstance(weights, (str, Path))
    found = _plain(_found(weights, auto) if isinstance(weights, (str, Path)) else weights)
    subject = f"class_weights from {weights}" if is_source else "class_weights"
    mistake = _mistake(found)
    if mistake:
        allowed = _IN_A_FILE if is_source else _ALLOWED
        raise ConfigError(f"{subject} must be {allowed}, but {mistake}")
    numbers = found
    if isinstance(found, Mapping):
        names = _names_for(found, class_names, num_classes, subject)
        numbers = [found.get(name, 1.0) for name in names]
    _check_numbers(numbers, found, num_classes, subject)
    return [float(number) for number in numbers]


def _plain(found: Any) -> Any:
    """Tensors and arrays as lists."""
    return found.tolist() if hasattr(found, "tolist") else found


def _mistake(found: Any) -> str:
    """What keeps `found` from being a list or a mapping of numbers; empty: nothing."""
    if isinstance(found, Mapping):
        for key, value in found.items():
            if not isinstance(key, str):
                return f"its key {key!r} is no text: put the name of a class in quotes"
            if not _is_number(value):
                return f"{key!r} is {value!r}"
        return ""
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
        return f"it is {found!r}"
    wrong = [index for index, value in enumerate(found) if not _is_number(value)]
    return f"number {wrong[0]} of it is {found[wrong[0]]!r}" if wrong else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _names_for(
    found: Mapping[str, float], known: Sequence[str] | None, num_classes: int, subject: str
) -> Sequence[str]:
    """The names of the classes, of which every key of `found` is one."""
    if not known:
        reason = "need the names of the classes, which only a dataset has"
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


def _found(source: str | Path, auto: AutoWeights | None) -> Any:
    if source not in WORDS:
        return _read(source)
    if auto is None:
        raise ConfigError(
            f"class_weights: {source} takes its numbers from a dataset's statistics, and none are"
            " at hand here; give a list, a mapping by class name or a file"
        )
    return auto(str(source))


def _read(source: str | Path) -> Any:
    """What a JSON or YAML file holds, whatever it is."""
    hint = ""
    try:
        path = Path(source).expanduser()
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        inside = found.get(_INSIDE) if isinstance(found, dict) else None
        return found if inside is None or _is_number(inside) else inside
    except (OSError, ValueError, RuntimeError, yaml.YAMLError) as error:
        reason = one_line(error)
        if isinstance(error, FileNotFoundError):
            reason = "there is none"
            close = difflib.get_close_matches(str(source).lower(), WORDS, n=1)
            hint = f"; did you mean {close[0]!r}? " if close else "; "
            hint += f"class_weights are {_ALLOWED}"
        raise ConfigError(
            f"class_weights: {source} is no file of weights that can be read: {reason}{hint}"
        ) from error
