"""Full and read-only volumes: found before something is written, and said in one sentence."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO

from segtrain.errors import ResourceError

_MB = 1e6


class RecordedErrors:
    """A binary stream that remembers the first error of the disk.

    Args:
        stream: The stream that is written.

    Attributes:
        error: The first error; None if there was none.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write to the stream."""
        try:
            return self._stream.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def check_free_space(path: Path, needed: int) -> None:
    """Check that a file of `needed` bytes fits on the volume of `path`.

    Raises:
        ResourceError: When it does not.
    """
    try:
        free = shutil.disk_usage(existing_folder(path)).free
    except OSError:  # some network file systems cannot tell
        return
    if needed > free:
        raise no_space(path, needed)


def no_space(path: Path, needed: int, error: OSError | None = None) -> ResourceError:
    """The error for a file that cannot be written: the space it needs, and the space there is."""
    folder = existing_folder(path)
    try:
        free = f"{shutil.disk_usage(folder).free / _MB:.1f} MB are free at {folder}"
    except OSError:
        free = f"the free space at {folder} is unknown"
    reason = "" if error is None else f" ({error.strerror or error})"
    return ResourceError(
        f"{path} cannot be written{reason}: it needs {needed / _MB:.1f} MB, and {free}. The file"
        " saved before is unchanged; free some space and continue with resume=auto"
    )


def existing_folder(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    folder = path.absolute().parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def check_writable(directory: Path, key: str) -> None:
    """Check that files can be written into a directory, which need not exist yet.

    Args:
        directory: The directory.
        key: The key that names it in the configuration, for the message.

    Raises:
        ResourceError: When they cannot.
    """
    folder = directory if directory.is_dir() else existing_folder(directory)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResourceError(
            f"{key}={directory} cannot be written ({error.strerror}); choose another directory"
        ) from error
