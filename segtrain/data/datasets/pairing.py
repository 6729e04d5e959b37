"""Which mask belongs to which image.

Files pair by their path without extension, relative to the folder that is searched. When that
leaves files over, endings that tell images from masks (``x_leftImg8bit`` and
``x_gtFine_labelIds``) are taken off: first the well-known ones, then whatever ending all files of
one side share, and at last the folders that all files of one side are in. Or a regular expression
for each side says what of a path counts. Order never decides: a wrong pair is worse than a message.
"""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from segtrain.data.io.storage import find, is_directory, is_file, kind_of, list_names, walk
from segtrain.errors import ConfigError, DataError, NoFilesError
from segtrain.schema.values import did_you_mean

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif", ".npy",
     ".jp2")
)  # fmt: skip
MASK_SUFFIXES = IMAGE_SUFFIXES | {".mat"}
_MOST_LISTED = 20
_MOST_NAMES = 6
_KNOWN_ENDING = re.compile(
    r"[_\-. ](leftImg8bit|images?|img|rgb|sat|gt(Fine|Coarse)_label(Train)?Ids|label(Train)?Ids"
    r"|masks?|labels?|seg|segmentation|gt|annotations?|target|L)$",
    re.IGNORECASE,
)

Place = str | Sequence[str]
Keyed = dict[str, list[Path]]
Triple = tuple[Path, Path, str]


class PlacedFiles(dict[Path, str]):
    """The files of some places, each with its path without extension below its place.

    Args:
        root: What expressions see paths relative to.
        places: The files of each place.
    """

    def __init__(self, root: Path, places: Sequence[Mapping[Path, str]]) -> None:
        super().__init__({path: stem for files in places for path, stem in files.items()})
        self.root, self.places = root, places

    def by_place(self) -> dict[Path, str]:
        """The files, with the number of their place before the path."""
        return {
            path: f"{number}/{stem}"
            for number, files in enumerate(self.places)
            for path, stem in files.items()
        }


def find_files(root: Path, place: Place, where: str) -> PlacedFiles:
    """The image files of a directory (searched through) or a glob, or of several.

    Args:
        root: What a relative `place` is relative to.
        place: A directory or a glob; ``**`` stands for any number of directories; or a list. Where
            both sides have as many places, files pair within the first of each, the second, ....
        where: The config key of `place`, for the message.

    Raises:
        NoFilesError: When there are none.
        DataError: When what should be a file cannot be read as one.
    """
    if isinstance(place, str):
        return PlacedFiles(root, [_find_in(root, place, where)])
    places = [_find_in(root, one, f"{where}[{number}]") for number, one in enumerate(place)]
    return PlacedFiles(root, places)


def _find_in(root: Path, pattern: str, where: str) -> dict[Path, str]:
    place = root / Path(pattern).expanduser()
    if is_directory(place) or not glob.has_magic(str(place)):
        base, found = place, walk(place) if is_directory(place) else iter(())
    else:
        base = Path(*takewhile(lambda part: not glob.has_magic(part), place.parts))
        found = find(place, base) if is_directory(base) else iter(())
    files = sorted(_images(found, where))
    if not files:
        if not is_directory(root) and not Path(pattern).is_absolute():
            raise NoFilesError(
                f"dataset.root={root} is no directory and no zip or tar archive; give the one that"
                f" {where}={pattern} is in"
            )
        state = "no image files" if is_directory(base) else f"nothing, for {base} is no directory"
        raise NoFilesError(
            f"{where}={pattern}: {place} holds {state}; give a directory or a glob, absolute or "
            f"relative to dataset.root={root}, in which there {_said_names(root)}"
        )
    return {path: path.relative_to(base).with_suffix("").as_posix() for path in files}


def _said_names(root: Path) -> str:
    names = list_names(root)
    if not names:
        return "is nothing"
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names[:_MOST_NAMES])}{more}"


def _images(found: Iterable[Path], where: str) -> Iterator[Path]:
    for path in found:
        if path.suffix.lower() not in MASK_SUFFIXES or path.name.startswith("."):
            continue
        if not is_file(path):
            raise DataError(f"{where}: {path} is {kind_of(path)}, not a file; take it away")
        yield path


class Pairing:
    """Regular expressions that say what of a path decides its partner.

    Args:
        given: One for ``images`` and one for ``masks``; None: names decide.

    Raises:
        ConfigError: When a side is missing, or an expression is none.
    """

    def __init__(self, given: Mapping[str, str] | None) -> None:
        sides = ("images", "masks")
        for key in given or ():
            if key not in sides:
                raise ConfigError(f"unknown key dataset.pairing.{key}{did_you_mean(key, sides)}")
        self.expressions = []
        for side in sides if given else ():
            if not given or side not in given:
                raise ConfigError(f"dataset.pairing.{side} is missing; give one for each side")
            try:
                self.expressions.append(re.compile(given[side]))
            except re.error as error:
                raise ConfigError(
                    f"dataset.pairing.{side}={given[side]!r} is no regular expression: {error}"
                ) from None

    def keys(self, files: PlacedFiles, side: int) -> Keyed:
        """The files by what their path has of the expression; others are left out.

        Raises:
            DataError: When the expression matches none of them.
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
    images: PlacedFiles, masks: PlacedFiles, where: str, pairing: Pairing, *, partial: bool = False
) -> tuple[list[Triple], DataError | None, list[str]]:
    """Image file, mask file and name of each sample, sorted by name.

    Args:
        images: Image files, as from :func:`find_files`.
        masks: Mask files likewise.
        where: The config key of the split, for the message.
        pairing: What decides.
        partial: Whether images without a mask are in order.

    Returns:
        The pairs, the error where files are left over, and a sentence for each of those.

    Raises:
        DataError: When nothing pairs.
    """
    if pairing.expressions:
        keyed = [(pairing.keys(images, 0), pairing.keys(masks, 1))]
    else:
        ways = (_whole, _without_known_ending, _without_shared_ending)
        sides: list[dict[Path, str]] = [images, masks]
        if len(images.places) == len(masks.places) > 1:
            sides = [images.by_place(), masks.by_place()]
        short = [_without_shared_folders(side) for side in sides]
        keyed = [(keep(one), keep(two)) for one, two in (sides, short) for keep in ways]
    problems = []
    for image_keys, mask_keys in keyed:
        groups = _left_over(image_keys, mask_keys, partial=partial)
        problems.append((sum(map(len, groups.values())), image_keys, mask_keys, groups))
        if not problems[-1][0]:
            break
    count, image_keys, mask_keys, groups = min(problems, key=lambda problem: problem[0])
    both = sorted(image_keys.keys() & mask_keys.keys())
    single = [key for key in both if len(image_keys[key]) == len(mask_keys[key]) == 1]
    pairs = [(image_keys[key][0], mask_keys[key][0], key) for key in single]
    if not count:
        return pairs, None, []
    error = DataError(f"{where}: {_described(groups)}")
    if not pairs:
        raise error
    left_out = [f"{file}: {_OF_ONE[text]}" for text, files in groups.items() for file in files]
    return pairs, error, left_out


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


def _without_shared_folders(files: dict[Path, str]) -> dict[Path, str]:
    """Take off the folders in which all files of one side are, as below a glob."""
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
    "files share their name without extension with another of the same side",
)
_OF_ONE = {
    _NO_MASK: "the image has no mask",
    _NO_IMAGE: "the mask has no image",
    _TWICE: "another file of the same side has the same name without extension",
}


def _left_over(images: Keyed, masks: Keyed, *, partial: bool) -> dict[str, list[Path]]:
    """The files that lack exactly one partner, by what is wrong with them."""
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


def _described(groups: Mapping[str, Sequence[Path]]) -> str:
    parts = [f"{len(files)} {text} ({_list(files)})" for text, files in groups.items()]
    advice = "an image and its mask need the same name without extension, so rename or remove them"
    return f"{', '.join(parts)}; {advice}"


def _list(files: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in files[:_MOST_LISTED])
    return f"{shown}, ..." if len(files) > _MOST_LISTED else shown
