"""Ask the Hugging Face hub once whether it can be reached; its own client asks again and again."""

from __future__ import annotations

import importlib
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

_TIMEOUT = 5.0  # seconds
_PORTS = {"http": 80, "https": 443}


@contextmanager
def asked_once() -> Iterator[None]:
    """Within the block, read the hub's cache only, if the hub cannot be reached.

    Its own client repeats a request that fails for a minute.
    """
    try:
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not is_reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_reachable(address: str, timeout: float = _TIMEOUT) -> bool:
    """Whether a server accepts connections; true if a proxy is in between, which is not asked.

    Example:
        >>> is_reachable("http://127.0.0.1:9", timeout=0.5)
        False
    """
    parts = urlparse(address)
    if parts.scheme in urllib.request.getproxies():
        return True
    port = parts.port or _PORTS.get(parts.scheme, 443)
    try:
        socket.create_connection((parts.hostname or "", port), timeout).close()
    except OSError:
        return False
    return True
