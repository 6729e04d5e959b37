"""Keep the arrays that were decoded last, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray


class RecentArrays:
    """The arrays that were used last; each is decoded once, whatever the number of threads.

    An array that cannot be decoded is not tried again: its error is kept, and raised each time.

    Args:
        max_bytes: Limit of the bytes of all arrays. The array that was used last always stays.

    Example:
        >>> import numpy as np
        >>> recent = RecentArrays(max_bytes=16)
        >>> for key in "aab":
        ...     _ = recent.get(key, lambda: print("decoded") or np.zeros(2))
        decoded
        decoded
        >>> recent.keys()
        ['b']
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Future[NDArray[Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def keys(self) -> list[Hashable]:
        """Return the keys of the arrays, the one that was used last at the end."""
        return list(self._entries)

    def get(self, key: Hashable, decode: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the array of `key`; `decode` returns it if it is not known."""
        with self._lock:
            is_new = key not in self._entries
            entry = self._entries.setdefault(key, Future())
            self._entries.move_to_end(key)
        if is_new:
            try:
                entry.set_result(decode())
            except BaseException as error:
                entry.set_exception(error)
                raise
            self._drop_oldest()
        return entry.result()

    def _drop_oldest(self) -> None:
        with self._lock:
            sizes = {
                key: entry.result().nbytes
                for key, entry in self._entries.items()
                if entry.done() and entry.exception() is None
            }
            excess = sum(sizes.values()) - self.max_bytes
            for key, size in list(sizes.items())[:-1]:
                if excess <= 0:
                    return
                del self._entries[key]
                excess -= size
