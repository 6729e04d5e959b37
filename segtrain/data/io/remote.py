"""Fetch the bytes at a URL; requests that fail are repeated."""

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

from segtrain.errors import ConfigError, DataError, one_line
from segtrain.version import __version__

WEB = ("http", "https")
# Schemes that fsspec reads, each through a package of its own. The list is closed, because a URL in
# a configuration must not make the program do anything but fetch.
STORES = ("s3", "gs", "gcs", "az", "abfs", "hf")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # status codes after which a retry may succeed


class GoneError(DataError):
    """The file does not exist on the server."""


def is_url(location: str) -> bool:
    """Whether `location` is a URL; a path with a drive letter is not."""
    return _SCHEME.match(location) is not None


def check_url(url: str, where: str) -> None:
    """Check that the scheme of a URL is allowed.

    Args:
        url: The URL.
        where: The configuration key that holds it, for the message.

    Raises:
        ConfigError: When it is not; ``pipe:`` for example would run a command.
    """
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if scheme in (*WEB, *STORES) and url[len(scheme) + 1 :].startswith("//"):
        return
    why = "would run a shell command" if scheme == "pipe" else "is not a URL that is read here"
    raise ConfigError(
        f"{where}: {url!r} {why}; give a path, or a URL that starts with"
        f" {', '.join(f'{name}://' for name in (*WEB, *STORES))}"
    )


def shown(url: str) -> str:
    """Return a URL as messages show it, without password and signature; a path as it is."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "...=" if parts.query else "", ""))


class Target(Protocol):
    """A stream that :func:`fetch` writes to."""

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""


def fetch(url: str, start: Callable[[int | None], Target]) -> None:
    """Fetch the bytes at `url`, with several attempts if the connection fails.

    Args:
        url: The URL.
        start: Returns the stream to write to. It is called at the start of each attempt, with the
            number of bytes if the server states it, else None.

    Raises:
        DataError: When the bytes cannot be fetched; :class:`GoneError` when the file does not
            exist.
    """
    for pause in (*_PAUSES, None):
        try:
            _fetch_once(url, start)
        except (OSError, http.client.HTTPException) as error:
            final = not _is_temporary(error)
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
        raise _CutShortError(f"{got} of {size} bytes arrived")


class _CutShortError(OSError):
    """A connection that ended early."""


@contextmanager
def _open(url: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """Open the stream of bytes at `url`; also return their number, or None."""
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


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _TEMPORARY
    return not isinstance(error, (FileNotFoundError, PermissionError))


def _explained(url: str, error: Exception, attempts: int) -> DataError:
    missing = isinstance(error, FileNotFoundError)
    if isinstance(error, urllib.error.HTTPError):
        missing = error.code in (404, 410)
        reason = f"the server answers {error.code} {error.reason}"
    else:
        reason = one_line(getattr(error, "reason", error)) or type(error).__name__
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    advice = (
        "check the name"
        if missing
        else "check the connection, the server and your access rights, and start again"
    )
    text = f"{shown(url)} cannot be fetched{tried}: {reason}; {advice}"
    return GoneError(text) if missing else DataError(text)
