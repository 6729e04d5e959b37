"""Messages to a server, sent by a thread so that training does not wait for the server."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from segtrain.errors import describe_error
from segtrain.terminal import logger

_LARGEST = 10_000  # messages that wait, while a server does not answer


class Sender:
    """Calls functions in order, in a thread of its own, and warns once when they fail.

    Args:
        name: The name of the logger, for messages.
        connect: Called first; when it fails, nothing else is called.

    Example:
        >>> sent = []
        >>> sender = Sender("mine", lambda: sent.append("hello"))
        >>> sender.send(lambda: sent.append("loss 0.5"))
        >>> sender.close(seconds=10)
        True
        >>> sent
        ['hello', 'loss 0.5']
    """

    def __init__(self, name: str, connect: Callable[[], None]) -> None:
        self.name = name
        self.lost = 0
        self._connected: bool | None = None  # None: not yet known
        self._answered = threading.Event()
        self._messages: queue.Queue[Callable[[], object] | None] = queue.Queue(_LARGEST)
        self._has_failed = self._is_closed = False
        # A daemon does not keep a process alive that waits for a server that hangs.
        self._thread = threading.Thread(target=self._work, args=(connect,), daemon=True)
        self._thread.start()

    def is_connected(self, seconds: float) -> bool | None:
        """Whether `connect` succeeded; None if it takes longer than `seconds`."""
        self._answered.wait(seconds)
        return self._connected

    def send(self, message: Callable[[], object]) -> None:
        """Call `message` in the thread, after those before it; never wait."""
        try:
            self._messages.put_nowait(message)
        except queue.Full:
            self.lost += 1

    def close(self, seconds: float) -> bool:
        """Wait until all messages are sent, for at most `seconds`; return whether they are.

        Otherwise it warns.
        """
        until = time.monotonic() + seconds
        try:
            self._messages.put(None, timeout=seconds)
        except queue.Full:
            pass
        else:
            self._thread.join(max(until - time.monotonic(), 0))
        self._is_closed = True
        text = "%s: %s; unsent messages: %d; metrics.jsonl has all values"
        if self._thread.is_alive():
            lost = self.lost + self._messages.qsize()
            logger.warning(text, self.name, "the server does not answer", lost)
        elif self._connected and self.lost:
            logger.warning(text, self.name, "the server did not take everything", self.lost)
        return not self._thread.is_alive() and not self.lost

    def _work(self, connect: Callable[[], None]) -> None:
        try:
            connect()
            self._connected = True
        except Exception as error:  # noqa: BLE001  any error of the logger's package
            self._connected = False
            text = "%s: nothing is logged there (%s); training goes on, and metrics.jsonl has all"
            logger.warning(f"{text} values", self.name, describe_error(error))
        self._answered.set()
        while (message := self._messages.get()) is not None:
            if self._connected:
                self._call(message)

    def _call(self, message: Callable[[], object]) -> None:
        try:
            message()
        except Exception as error:  # noqa: BLE001  any error of the logger's package
            self.lost += 1
            if not self._has_failed and not self._is_closed:
                text = "%s: a message could not be sent (%s); training goes on"
                logger.warning(text, self.name, describe_error(error))
            self._has_failed = True
