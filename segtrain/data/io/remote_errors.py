"""What an error of a server or an object store means, whatever library raises it.

The libraries behind fsspec (botocore, aiohttp, gcsfs, adlfs, paramiko, ...) are not imported, and
most are not installed. Their errors are recognised by the names of their classes and by the codes
they carry.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from enum import Enum
from http.client import HTTPException
from typing import Any, NamedTuple

from segtrain.errors import one_line


class Kind(Enum):
    """What an error means for the user."""

    TEMPORARY = "a retry may succeed"
    MISSING = "the file does not exist"
    NO_BUCKET = "the bucket or container does not exist"
    NO_CREDENTIALS = "there are no credentials, or the server does not accept them"
    DENIED = "these credentials give no access"
    SETTINGS = "the name or the configuration of the store is wrong"
    OTHER = "none of these; a retry does not help"


class Problem(NamedTuple):
    """An error of a server.

    Attributes:
        kind: What it means.
        reason: What the server or its library reports, on one line. It may contain URLs.
    """

    kind: Kind
    reason: str


# Names of classes, and error codes of S3 and Azure. A class is recognised by its bases, too.
_NAMES = {
    Kind.TEMPORARY: (
        "ConnectionError", "TimeoutError", "CancelledError", "gaierror", "IncompleteRead",
        "HTTPClientError", "ConnectionClosedError", "EndpointConnectionError",
        "ConnectTimeoutError", "ReadTimeoutError", "ProxyConnectionError",
        "ResponseStreamingError", "IncompleteReadError", "ClientConnectionError",
        "ClientPayloadError", "ServiceRequestError", "ServiceResponseError", "TransportError",
        "ChunkedEncodingError", "SSHException", "EOFError",
        "SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "Throttling",
        "ThrottlingException", "TooManyRequests", "ServerBusy", "OperationTimedOut",
    ),
    Kind.MISSING: (
        "FileNotFoundError", "ResourceNotFoundError", "EntryNotFoundError",
        "NoSuchKey", "BlobNotFound",
    ),
    Kind.NO_BUCKET: (
        "NoSuchBucket", "ContainerNotFound", "RepositoryNotFoundError",
    ),
    Kind.NO_CREDENTIALS: (
        "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
        "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError",
        "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError",
        "CredentialUnavailableError", "AuthenticationException", "LocalTokenNotFoundError",
        "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
        "AuthenticationFailed", "RequestTimeTooSkewed",
    ),
    Kind.DENIED: (
        "PermissionError", "GatedRepoError", "AccessDenied", "AllAccessDisabled",
        "AuthorizationFailure",
    ),
    Kind.SETTINGS: (
        "ImportError", "ParamValidationError", "ProfileNotFound", "NoRegionError",
        "InvalidRegionError", "InvalidProxiesConfigError", "InvalidBucketName",
        "ClientConnectorCertificateError", "SSLCertVerificationError", "BadHostKeyException",
        "InvalidURL", "InvalidUrlClientError",
    ),
}  # fmt: skip
# The most exact kind first: a certificate error is a connection error, too.
_ORDER = (
    Kind.NO_CREDENTIALS, Kind.NO_BUCKET, Kind.SETTINGS, Kind.DENIED, Kind.MISSING, Kind.TEMPORARY,
)  # fmt: skip
# Parts of messages, for errors whose classes are Python's own.
_TEXTS = {
    "must provide either a connection_string or account_name": Kind.NO_CREDENTIALS,  # adlfs
    "anonymous caller": Kind.NO_CREDENTIALS,  # Google Cloud Storage
    "forbidden:": Kind.DENIED,  # gcsfs
    "invalid endpoint": Kind.SETTINGS,  # botocore
    "bucket does not exist": Kind.NO_BUCKET,
}
_STATUSES = {401: Kind.NO_CREDENTIALS, 403: Kind.DENIED, 404: Kind.MISSING, 410: Kind.MISSING}
_TEMPORARY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_FINAL_NUMBERS = (
    errno.EINVAL, errno.ENOSYS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EPERM,
)  # fmt: skip
_LONGEST = 160  # botocore quotes whole regular expressions
_GENERAL = (Kind.MISSING, Kind.DENIED)  # an inner error may be more exact than these


def problem_of(error: BaseException) -> Problem:
    """Classify an error that a request to a server or an object store raised.

    Example:
        >>> problem_of(ConnectionResetError("reset by peer"))
        Problem(kind=<Kind.TEMPORARY: 'a retry may succeed'>, reason='reset by peer')
        >>> problem_of(PermissionError("Access Denied")).kind.name
        'DENIED'
    """
    links = [(link, kind) for link in _links(error) if (kind := _kind(link)) is not None]
    if not links:
        return Problem(_kind_of_other(error), _reason(error))
    found, kind = links[0]
    if kind in _GENERAL:
        exact = (Kind.NO_CREDENTIALS, Kind.NO_BUCKET)
        found, kind = next((link for link in links if link[1] in exact), (found, kind))
    return Problem(kind, _reason(found))


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then the errors that it was made from."""
    seen: list[BaseException] = []
    following: object = error
    while isinstance(following, BaseException) and following not in seen:
        seen.append(following)
        yield following
        reason = getattr(following, "reason", None)  # of an urllib.error.URLError
        context = None if following.__suppress_context__ else following.__context__
        following = reason if isinstance(reason, BaseException) else following.__cause__ or context


def _kind(error: BaseException) -> Kind | None:
    """Return what one error means by itself; None: that cannot be told."""
    names = {base.__name__ for base in type(error).__mro__} | {_code(error)}
    for kind in _ORDER:
        if names.intersection(_NAMES[kind]):
            return kind
    text = str(error).lower()
    for part, kind in _TEXTS.items():
        if part in text:
            return kind
    status = _status(error)
    if status is None:
        return None
    temporary = Kind.TEMPORARY if status in _TEMPORARY_STATUSES else Kind.OTHER
    return _STATUSES.get(status, temporary) if status >= 400 else None


def _kind_of_other(error: BaseException) -> Kind:
    """Return what an error means that has neither a name nor a code that is known."""
    final = isinstance(error, OSError) and error.errno in _FINAL_NUMBERS
    temporary = isinstance(error, (OSError, HTTPException)) and not final
    return Kind.TEMPORARY if temporary else Kind.OTHER


def _code(error: BaseException) -> str:
    """Return the error code of S3 or Azure."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return str(getattr(error, "error_code", None) or "")


def _status(error: BaseException) -> int | None:
    """Return the status code of HTTP, as the libraries store it."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        values = [response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    else:
        values = [getattr(error, name, None) for name in ("code", "status", "status_code")]
        values.append(getattr(response, "status_code", None))
    return next((int(value) for value in values if _is_status(value)), None)


def _is_status(value: object) -> bool:
    return str(value).isdigit() and 100 <= int(str(value)) < 600


def _reason(error: BaseException) -> str:
    status = getattr(error, "code", None)
    if type(error).__name__ == "HTTPError" and status is not None:
        return f"the server answers {status} {getattr(error, 'reason', '')}".rstrip()
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = one_line(getattr(error, "reason", None) or error, _LONGEST)
    if not text and isinstance(error, TimeoutError):
        return "the connection timed out"
    return text or type(error).__name__
