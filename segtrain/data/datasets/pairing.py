"""Find image and mask files, and pair them.

Files pair by their path without extension, relative to the folder that is searched. If files remain
without a partner, endings that distinguish images from masks (``x_leftImg8bit`` and
``x_gtFine_labelIds``) are removed: first known endings, then an ending that all files of one side
share. At last, folders that all files of one side share are removed too. Alternatively, regular
expressions select the part of a path that must agree. Files are never paired by their order,
because a wrong pair is worse than an error.
"""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from segtrain.data.datasets.names import Names
from segtrain.data.io.storage import find, is_directory, is_file, kind_of, list_names, walk
from segtrain.errors import ConfigError, DataError, NoFilesError
from segtrain.schema.values import did_you_mean

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif", ".npy",
     ".jp2")
)  # fmt: skip
MASK_SUFFIXES = IMAGE_SUFFIXES | {".mat"}
_MAX_FILES = 20  # listed in a message
_MAX_NAMES = 6
_KNOWN_ENDING = re.compile(
    r"[_\-. ](leftImg8bit|images?|img|rgb|sat|gt(Fine|Coarse)_label(Train)?Ids|label(Train)?Ids"
    r"|masks?|labels?|seg|segmentation|gt|annotations?|target|L)$",
    re.IGNORECASE,
)

Location = str | Sequence[str]
Keyed = dict[str, list[Path]]
Triple = tuple[Path, Path, str]


class FoundFiles(dict[Path, str]):
    """Files, each with its stem: the path without extension relative to the searched folder.

    Args:
        root: The path that regular expressions are matched relative to.
        locations: The files of each directory or glob.
    """

    def __init__(self, root: Path, locations: Sequence[Mapping[Path, str]]) -> None:
        super().__init__({path: stem for files in locations for path, stem in files.items()})
        self.root, self.locations = root, locations

    def by_location(self) -> dict[Path, str]:
        """Return the files with the number of their directory or glob before the stem."""
        return {
            path: f"{number}/{stem}"
            for number, files in enumerate(self.locations)
            for path, stem in files.items()
        }


def find_files(root: Path, location: Location, where: str) -> FoundFiles:
    """Find the image files of a directory (searched recursively) or a glob, or of several.

    Args:
        root: Directory or archive that a relative `location` starts from.
        location: A directory, a glob (``**`` matches any number of directories), or a list of
            these. If the lists of images and masks have the same length, files pair within the
            first entries, within the second, ....
        where: The config key of `location`, for messages.

    Raises:
        NoFilesError: When there are no image files.
        DataError: When an entry with the name of an image is not a file.
    """
    if isinstance(location, str):
        return FoundFiles(root, [_find_in(root, location, where)])
    found = [_find_in(root, one, f"{where}[{number}]") for number, one in enumerate(location)]
    return FoundFiles(root, found)


def _find_in(root: Path, pattern: str, where: str) -> dict[Path, str]:
    path = root / Path(pattern).expanduser()
    if is_directory(path) or not glob.has_magic(str(path)):
        base, found = path, walk(path) if is_directory(path) else iter(())
    else:
        base = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        found = find(path, base) if is_directory(base) else iter(())
    files = sorted(_images(found, where))
    if not files:
        if not is_directory(root) and not Path(pattern).is_absolute():
            raise NoFilesError(
                f"dataset.root={root} is neither a directory nor a zip or tar archive; set it to"
                f" the one that {where}={pattern} is in"
            )
        holds_none = is_directory(base)
        problem = f"{path} holds no image files" if holds_none else f"{base} is not a directory"
        raise NoFilesError(
            f"{where}={pattern}: {problem}; give a directory or a glob, absolute or relative to"
            f" dataset.root={root}, which holds {_listed_names(root)}"
        )
    return {path: path.relative_to(base).with_suffix("").as_posix() for path in files}


def _listed_names(root: Path) -> str:
    names = list_names(root)
    more = ", ..." if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more if names else "nothing"


def _images(found: Iterable[Path], where: str) -> Iterator[Path]:
    for path in found:
        if path.suffix.lower() not in MASK_SUFFIXES or path.name.startswith("."):
            continue
        if not is_file(path):
            raise DataError(f"{where}: {path} is {kind_of(path)}, not a file; remove it")
        yield path


class Pairing:
    """Regular expressions that select the part of a path by which files pair.

    Args:
        given: An expression for ``images`` and one for ``masks``; None to pair by name.

    Raises:
        ConfigError: When one is missing, or is not a regular expression.
    """

    def __init__(self, given: Mapping[str, str] | None) -> None:
        sides = ("images", "masks")
        for key in given or ():
            if key not in sides:
                raise ConfigError(f"unknown key dataset.pairing.{key}{did_you_mean(key, sides)}")
        self.expressions = []
        for side in sides if given else ():
            if not given or side not in given:
                raise ConfigError(
                    f"dataset.pairing.{side} is missing; give one for images and one for masks"
                )
            try:
                self.expressions.append(re.compile(given[side]))
            except re.error as error:
                raise ConfigError(
                    f"dataset.pairing.{side}={given[side]!r} is not a regular expression: {error}"
                ) from None

    def keys(self, files: FoundFiles, side: int) -> Keyed:
        """Group files by the part of their path that the expression selects.

        Files that it does not match are left out.

        Args:
            files: The files.
            side: 0 for images, 1 for masks.

        Raises:
            DataError: When the expression matches no file.
        """
        expression = self.expressions[side]
        grouped: Keyed = defaultdict(list)
        example = None
        for path in files:
            text = _below(path, files.root)
            match = expression.search(text)
            example = example or text
            if match is not None:
                groups = [group or "" for group in match.groups()]
                grouped["/".join(groups) if groups else match.group()].append(path)
        if not grouped:
            name = ("images", "masks")[side]
            raise DataError(
                f"dataset.pairing.{name}={expression.pattern!r} matches none of {len(files)} files,"
                f" such as {example}"
            )
        return dict(grouped)


def _below(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def pair_files(
    images: FoundFiles,
    masks: FoundFiles,
    where: str,
    pairing: Pairing,
    *,
    partial: bool = False,
    names: Names | None = None,
) -> tuple[list[Triple], DataError | None, list[str]]:
    """Pair image and mask files.

    Args:
        images: Image files, as from :func:`find_files`.
        masks: Mask files.
        where: The config key of the split, for messages.
        pairing: The part of a path that must agree.
        partial: Whether images without a mask are allowed.
        names: The samples to pair; files of other samples need no partner. None: all samples.

    Returns:
        Image file, mask file and name of each sample, sorted by name; an error if files remain
        without a partner, else None; and a message for each of these files.

    Raises:
        DataError: When no files pair, or a name does not exist.
    """
    if pairing.expressions:
        keyed = [(pairing.keys(images, 0), pairing.keys(masks, 1))]
    else:
        rules = (_whole, _without_known_ending, _without_shared_ending)
        sides: list[dict[Path, str]] = [images, masks]
        if len(images.locations) == len(masks.locations) > 1:
            sides = [images.by_location(), masks.by_location()]
        short = [_without_shared_folders(side) for side in sides]
        keyed = [(group(one), group(two)) for one, two in (sides, short) for group in rules]
    problems = []
    for all_images, all_masks in keyed:
        known = all_images.keys() | all_masks.keys()
        image_keys, mask_keys = _chosen(all_images, names), _chosen(all_masks, names)
        groups = _unpaired(image_keys, mask_keys, partial=partial)
        count = sum(map(len, groups.values())) + (len(names.chosen - known) if names else 0)
        problems.append((count, image_keys, mask_keys, groups, known))
        if not count:
            break
    count, image_keys, mask_keys, groups, known = min(problems, key=lambda problem: problem[0])
    if names is not None:
        names.check(known)
    both = sorted(image_keys.keys() & mask_keys.keys())
    single = [key for key in both if len(image_keys[key]) == len(mask_keys[key]) == 1]
    pairs = [(image_keys[key][0], mask_keys[key][0], key) for key in single]
    if not count:
        return pairs, None, []
    error = DataError(f"{where}: {_describe(groups)}")
    if not pairs:
        raise error
    left_out = [f"{file}: {_OF_ONE_FILE[text]}" for text, files in groups.items() for file in files]
    return pairs, error, left_out


def _chosen(keys: Keyed, names: Names | None) -> Keyed:
    """Return the files of the samples with one of these names."""
    if names is None:
        return keys
    return {key: files for key, files in keys.items() if key in names.chosen}


def _whole(files: dict[Path, str]) -> Keyed:
    return _group(files, lambda stem: stem)


def _without_known_ending(files: dict[Path, str]) -> Keyed:
    return _group(files, lambda stem: _KNOWN_ENDING.sub("", stem))


def _without_shared_ending(files: dict[Path, str]) -> Keyed:
    """Remove the last words of the stems if all files of one side share them; not for one file."""
    words = [re.split(r"(?=[_\-. ])", stem)[::-1] for stem in files.values()]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    ending = "".join(column[0] for column in reversed(list(shared))) if len(words) > 1 else ""
    return _group(files, lambda stem: stem.removesuffix(ending))


def _without_shared_folders(files: dict[Path, str]) -> dict[Path, str]:
    """Remove the first folders of the stems if all files of one side share them."""
    folders = [stem.split("/")[:-1] for stem in files.values()]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*folders, strict=False))
    count = len(list(shared))
    return {path: "/".join(stem.split("/")[count:]) for path, stem in files.items()}


def _group(files: dict[Path, str], key: Callable[[str], str]) -> Keyed:
    grouped: Keyed = defaultdict(list)
    for path, stem in files.items():
        grouped[key(stem)].append(path)
    return dict(grouped)


_NO_MASK, _NO_IMAGE, _TWICE = (
    "image files have no mask",
    "mask files have no image",
    "files have a name without extension that is not unique",
)
_OF_ONE_FILE = {
    _NO_MASK: "the image has no mask",
    _NO_IMAGE: "the mask has no image",
    _TWICE: "the name without extension is not unique",
}


def _unpaired(images: Keyed, masks: Keyed, *, partial: bool) -> dict[str, list[Path]]:
    """Return the files without exactly one partner, grouped by problem."""
    twice = {
        path
        for side in (images, masks)
        for paths in side.values()
        if len(paths) > 1
        for path in paths
    }
    no_mask = [path for key in images.keys() - masks.keys() for path in images[key]]
    no_image = [path for key in masks.keys() - images.keys() for path in masks[key]]
    groups = {_NO_MASK: [] if partial else no_mask, _NO_IMAGE: no_image, _TWICE: [*twice]}
    return {text: sorted(files) for text, files in groups.items() if files}


def _describe(groups: Mapping[str, Sequence[Path]]) -> str:
    parts = [f"{len(files)} {text} ({_list(files)})" for text, files in groups.items()]
    advice = "an image and its mask need the same name without extension, so rename or remove them"
    return f"{', '.join(parts)}; {advice}"


def _list(files: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in files[:_MAX_FILES])
    return f"{shown}, ..." if len(files) > _MAX_FILES else shown
