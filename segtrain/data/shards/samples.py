"""The samples in a shard that has no index: which members are images and which are masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from segtrain.data.io.tar import Member

_MAX_LISTED = 5
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # webdataset's rule: up to the first dot


VALID = "valid"  # the first word of the suffix of a valid file


class ShardSample(NamedTuple):
    """The files of one sample in a shard.

    Attributes:
        key: The name that the files share.
        suffixes: The suffix of the image, then of the mask, or of one mask per class, then of the
            valid file if there is one; None for a class without a mask in this sample.
        members: Where each of the files is in the archive.
    """

    key: str
    suffixes: tuple[str | None, ...]
    members: tuple[Member | None, ...]


class MemberPatterns(NamedTuple):
    """Which members are images and which are masks, by their suffix: what follows the key.

    Attributes:
        image: Patterns for suffixes in order of preference; ``*`` matches anything.
        mask: The same for masks.
        names: Class names, for samples with a mask per class, ``KEY.mask.CLASS.png``.
        valid: The same for valid files.
    """

    image: Sequence[str]
    mask: Sequence[str]
    names: Sequence[str] | None = None
    valid: Sequence[str] = (f"{VALID}.*",)


def find_samples(
    members: Mapping[str, Member], patterns: MemberPatterns, location: str
) -> tuple[list[ShardSample], list[str]]:
    """Find the samples in a shard.

    Args:
        members: The files in the shard.
        patterns: Which of them are images and masks.
        location: Path or URL of the shard, for messages.

    Returns:
        The samples, and a message for each image or mask without its partner.

    Example:
        >>> members = {"a.jpg": Member(512, 90), "a.mask.png": Member(1536, 9)}
        >>> found, problems = find_samples(members, MemberPatterns(["jpg"], ["mask.*"]), "x.tar")
        >>> found[0].key, found[0].suffixes
        ('a', ('jpg', 'mask.png'))
    """
    groups: dict[str, dict[str, Member]] = {}
    for name, member in members.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            groups.setdefault(match[1], {})[match[2]] = member
    samples, problems = [], []
    for key, group in groups.items():
        images = _matching(group, patterns.image)
        masks = [suffix for suffix in _matching(group, patterns.mask) if suffix not in images[:1]]
        valid = _matching(group, patterns.valid)
        problem = _problem(key, group, images, masks, patterns)
        if problem is None and len(valid) > 1:
            problem = f"has several valid files, {', '.join(valid)}; remove all but one"
        if problem is not None:
            problems.append(f"{location}: sample {key!r} {problem}")
        elif images:
            suffixes = (images[0], *_mask_suffixes(masks, patterns.names), *valid)
            found = tuple(None if suffix is None else group[suffix] for suffix in suffixes)
            samples.append(ShardSample(key, suffixes, found))
    return samples, problems


def _matching(suffixes: Mapping[str, Member], patterns: Sequence[str]) -> list[str]:
    """Return the suffixes that match the first pattern with any match."""
    for pattern in patterns:
        found = [suffix for suffix in suffixes if fnmatchcase(suffix.lower(), pattern.lower())]
        if found:
            return sorted(found)
    return []


def _problem(
    key: str,
    group: Mapping[str, Member],
    images: list[str],
    masks: list[str],
    patterns: MemberPatterns,
) -> str | None:
    files = [f"{key}.{suffix}" for suffix in group]
    listed = ", ".join(files[:_MAX_LISTED]) + (", ..." if len(files) > _MAX_LISTED else "")
    if not images and not masks:
        return None
    if not masks:
        return (
            f"has an image and no mask, only {listed}; the mask must be called {key}."
            f"{f' or {key}.'.join(patterns.mask)}, or set dataset.mask to its suffix"
        )
    if not images:
        return f"has a mask and no image, only {listed}; set dataset.image to its suffix"
    if len(images) > 1:
        return f"has several images, {', '.join(images)}; set dataset.image to the right one"
    if patterns.names is None and len(masks) > 1:
        return (
            f"has several masks, {', '.join(masks)}; set dataset.mask to the right one, or set"
            " dataset.multi_label=true if there is one per class"
        )
    unknown = [mask for mask in masks if len(masks) > 1 and _class_of(mask, patterns.names) is None]
    if unknown:
        return f"has the mask {key}.{unknown[0]}, whose second word is not a class"
    return None


def _mask_suffixes(masks: Sequence[str], names: Sequence[str] | None) -> tuple[str | None, ...]:
    """Return the suffix of the one mask, or one suffix per class."""
    by_class = {_class_of(mask, names): mask for mask in masks}
    if names is None or (len(masks) == 1 and None in by_class):
        return (masks[0],)
    return tuple(by_class.get(class_id) for class_id in range(len(names)))


def _class_of(mask: str, names: Sequence[str] | None) -> int | None:
    """Return the class id in ``mask.3.png`` or ``mask.car.png``."""
    words = mask.split(".")
    if names is None or len(words) < 3:
        return None
    word = ".".join(words[1:-1])
    if word in names:
        return list(names).index(word)
    return int(word) if word.isdecimal() and int(word) < len(names) else None
