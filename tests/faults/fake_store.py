"""A plugin: an object store for ``gs://`` in a local folder, which fails as a real one does.

The environment variable FAKE_STORE names the folder. The file ``fault`` in it holds the name of a
fault, the start of the file names that have it, and how many files are opened before and after the
fault begins, as JSON.
"""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import fsspec

from segtrain.data.io import remote


class NoCredentialsError(Exception):
    """As botocore names it."""


class ClientError(Exception):
    """As botocore fills it."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code}) when calling the GetObject operation")
        self.response = {
            "Error": {"Code": code},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }


class EndpointConnectionError(Exception):
    """As botocore words it; the URL of a signed request holds the signature."""

    def __init__(self) -> None:
        super().__init__(
            "Could not connect to the endpoint URL:"
            ' "https://user:secret@storage.example/bucket/key?X-Signature=secret2"'
        )


class FakeStore(fsspec.AbstractFileSystem):
    """Files of a folder, with a fault."""

    protocol = "gs"
    cachable = False

    def _open(self, path: str, *_: Any, **__: Any) -> io.BytesIO:
        folder = Path(os.environ["FAKE_STORE"])
        name = path.rpartition("/")[2]
        if (folder / "fault").exists():
            fault = json.loads((folder / "fault").read_text())
            with (folder / "opened").open("a+") as counter:
                counter.write(f"{name}\n")
                counter.seek(0)
                count = sum(line.startswith(fault["files"]) for line in counter)
            if name.startswith(fault["files"]) and fault["first"] < count <= fault["last"]:
                _fail(fault["name"], path)
        stream = io.BytesIO((folder / name).read_bytes())
        stream.size = stream.getbuffer().nbytes  # type: ignore[attr-defined]
        return stream


def _fail(fault: str, path: str) -> None:
    if fault == "lost":
        raise EndpointConnectionError
    if fault == "stalled":
        time.sleep(60)
    if fault == "busy":
        raise OSError(16, "Please reduce your request rate") from ClientError("SlowDown", 503)
    if fault == "no credentials":
        raise NoCredentialsError("Unable to locate credentials")
    if fault == "no bucket":
        raise FileNotFoundError(path) from ClientError("NoSuchBucket", 404)
    if fault == "denied":
        raise PermissionError("Access Denied") from ClientError("AccessDenied", 403)
    raise AssertionError(fault)


fsspec.register_implementation("gs", FakeStore, clobber=True)
remote._PAUSES = (0.0, 0.0)  # in a process of its own, which no fixture reaches
