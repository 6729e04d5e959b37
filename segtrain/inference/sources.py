"""The inputs of a prediction: files, folders, globs, lists, videos and volumes."""

from __future__ import annotations

import glob
import importlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data.datasets.found_files import (
    IMAGE_SUFFIXES,
    ending,
    list_endings,
    without_ending,
)
from segtrain.data.datasets.slices import slices_of
from segtrain.data.io.nifti import VOLUME_ENDINGS
from segtrain.data.io.storage import find, is_directory, is_file, walk
from segtrain.errors import DataError
from segtrain.terminal import logger

VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4")
LIST_SUFFIX = ".txt"
_SUFFIXES = IMAGE_SUFFIXES | {*VOLUME_ENDINGS, *VIDEO_SUFFIXES}


@dataclass(frozen=True)
class Source:
    """One input: an image, a slice of a volume, or a video.

    Attributes:
        path: The file.
        stem: The name of the files that are written, without ending; the folders below the input
            are kept in it, as in ``a/b/x``.
    """

    path: Path
    stem: str

    @property
    def is_video(self) -> bool:
        """Whether the file is a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_sources(given: str, passed: Sequence[Path] = ()) -> list[Source]:
    """Find the inputs that `given` stands for, sorted by path; those of a list keep its order.

    Args:
        given: An image, a volume or a video; a folder, which is searched with its subfolders; a
            glob, in which ``**`` matches any number of folders; or a ``.txt`` file with one path
            per line, relative to its folder.
        passed: Folders whose files are no inputs, because they hold what a prediction wrote.

    Raises:
        DataError: When there is no input, or two of them would be written to the same file.
    """
    path = Path(given).expanduser()
    if path.suffix.lower() == LIST_SUFFIX and path.is_file():
        found = _listed(path)
    elif is_directory(path):
        found = _in_folder(path, walk(path), given, passed)
    elif is_file(path):
        found = _sources(path, path.parent)
    elif glob.has_magic(given):
        base = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = find(path, base) if is_directory(base) else iter(())
        found = _in_folder(base, matches, given, passed)
    else:
        raise DataError(
            f"input={given}: this file or folder does not exist; give an image, a volume, a video,"
            " a folder, a glob, or a .txt file with one path per line"
        )
    _check_names(found, given)
    return found


def _in_folder(
    base: Path, files: Iterable[Path], given: str, passed: Sequence[Path]
) -> list[Source]:
    """Return the inputs among files below `base`; hidden files and folders are left out."""
    own = [folder.resolve() for folder in passed]
    shown = sorted(
        path
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(base).parts)
        and not any(path.resolve().is_relative_to(folder) for folder in own)
    )
    images = [path for path in shown if ending(path) in _SUFFIXES]
    others = Counter(ending(path) for path in shown if ending(path) not in _SUFFIXES)
    held = list_endings(others) if others else ""
    if not images:
        what = "folder has" if is_directory(Path(given).expanduser()) else "glob matches"
        raise DataError(
            f"input={given}: the {what} no image{f', but {held}' if held else ''}; supported"
            f" endings are {', '.join(sorted(_SUFFIXES))}"
        )
    if held:
        logger.warning("input=%s: files that are no images are passed over: %s", given, held)
    return [source for path in images for source in _sources(path, base)]


def _listed(path: Path) -> list[Source]:
    """Return the inputs of a list; files that do not exist fail when they are read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"input={path}: the list is not a text file in UTF-8") from None
    named = [path.parent / line.strip() for line in lines if line.strip()]
    if not named:
        raise DataError(f"input={path}: the list is empty; write one path per line")
    unknown = next((one for one in named if ending(one) not in _SUFFIXES), None)
    if unknown is not None:
        raise DataError(
            f"input={path}: {unknown} has none of the supported endings,"
            f" {', '.join(sorted(_SUFFIXES))}"
        )
    base = path.parent
    if not all(Path(os.path.normpath(one)).is_relative_to(base) for one in named):
        base = Path(os.path.commonpath([os.path.abspath(one.parent) for one in named]))  # noqa: PTH100  links stay
    return [source for one in named for source in _sources(one, base)]


def _sources(path: Path, base: Path) -> list[Source]:
    """Return the input of a file, or those of the slices of a volume."""
    below = Path(os.path.relpath(path, base))
    slices = slices_of(path)
    if slices:
        return [Source(part, f"{without_ending(below)}_{part.stem}") for part in slices]
    is_video = ending(path) in VIDEO_SUFFIXES
    return [Source(path, below.with_suffix("").as_posix() if is_video else without_ending(below))]


def _check_names(sources: Sequence[Source], given: str) -> None:
    """Refuse two inputs that would be written to the same file."""
    times = Counter(source.stem for source in sources)
    videos = {source.stem for source in sources if source.is_video}
    frames = re.compile(r"(.*)_\d{6}")

    def clashes(source: Source) -> bool:
        frame = frames.fullmatch(source.stem)
        return times[source.stem] > 1 or (frame is not None and frame[1] in videos)

    folders = {str(folder) for source in sources for folder in Path(source.stem).parents}
    for source in sources:
        written = [f"{source.stem}{end}" for end in _WRITTEN if f"{source.stem}{end}" in folders]
        if written:
            raise DataError(
                f"input={given}: {source.path} would be written to {written[0]}, which is the name"
                " of a folder of other inputs; rename one"
            )
    same = [str(source.path) for source in sources if clashes(source)]
    if same:
        shown = " and ".join(same[:2]) if len(same) > 1 else f"{same[0]} and a frame of a video"
        raise DataError(f"input={given}: {shown} would be written to the same file; rename one")


_WRITTEN = (".png", ".tif", ".npy", ".geojson", ".mp4")


class Video:
    """The frames of a video, one at a time; a context manager.

    Attributes:
        num_frames: Number of frames by the header of the file, which may be wrong; at least 1.
        rate: Frames per second.

    Raises:
        DataError: When it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        cv2: Any = importlib.import_module("cv2")
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: the video does not exist")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError(
                f"{path}: the video cannot be read; it is damaged, or OpenCV has no decoder for it,"
                " so convert it to MP4 (H.264)"
            )
        self.num_frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 1)
        self.rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames, ``(H, W, 3)``, red, green, blue.

        Raises:
            DataError: When there is none.
        """
        count = 0
        while True:
            is_there, frame = self._capture.read()
            if not is_there:
                break
            count += 1
            yield np.ascontiguousarray(frame[..., ::-1])
        if not count:
            raise DataError(f"{self.path}: the video has no frame that can be decoded; convert it")
        if count < self.num_frames - 1:  # headers may count one too many
            logger.warning(
                "%s: only %d frames can be decoded, but its header counts %d; the file may be cut",
                *(self.path, count, self.num_frames),
            )

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()
