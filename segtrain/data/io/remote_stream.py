"""The bytes at a URL as chunks, with a bound on the time that a server may send nothing."""

from __future__ import annotations

import importlib
import queue
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urlsplit

from segtrain.version import __version__

WEB = ("http", "https")
_CHUNK = 1 << 20
# A store is read in requests of this size. Until one is complete there is no sign of progress, and
# the default of s3fs, 50 MiB, would take longer than the bound on a slow line.
_REQUEST = 4 << 20
_READ_AHEAD = 4  # chunks
_POLL = 0.5  # seconds


class StreamError(Exception):
    """Reading failed; the cause is the error of the library."""


@contextmanager
def open_chunks(url: str, timeout: float) -> Iterator[tuple[int | None, Iterator[bytes]]]:
    """Return the number of bytes at a URL, None if the server does not state it, and the chunks.

    A thread reads, because only some of the libraries have a timeout, and most repeat a request
    several times before they report anything. A thread that hangs is left behind; it does not keep
    the process from ending.

    Args:
        url: The URL.
        timeout: Seconds without a byte after which reading fails.

    Raises:
        StreamError: When reading fails, here and while the chunks are read.
    """
    channel = _Channel(timeout)
    threading.Thread(target=_read, args=(url, timeout, channel), daemon=True, name="fetch").start()
    try:
        yield channel.get(), iter(channel.get, b"")
    finally:
        channel.is_closed = True


class _Channel:
    """Passes on what a thread reads: the number of bytes, the chunks, and at the end b"".

    An error may come in place of each of them.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.is_closed = False
        self._items: queue.Queue[Any] = queue.Queue(_READ_AHEAD)

    def get(self) -> Any:
        try:
            item = self._items.get(timeout=self.timeout)
        except queue.Empty:
            raise StreamError from TimeoutError(f"no data for {self.timeout:g} s")
        if isinstance(item, BaseException):
            raise StreamError from item
        return item

    def put(self, item: object) -> bool:
        """Pass on an item; False if nothing is read any more."""
        while not self.is_closed:
            try:
                self._items.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return True
        return False


def _read(url: str, timeout: float, channel: _Channel) -> None:
    try:
        with _open(url, timeout) as (source, size):
            channel.put(size)
            while channel.put(chunk := source.read(_CHUNK)) and chunk:
                pass
    except BaseException as error:  # noqa: BLE001  raised again in the thread that reads the chunks
        channel.put(error)


@contextmanager
def _open(url: str, timeout: float) -> Iterator[tuple[IO[bytes], int | None]]:
    """Open the stream of bytes at `url`; also return their number, or None."""
    if urlsplit(url).scheme.lower() in WEB:
        request = urllib.request.Request(url, headers={"User-Agent": f"segtrain/{__version__}"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            size = answer.headers.get("Content-Length")
            yield answer, None if size is None else int(size)
        return
    fsspec = importlib.import_module("fsspec")
    # A forked process must not use the connections of its parent. fsspec knows a store by process
    # and thread, so this makes one of its own.
    store, path = fsspec.core.url_to_fs(url)
    with store.open(path, "rb", block_size=_REQUEST) as stream:
        yield stream, stream.size
