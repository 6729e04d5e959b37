"""Pair image files with their masks or valid files.

Files pair by their path without extension, relative to the folder that is searched. If files remain
without a partner, endings that distinguish images from masks (``x_leftImg8bit`` and
``x_gtFine_labelIds``) are removed: first known endings, then an ending that all files of one side
share, then ``_0000``, the channel in nnU-Net's names, if all images end with it. At last, folders
that all files of one side share are removed too. Other numbers are never removed on their own, nor
where both sides have them and they differ: ``left_0001`` and ``left_0010`` are two frames.
Alternatively, regular expressions select the part of a path that must agree. Files are never paired
by their order, because a wrong pair is worse than an error.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from segtrain.data.datasets.found_files import FoundFiles
from segtrain.data.datasets.names import Names
from segtrain.data.datasets.pairing_advice import FIRST_CHANNEL, pairing_advice
from segtrain.errors import ConfigError, DataError
from segtrain.schema.values import did_you_mean

_SHOWN = 3  # pairs in the log
_MAX_FILES = 20  # listed in a message
_SIDES = ("images", "masks", "valid")
_NO_PARTNER, _NO_IMAGE, _TWICE = "no partner", "no image", "twice"  # problems of files
_KNOWN_ENDING = re.compile(
    r"[_\-. ](leftImg8bit|images?|img|rgb|sat|gt(Fine|Coarse)_label(Train)?Ids|label(Train)?Ids"
    r"|masks?|labels?|seg|segmentation|gt|annotations?|target|L)$",
    re.IGNORECASE,
)

Keyed = dict[str, list[Path]]
Triple = tuple[Path, Path, str]


class Pairs(NamedTuple):
    """Image files with their partners.

    Attributes:
        triples: Image file, mask or valid file, and name of each sample, sorted by name.
        rule: What files pair by; empty where their names are equal.
        unpaired: Files without a partner, with a message for each.
        twice: Files whose name is not unique, likewise.
        error: An error about all of them; None: there are none.
    """

    triples: list[Triple]
    rule: str
    unpaired: dict[Path, str]
    twice: dict[Path, str]
    error: DataError | None

    @property
    def left_out(self) -> list[str]:
        """A message for each file without exactly one partner."""
        return [f"{file}: {text}" for file, text in {**self.unpaired, **self.twice}.items()]

    def shown(self, where: str) -> str:
        """What files pair by, with three of the pairs, for the log."""
        some = ", ".join(f"{one.name} with {other.name}" for one, other, _ in self.triples[:_SHOWN])
        return f"{where}: files pair by {self.rule}: {some}"


class Pairing:
    """Regular expressions that select the part of a path by which files pair.

    Args:
        given: An expression for ``images``, one for ``masks`` and, if there are valid files, one
            for ``valid``; None to pair by name.

    Raises:
        ConfigError: When one is missing, or is not a regular expression.
    """

    def __init__(self, given: Mapping[str, str] | None) -> None:
        self.expressions: dict[str, re.Pattern[str]] = {}
        for side in given or ():
            if side not in _SIDES:
                raise ConfigError(f"unknown key dataset.pairing.{side}{did_you_mean(side, _SIDES)}")
        for side in _SIDES if given else ():
            if not given or side not in given:
                if side == "valid":  # needed only if there are valid files
                    continue
                raise ConfigError(
                    f"dataset.pairing.{side} is missing; give one for images and one for masks"
                )
            try:
                self.expressions[side] = re.compile(given[side])
            except re.error as error:
                raise ConfigError(
                    f"dataset.pairing.{side}={given[side]!r} is not a regular expression: {error}"
                ) from None

    def keys(self, files: FoundFiles, side: str) -> Keyed:
        """Group files by the part of their path that the expression selects.

        Files that it does not match are left out.

        Args:
            files: The files.
            side: ``images``, ``masks`` or ``valid``.

        Raises:
            ConfigError: When there is no expression for the side.
            DataError: When the expression matches no file.
        """
        if side not in self.expressions:
            raise ConfigError(
                f"dataset.pairing.{side} is missing; give one for images, masks and valid"
            )
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
            raise DataError(
                f"dataset.pairing.{side}={expression.pattern!r} matches none of {len(files)} files,"
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
) -> Pairs:
    """Pair image and mask files.

    Args:
        images: Image files, as from :func:`find_files`.
        masks: Mask files.
        where: The config key of the split, for messages.
        pairing: The part of a path that must agree.
        partial: Whether images without a mask are allowed.
        names: The samples to pair; files of other samples need no partner. None: all samples.

    Raises:
        DataError: When no files pair, a name does not exist, or an image is its own mask.
    """
    chosen = None if names is None else names.chosen
    keyed = _keyed(images, masks, pairing, "masks")
    best = _best(_match(*sides, chosen, partial=partial) for sides in keyed)
    if names is not None:
        names.check(best.known)
    return _result(best, where, "mask", images, masks)


def pair_valid_files(
    images: FoundFiles,
    valid: FoundFiles,
    where: str,
    pairing: Pairing,
    wanted: Collection[Path] | None = None,
) -> Pairs:
    """Pair image files and the files of the pixels that count.

    Args:
        images: Image files, as from :func:`find_files`.
        valid: Valid files.
        where: The config key of the split, for messages.
        pairing: The part of a path that must agree.
        wanted: The images that need a valid file; files of other images are not used. None: every
            image needs a valid file, and every valid file an image.

    Raises:
        DataError: When no files pair.
    """

    def chosen(keys: Keyed) -> Collection[str] | None:
        if wanted is None:
            return None
        return {key for key, files in keys.items() if any(file in wanted for file in files)}

    keyed = _keyed(images, valid, pairing, "valid")
    best = _best(_match(*sides, chosen(sides[0]), partial=False) for sides in keyed)
    return _result(best, where, "valid file", images, valid)


def _keyed(
    images: FoundFiles, others: FoundFiles, pairing: Pairing, side: str
) -> Iterator[tuple[Keyed, Keyed, str]]:
    """Yield images and other files, grouped by the part of their name that must agree, per rule."""
    if pairing.expressions:
        yield pairing.keys(images, "images"), pairing.keys(others, side), "dataset.pairing"
        return
    sides: list[dict[Path, str]] = [images, others]
    if len(images.locations) == len(others.locations) > 1:
        sides = [images.by_location(), others.by_location()]
    for files, place in ((sides, ""), (_without_shared_folders(*sides), " below shared folders")):
        for group, rule in _RULES:
            if group is _without_shared_ending and _numbers_differ(
                *(_shared_ending(stems.values()) for stems in files)
            ):
                continue
            named = f"{rule}{place}" if rule else f"names{place}" if place else ""
            yield group(files[0]), group(files[1]), named


class _Match(NamedTuple):
    """The result of one rule: files by name, those without exactly one partner, and all names."""

    images: Keyed
    others: Keyed
    problems: dict[str, list[Path]]
    known: set[str]
    num_missing: int
    rule: str

    @property
    def num_problems(self) -> int:
        return sum(map(len, self.problems.values())) + self.num_missing


def _match(
    images: Keyed, others: Keyed, rule: str, chosen: Collection[str] | None, *, partial: bool
) -> _Match:
    """Match the files with one of the names `chosen`; None: all files."""
    known = images.keys() | others.keys()
    missing = 0
    if chosen is not None:
        missing = len({*chosen} - known)
        images, others = (
            {key: keyed[key] for key in keyed if key in chosen} for keyed in (images, others)
        )
    problems = _unpaired(images, others, partial=partial)
    return _Match(images, others, problems, known, missing, rule)


def _best(matches: Iterable[_Match]) -> _Match:
    """Return the first match without a problem, or the one with the fewest."""
    tried = []
    for match in matches:
        if not match.num_problems:
            return match
        tried.append(match)
    return min(tried, key=lambda match: match.num_problems)


def _result(match: _Match, where: str, kind: str, found: FoundFiles, partners: FoundFiles) -> Pairs:
    images, others = match.images, match.others
    both = sorted(images.keys() & others.keys())
    single = [key for key in both if len(images[key]) == len(others[key]) == 1]
    triples = [(images[key][0], others[key][0], key) for key in single]
    _check_differ(triples, where, kind)
    if not match.problems:
        return Pairs(triples, match.rule, {}, {}, None)
    ready = pairing_advice(found, partners, len(triples), where, kind)
    error = DataError(f"{where}: {_describe(match.problems, kind)}; {ready}")
    if not triples:
        raise error
    texts = {
        _NO_PARTNER: f"the image has no {kind}",
        _NO_IMAGE: f"the {kind} has no image",
        _TWICE: "the name without extension is not unique",
    }
    unpaired, twice = (
        {file: texts[problem] for problem in problems for file in match.problems.get(problem, ())}
        for problems in ((_NO_PARTNER, _NO_IMAGE), (_TWICE,))
    )
    return Pairs(triples, match.rule, unpaired, twice, error)


def _check_differ(triples: Sequence[Triple], where: str, kind: str) -> None:
    """Refuse images that are their own masks; links are looked for in the first pairs only."""
    for number, (image, other, _) in enumerate(triples):
        if image == other or (number < _SHOWN and _is_same_file(image, other)):
            key = "masks" if kind == "mask" else "valid"
            raise DataError(
                f"{where}: the image {image} is its own {kind}; set {where}.images and"
                f" {where}.{key} to different files"
            )


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # in an archive
        return False


def _whole(files: dict[Path, str]) -> Keyed:
    return _group(files, lambda stem: stem)


def _without_known_ending(files: dict[Path, str]) -> Keyed:
    return _group(files, lambda stem: _KNOWN_ENDING.sub("", stem))


def _without_shared_ending(files: dict[Path, str]) -> Keyed:
    ending = _shared_ending(files.values())
    return _group(files, lambda stem: stem.removesuffix(ending))


def _without_channel(files: dict[Path, str]) -> Keyed:
    is_shared = all(stem.endswith(FIRST_CHANNEL) for stem in files.values())
    return _group(files, lambda stem: stem.removesuffix(FIRST_CHANNEL) if is_shared else stem)


def _shared_ending(stems: Collection[str]) -> str:
    """Return the last words of stems if all share them; empty for one file.

    A word without letters is never taken off, because it may number what must agree.
    """
    words = [re.split(r"(?=[_\-. ])", stem)[::-1] for stem in stems]
    shared = takewhile(
        lambda column: len(set(column)) == 1 and any(map(str.isalpha, column[0])),
        zip(*words, strict=False),
    )
    return "".join(column[0] for column in reversed(list(shared))) if len(words) > 1 else ""


def _numbers_differ(one: str, other: str) -> bool:
    """Whether both texts have numbers, and not the same ones."""
    numbers = [re.findall(r"\d+", text) for text in (one, other)]
    return all(numbers) and numbers[0] != numbers[1]


_RULES: tuple[tuple[Callable[[dict[Path, str]], Keyed], str], ...] = (
    (_whole, ""),
    (_without_known_ending, "names without endings such as _mask"),
    (_without_shared_ending, "names without the ending that all share"),
    (_without_channel, f"names without the ending {FIRST_CHANNEL}"),
)


def _without_shared_folders(*sides: dict[Path, str]) -> list[dict[Path, str]]:
    """Remove the first folders of the stems if all files of one side share them.

    They stay if both sides have numbers in them and the numbers differ.
    """
    shared = [_shared_folders(stems.values()) for stems in sides]
    if _numbers_differ(*("/".join(folders) for folders in shared)):
        return [*sides]
    return [
        {path: "/".join(stem.split("/")[len(folders) :]) for path, stem in stems.items()}
        for stems, folders in zip(sides, shared, strict=True)
    ]


def _shared_folders(stems: Iterable[str]) -> list[str]:
    folders = [stem.split("/")[:-1] for stem in stems]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*folders, strict=False))
    return [column[0] for column in shared]


def _group(files: dict[Path, str], key: Callable[[str], str]) -> Keyed:
    grouped: Keyed = defaultdict(list)
    for path, stem in files.items():
        grouped[key(stem)].append(path)
    return dict(grouped)


def _unpaired(images: Keyed, others: Keyed, *, partial: bool) -> dict[str, list[Path]]:
    """Return the files without exactly one partner, grouped by problem."""
    twice = {
        path
        for side in (images, others)
        for paths in side.values()
        if len(paths) > 1
        for path in paths
    }
    lonely = [path for key in images.keys() - others.keys() for path in images[key]]
    no_image = [path for key in others.keys() - images.keys() for path in others[key]]
    groups = {_NO_PARTNER: [] if partial else lonely, _NO_IMAGE: no_image, _TWICE: [*twice]}
    return {problem: sorted(files) for problem, files in groups.items() if files}


def _describe(groups: Mapping[str, Sequence[Path]], kind: str) -> str:
    texts = {
        _NO_PARTNER: f"image files have no {kind}",
        _NO_IMAGE: f"{kind.removesuffix(' file')} files have no image",
        _TWICE: "files have a name without extension that is not unique",
    }
    parts = [f"{len(files)} {texts[problem]} ({_list(files)})" for problem, files in groups.items()]
    return ", ".join(parts)


def _list(files: Sequence[Path]) -> str:
    shown = ", ".join(str(path) for path in files[:_MAX_FILES])
    return f"{shown}, ..." if len(files) > _MAX_FILES else shown
