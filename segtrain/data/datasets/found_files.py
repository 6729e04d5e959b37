"""Find image, mask and valid files in directories, by globs and in archives."""

from __future__ import annotations

import glob
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePath
from types import MappingProxyType

from segtrain.data.io.dicom import DICOM_ENDINGS, START, is_dicom
from segtrain.data.io.nifti import VOLUME_ENDINGS
from segtrain.data.io.storage import (
    find,
    is_directory,
    is_file,
    kind_of,
    list_names,
    open_file,
    walk,
)
from segtrain.data.labels.wording import in_words
from segtrain.errors import DataError, NoFilesError

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif",
     ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".gif", ".jp2", ".j2k", ".npy",
     ".npz", *DICOM_ENDINGS)
)  # fmt: skip
MASK_SUFFIXES = IMAGE_SUFFIXES | {".mat", *VOLUME_ENDINGS}
_MAX_NAMES = 6

Location = str | Sequence[str]


class FoundFiles(dict[Path, str]):
    """Files, each with its stem: the path without extension relative to the searched folder.

    Args:
        root: The path that regular expressions are matched relative to.
        locations: The files of each directory or glob.
        passed_over: The number of other files there, by ending.
    """

    def __init__(
        self,
        root: Path,
        locations: Sequence[Mapping[Path, str]],
        passed_over: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        super().__init__({path: stem for files in locations for path, stem in files.items()})
        self.root, self.locations, self.passed_over = root, locations, passed_over

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
    given = [location] if isinstance(location, str) else location
    others: Counter[str] = Counter()
    found = [
        _find_in(root, one, where if isinstance(location, str) else f"{where}[{number}]", others)
        for number, one in enumerate(given)
    ]
    return FoundFiles(root, found, others)


def _find_in(root: Path, pattern: str, where: str, others: Counter[str]) -> dict[Path, str]:
    given = Path(pattern).expanduser()
    path = root / given
    if is_directory(path) or not glob.has_magic(str(given)):
        base, found = path, walk(path) if is_directory(path) else iter(())
    else:  # the root is no part of the glob, so it may have brackets in its name
        base = root / Path(*takewhile(lambda part: not glob.has_magic(part), given.parts))
        found = find(path, base) if is_directory(base) else iter(())
    files = sorted(_images(found, where, others))
    if not files:
        if not is_directory(root) and not given.is_absolute():
            raise NoFilesError(
                f"dataset.root={root} is neither a directory nor a zip or tar archive; set it to"
                f" the one that {where}={pattern} is in"
            )
        holds_none = is_directory(base)
        problem = f"{path} holds no image files" if holds_none else f"{base} is not a directory"
        held = f" ({list_endings(others)})" if holds_none and others else ""
        raise NoFilesError(
            f"{where}={pattern}: {problem}{held}; give a directory or a glob, absolute or relative"
            f" to dataset.root={root}, which holds {_listed_names(root)}"
        )
    return {path: _stem(path.relative_to(base)) for path in files}


def _stem(path: PurePath) -> str:
    """The name that files pair by; two Unicode forms of one text are the same."""
    return unicodedata.normalize("NFC", without_ending(path))


def ending(path: PurePath) -> str:
    """Return the suffix of a file in lower case; ``.nii.gz`` is one suffix.

    Example:
        >>> ending(PurePath("case_1.NII.GZ")), ending(PurePath("a.tar.gz"))
        ('.nii.gz', '.gz')
    """
    known = (volume for volume in VOLUME_ENDINGS if path.name.lower().endswith(volume))
    return next(known, path.suffix.lower())


def without_ending(path: PurePath) -> str:
    """Return a path without the suffix of an image or a mask, with ``/`` between its parts.

    Example:
        >>> without_ending(PurePath("a/case_1.nii.gz")), without_ending(PurePath("a/1.2.840.5"))
        ('a/case_1', 'a/1.2.840.5')
    """
    suffix = ending(path)
    return path.as_posix()[: -len(suffix)] if suffix in MASK_SUFFIXES else path.as_posix()


def list_endings(counts: Mapping[str, int]) -> str:
    """Return the numbers of files by ending, in words.

    Example:
        >>> list_endings({".txt": 3, "": 1})
        '3 .txt and 1 without ending'
    """
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return in_words(f"{number} {ending or 'without ending'}" for ending, number in most)


def _listed_names(root: Path) -> str:
    names = list_names(root)
    more = ", ..." if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more if names else "nothing"


def _images(found: Iterable[Path], where: str, others: Counter[str]) -> Iterator[Path]:
    for path in found:
        if path.name.startswith("."):
            continue
        if ending(path) not in MASK_SUFFIXES and not _is_bare_dicom(path):
            others[ending(path)] += 1
            continue
        if not is_file(path):
            raise DataError(f"{where}: {path} is {kind_of(path)}, not a file; remove it")
        yield path


def _is_bare_dicom(path: Path) -> bool:
    """Whether a file without a suffix is a DICOM file; its name may be numbers with dots, a UID.

    ``DICOMDIR``, the table of contents of a disc, has no image.
    """
    has_suffix = path.suffix and not path.suffix[1:].isdigit()
    if has_suffix or path.name == "DICOMDIR":
        return False
    try:
        with open_file(path) as stream:
            return is_dicom(stream.read(START))
    except OSError:
        return False
