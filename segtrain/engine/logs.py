"""Logs that cannot be written: one warning, and training goes on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segtrain.terminal import logger


class Logs:
    """The log files of a run that could not be written, each warned about once."""

    def __init__(self) -> None:
        self._failed: set[Path] = set()

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Suppress errors of the disk in this block, and warn of the first one of each file."""
        try:
            yield
        except OSError as error:
            self.warn(path, error)

    def warn(self, path: Path, error: OSError) -> None:
        """Warn that a file cannot be written, unless it was warned about before."""
        if path in self._failed:
            return
        self._failed.add(path)
        logger.warning(
            "%s cannot be written (%s), so it will be incomplete; training goes on",
            path,
            error.strerror or error,
        )


class LogFile(logging.FileHandler):
    """A log file whose errors are reported as those of the other logs."""

    def __init__(self, path: Path, logs: Logs) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._logs = logs

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the name in logging
        """Warn once; other errors are printed as logging does."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._logs.warn(Path(self.baseFilename), error)
        else:
            super().handleError(record)
