"""Errors of libraries that are not installed, as their authors name and fill them."""

import errno
import socket
import ssl
import urllib.error

import pytest

from segtrain.data.io.remote_errors import problem_of


def made(name, *bases, text="", **fields):
    """Return an instance of a class with this name, as another library defines it."""
    error = type(name, bases or (Exception,), {})(text)
    for field, value in fields.items():
        setattr(error, field, value)
    return error


def from_cause(error, cause):
    error.__cause__ = cause
    return error


def client_error(code, status):
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return made("ClientError", text=f"An error occurred ({code})", response=response)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError("reset"), "TEMPORARY"),
        (TimeoutError(), "TEMPORARY"),
        (socket.gaierror(-3, "no name"), "TEMPORARY"),
        (urllib.error.URLError(ConnectionRefusedError("refused")), "TEMPORARY"),
        (made("ClientConnectorError", made("ClientConnectionError").__class__), "TEMPORARY"),
        (made("EndpointConnectionError"), "TEMPORARY"),
        (made("FSTimeoutError", TimeoutError), "TEMPORARY"),
        (made("HttpError", code=503), "TEMPORARY"),
        (made("ClientResponseError", status=429), "TEMPORARY"),
        (made("HttpResponseError", status_code=500), "TEMPORARY"),
        (client_error("SlowDown", 503), "TEMPORARY"),
        (from_cause(OSError(errno.EBUSY, "busy"), client_error("SlowDown", 503)), "TEMPORARY"),
        (OSError("the socket was closed"), "TEMPORARY"),
        (FileNotFoundError("bucket/key"), "MISSING"),
        (made("ResourceNotFoundError", status_code=404, error_code="BlobNotFound"), "MISSING"),
        (client_error("404", 404), "MISSING"),
        (
            from_cause(FileNotFoundError("bucket/key"), client_error("NoSuchBucket", 404)),
            "NO_BUCKET",
        ),
        (
            made("ResourceNotFoundError", status_code=404, error_code="ContainerNotFound"),
            "NO_BUCKET",
        ),
        (made("NoCredentialsError"), "NO_CREDENTIALS"),
        (from_cause(PermissionError("no"), client_error("ExpiredToken", 400)), "NO_CREDENTIALS"),
        (made("DefaultCredentialsError"), "NO_CREDENTIALS"),
        (
            ValueError("Must provide either a connection_string or account_name with it!!"),
            "NO_CREDENTIALS",
        ),
        (made("HttpError", text="Anonymous caller has no access", code=401), "NO_CREDENTIALS"),
        (from_cause(PermissionError("no"), client_error("AccessDenied", 403)), "DENIED"),
        (OSError("Forbidden: https://storage/key"), "DENIED"),
        (ssl.SSLCertVerificationError("self-signed"), "SETTINGS"),
        (urllib.error.URLError(ssl.SSLCertVerificationError("self-signed")), "SETTINGS"),
        (made("ParamValidationError"), "SETTINGS"),
        (ImportError("Install gcsfs"), "SETTINGS"),
        (client_error("InvalidRange", 416), "OTHER"),
        (OSError(errno.EINVAL, "invalid"), "OTHER"),
        (TypeError("unexpected keyword"), "OTHER"),
    ],
)  # fmt: skip
def test_the_kind_of_an_error(error, kind):
    assert problem_of(error).kind.name == kind


def test_an_error_without_text_has_a_reason():
    assert problem_of(made("ServerDisconnectedError", ConnectionError)).reason == (
        "ServerDisconnectedError"
    )
    assert problem_of(TimeoutError()).reason == "the connection timed out"
    assert len(problem_of(made("ParamValidationError", text="x" * 1000)).reason) < 200


def test_errors_that_cause_each_other_end():
    one, other = OSError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    assert problem_of(one).kind.name == "TEMPORARY"
