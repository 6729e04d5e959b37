"""Bytes from a URL, asked for again while there is hope."""

from __future__ import annotations

import http.client
import importlib
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol
from urllib.parse import urlsplit, urlunsplit

from segtrain.errors import ConfigError, DataError
from segtrain.version import __version__

WEB = ("http", "https")
# Read through fsspec, whose plug-in for each is a package of its own. A closed list: a URL stands
# in a configuration, and what it makes the program do should be no more than fetching.
STORES = ("s3", "gs", "gcs", "az", "abfs", "hf")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another the next time


class GoneError(DataError):
    """The server says that there is no such file."""


def is_url(place: str) -> bool:
    """Whether `place` is a URL; a path with a drive letter is none."""
    return _SCHEME.match(place) is not None


def check_url(url: str, where: str) -> None:
    """Refuse what would not be fetched.

    Raises:
        ConfigError: When its scheme is not among those allowed; ``pipe:`` would run a command.
    """
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if scheme in (*WEB, *STORES) and url[len(scheme) + 1 :].startswith("//"):
        return
    why = "would run a shell command" if scheme == "pipe" else "is no URL that is read here"
    raise ConfigError(
        f"{where}: {url!r} {why}; give a path, or a URL that starts with"
        f" {', '.join(f'{name}://' for name in (*WEB, *STORES))}"
    )


def shown(url: str) -> str:
    """A URL for messages, without password and signature."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "...=" if parts.query else "", ""))


class Target(Protocol):
    """What :func:`fetch` writes to."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`."""


def fetch(url: str, start: Callable[[int | None], Target]) -> None:
    """Write what is at `url`, asking again when the connection fails.

    Args:
        url: Where.
        start: Gives the stream to write to from its start, once for every attempt; it is told the
            number of bytes that will come, where the server says it.

    Raises:
        DataError: When it cannot be had; :class:`GoneError` when it is not there.
    """
    for pause in (*_PAUSES, None):
        try:
            _fetch_once(url, start)
        except (OSError, http.client.HTTPException) as error:
            final = not _may_pass(error)
            if pause is None or final:
                raise _explained(url, error, 1 if final else len(_PAUSES) + 1) from error
            time.sleep(pause)
        else:
            return


def _fetch_once(url: str, start: Callable[[int | None], Target]) -> None:
    with _open(url) as (source, size):
        target = start(size)
        got = 0
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            got += len(chunk)
    if size is not None and got != size:
        raise _CutShortError(f"{got} of {size} bytes came")


class _CutShortError(OSError):
    """A connection that ended early."""


@contextmanager
def _open(url: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """The bytes at `url` and their number."""
    if urlsplit(url).scheme.lower() in WEB:
        request = urllib.request.Request(url, headers={"User-Agent": f"segtrain/{__version__}"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            size = answer.headers.get("Content-Length")
            yield answer, None if size is None else int(size)
        return
    fsspec = importlib.import_module("fsspec")
    try:
        store, path = fsspec.core.url_to_fs(url)
        with store.open(path, "rb") as stream:
            yield stream, stream.size
    except ImportError as error:
        raise ConfigError(f"{shown(url)} cannot be read: {error}") from None


def _may_pass(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING
    return not isinstance(error, (FileNotFoundError, PermissionError))


def _explained(url: str, error: Exception, attempts: int) -> DataError:
    missing = isinstance(error, FileNotFoundError)
    if isinstance(error, urllib.error.HTTPError):
        missing = error.code in (404, 410)
        reason = f"the server answers {error.code} {error.reason}"
    else:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    advice = (
        "check the name"
        if missing
        else "check the connection, the server and what it lets you read, and start again"
    )
    text = f"{shown(url)} cannot be fetched{tried}: {reason}; {advice}"
    return GoneError(text) if missing else DataError(text)
