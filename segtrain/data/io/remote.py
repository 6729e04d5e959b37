"""Fetch the bytes at a URL; requests that fail are repeated."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from segtrain.data.io.remote_errors import Kind, Problem, problem_of
from segtrain.data.io.remote_stream import WEB, StreamError, open_chunks
from segtrain.errors import ConfigError, DataError, printable
from segtrain.terminal import logger

# Schemes that fsspec reads, each through a package of its own. The list is closed, because a URL in
# a configuration must not make the program do anything but fetch.
STORES = (
    "s3", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "webhdfs", "ssh", "sftp", "oss", "oci", "hf",
)  # fmt: skip
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]+://[^\s\"'<>()\[\]]+", re.IGNORECASE)
_TIMEOUT = 30.0  # seconds without a byte
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or, if the bucket is"
    " public, FSSPEC_S3_ANON=true",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "gcs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "abfs": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "abfss": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "hf": "set HF_TOKEN",
    "ssh": "name the user in the URL, and add the key to ssh-agent",
    "sftp": "name the user in the URL, and add the key to ssh-agent",
}


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

    A line is logged for each attempt that fails and is repeated.

    Args:
        url: The URL.
        start: Returns the stream to write to. It is called at the start of each attempt, with the
            number of bytes if the server states it, else None.

    Raises:
        ConfigError: When a package is missing, or the name or the configuration of the store is
            wrong.
        DataError: When the bytes cannot be fetched; :class:`GoneError` when the file does not
            exist.
    """
    attempts = len(_PAUSES) + 1
    for attempt, pause in enumerate((*_PAUSES, None), 1):
        try:
            return _fetch_once(url, start)
        except StreamError as error:
            problem = problem_of(error.__cause__ or error)
            if pause is None or problem.kind is not Kind.TEMPORARY:
                raise _explained(url, problem, attempt) from error.__cause__
        logger.warning(
            "%s: attempt %d of %d failed (%s); the next one starts in %g s",
            shown(url), attempt, attempts, _without_secrets(problem.reason), pause,
        )  # fmt: skip
        time.sleep(pause)
    raise AssertionError


def _fetch_once(url: str, start: Callable[[int | None], Target]) -> None:
    with open_chunks(url, _TIMEOUT) as (size, chunks):
        target = start(size)
        got = 0
        for chunk in chunks:
            target.write(chunk)
            got += len(chunk)
    if size is not None and got != size:
        raise StreamError from ConnectionError(f"{got} of {size} bytes arrived")


def _explained(url: str, problem: Problem, attempts: int) -> ConfigError | DataError:
    """Return the error for the user: what failed, why, and what to do."""
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    text = f"{shown(url)} cannot be fetched{tried}: {_without_secrets(problem.reason)}"
    scheme, bucket = urlsplit(url).scheme.lower(), urlsplit(url).netloc.rpartition("@")[2]
    advice = {
        Kind.MISSING: "check the name",
        Kind.NO_BUCKET: f"check the name {bucket!r} and, for a server of your own, its address",
        Kind.NO_CREDENTIALS: _CREDENTIALS.get(scheme, "check your user name and password"),
        Kind.DENIED: "check the name and your access rights",
        Kind.SETTINGS: "check the name, the installed packages and the settings of the store",
    }.get(problem.kind, "check the connection, the server and your access rights, and start again")
    if problem.kind is Kind.SETTINGS:
        return ConfigError(f"{text}; {advice}")
    return (GoneError if problem.kind is Kind.MISSING else DataError)(f"{text}; {advice}")


def _without_secrets(text: str) -> str:
    """Return the message of a library without the passwords and signatures of its URLs."""
    return printable(_URL_IN_TEXT.sub(lambda match: shown(match[0]), text))
