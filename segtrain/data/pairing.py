"""Which mask belongs to which image.

Files pair by their path without extension, relative to the folder that is searched. When that
leaves files over, endings that tell images from masks (``x_leftImg8bit`` and
``x_gtFine_labelIds``) are taken off: first the well-known ones, then whatever ending all files of
one side share. Order never decides: a wrong pair is worse than a message.
"""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import takewhile
from pathlib import Path

from segtrain.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
)
_MOST_LISTED = 20
_KNOWN_ENDING = re.compile(
    r"[_\-. ](leftImg8bit|images?|img|rgb|sat|gt(Fine|Coarse)_label(Train)?Ids|label(Train)?Ids"
    r"|masks?|labels?|seg|segmentation|gt|annotations?|target|L)$",
    re.IGNORECASE,
)

Keyed = dict[str, list[Path]]


def find_files(root: Path, pattern: str, where: str) -> dict[Path, str]:
    """The image files of a directory (searched through) or a glob, each with its relative stem.

    Args:
        root: What a relative `pattern` is relative to.
        pattern: A directory or a glob; ``**`` stands for any number of directories.
        where: The config key of `pattern`, for the message.

    Raises:
        DataError: When there are none.
    """
    place = Path(root).expanduser() / Path(pattern).expanduser()
    if place.is_dir() or not glob.has_magic(str(place)):
        base, found = place, _walk(place)
    else:
        plain = takewhile(lambda part: not glob.has_magic(part), place.parts)
        base, found = Path(*plain), map(Path, glob.iglob(str(place), recursive=True))  # noqa: PTH207  absolute patterns, too
    files = sorted(path for path in found if _is_image(path))
    if not files:
        state = "no image files" if base.is_dir() else f"nothing, for {base} is not a directory"
        raise DataError(
            f"{where}={pattern}: {place} holds {state}; give a directory or a glob, absolute or "
            f"relative to dataset.root={root}"
        )
    return {path: path.relative_to(base).with_suffix("").as_posix() for path in files}


def _walk(place: Path) -> Iterable[Path]:
    for folder, _, names in os.walk(place, followlinks=True):
        yield from (Path(folder, name) for name in names)


def _is_image(path: Path) -> bool:
    return (
        path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def pair_files(
    images: dict[Path, str], masks: dict[Path, str], where: str
) -> list[tuple[Path, Path, str]]:
    """Image file, mask file and name of each sample, sorted by name.

    Args:
        images: Image files with their relative stems, as from :func:`find_files`.
        masks: Mask files likewise.
        where: The config key of the split, for the message.

    Raises:
        DataError: When a file has no partner, or more than one.
    """
    problems = []
    for keep in (_whole, _without_known_ending, _without_shared_ending):
        image_keys, mask_keys = keep(images), keep(masks)
        problem = _find_problem(image_keys, mask_keys)
        if problem is None:
            return [(image_keys[k][0], mask_keys[k][0], k) for k in sorted(image_keys)]
        problems.append(problem)
    _, message = min(problems, key=lambda problem: problem[0])
    raise DataError(f"{where}: {message}")


def _whole(files: dict[Path, str]) -> Keyed:
    return _group(files, lambda stem: stem)


def _without_known_ending(files: dict[Path, str]) -> Keyed:
    return _group(files, lambda stem: _KNOWN_ENDING.sub("", stem))


def _without_shared_ending(files: dict[Path, str]) -> Keyed:
    """Take off the words that all stems of one side end in; one file alone shares with nobody."""
    words = [re.split(r"(?=[_\-. ])", stem)[::-1] for stem in files.values()]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    ending = "".join(column[0] for column in reversed(list(shared))) if len(words) > 1 else ""
    return _group(files, lambda stem: stem.removesuffix(ending))


def _group(files: dict[Path, str], key: Callable[[str], str]) -> Keyed:
    grouped: Keyed = defaultdict(list)
    for path, stem in files.items():
        grouped[key(stem)].append(path)
    return dict(grouped)


def _find_problem(images: Keyed, masks: Keyed) -> tuple[int, str] | None:
    """How many files lack exactly one partner and the sentence about them, or None."""
    twice = [path for side in (images, masks) for paths in side.values() for path in paths[1:]]
    twice = [*twice, *(side[key][0] for side in (images, masks) for key in side if side[key][1:])]
    no_mask = [path for key in images.keys() - masks.keys() for path in images[key]]
    no_image = [path for key in masks.keys() - images.keys() for path in masks[key]]
    groups = (
        (no_mask, "image files have no mask"),
        (no_image, "mask files have no image"),
        (twice, "files share their name without extension with another of the same side"),
    )
    parts = [f"{len(files)} {text} ({_list(files)})" for files, text in groups if files]
    if not parts:
        return None
    advice = "an image and its mask need the same name without extension, so rename or remove them"
    return sum(len(files) for files, _ in groups), f"{', '.join(parts)}; {advice}"


def _list(files: list[Path]) -> str:
    shown = ", ".join(str(path) for path in sorted(files)[:_MOST_LISTED])
    return f"{shown}, ..." if len(files) > _MOST_LISTED else shown
