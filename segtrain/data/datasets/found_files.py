"""Find image, mask and valid files in directories, by globs and in archives."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from segtrain.data.io.storage import find, is_directory, is_file, kind_of, list_names, walk
from segtrain.errors import DataError, NoFilesError

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif", ".npy",
     ".jp2", ".npz")
)  # fmt: skip
MASK_SUFFIXES = IMAGE_SUFFIXES | {".mat"}
_MAX_NAMES = 6

Location = str | Sequence[str]


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
