"""Training from a local S3 server behind a proxy that cuts and stalls; needs the extra `stores`."""

import contextlib
import os
import socket
import threading
import time

import pytest

from segtrain.data.io import remote
from tests.faults.test_object_stores import error_of, log, saved_step, shards, train

moto = pytest.importorskip("moto.server", reason="needs the extra stores")
fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs", reason="needs the extra stores")
pytestmark = [
    pytest.mark.fault("F45"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the server
]
__all__ = ["log", "shards"]  # fixtures


class Proxy:
    """Forwards connections to a server until `budget` bytes have come back, then has a fault.

    Args:
        target: Host and port of the server.

    Attributes:
        fault: ``cut`` closes every connection, ``stall`` keeps it open in silence.
        budget: Number of bytes that are passed back before the fault; None: there is no fault.
    """

    def __init__(self, target):
        self.target = target
        self.fault, self.budget = "cut", None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.open = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.open.append(client)
                if self.is_faulty and self.fault == "cut":
                    client.close()
                    continue
                server = socket.create_connection(self.target)
                self.open.append(server)
                for source, sink, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._forward, args=(source, sink, counts), daemon=True
                    ).start()

    @property
    def is_faulty(self):
        return self.budget is not None and self.budget <= 0

    def _forward(self, source, sink, counts):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if self.budget is not None and counts:
                    self.budget -= len(data)
                if self.is_faulty and self.fault == "stall":
                    continue  # the data is lost, and the connection stays open
                if self.is_faulty:
                    break
                sink.sendall(data)
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        for end in self.open:
            end.close()


@pytest.fixture
def proxy(shards, monkeypatch):
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    found = Proxy(server.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": found.url,
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "_PAUSES", (0.1, 0.1))
    monkeypatch.setattr(remote, "_TIMEOUT", 5.0)
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    store.makedirs("bucket", exist_ok=True)  # all servers of a process share their buckets
    for path in shards.iterdir():
        store.pipe(f"bucket/{path.name}", path.read_bytes())
    yield found
    found.close()
    server.stop()
    forget_connections()


def forget_connections():
    """As in a new process."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def size_of(shards, first):
    """The bytes of the indices and of the first shards, headers of HTTP included."""
    return sum(path.stat().st_size for path in shards.glob("*-index.jsonl")) + int(
        first * (shards / "train-000000.tar").stat().st_size * 1.05
    )


@pytest.mark.parametrize(("fault", "workers"), [("cut", 0), ("stall", 2)])
def test_s3_is_lost_in_mid_run(proxy, shards, log, tmp_path, capfd, fault, workers):
    proxy.fault, proxy.budget = fault, size_of(shards, first=6.3)
    start = time.monotonic()
    assert train(tmp_path, "run", f"loader.num_workers={workers}", root="s3://bucket") == 3
    assert time.monotonic() - start < 90
    assert "s3://bucket/train-00000" in (error := error_of(capfd))
    assert "cannot be fetched after 3 attempts" in error
    assert "attempt 2 of 3 failed" in log.read_text()
    assert saved_step(tmp_path / "run") > 0
    proxy.budget = None
    forget_connections()
    more = (f"loader.num_workers={workers}", "resume=auto")
    assert train(tmp_path, "run", *more, root="s3://bucket") == 0


def test_s3_is_unreachable_at_start_up(proxy, tmp_path, capfd):
    proxy.budget = 0
    assert train(tmp_path, "run", root="s3://bucket") == 3
    assert "s3://bucket/train-index.jsonl cannot be fetched after 3" in error_of(capfd)


def test_s3_without_bucket_or_credentials(proxy, tmp_path, capfd, monkeypatch):
    assert train(tmp_path, "run", root="s3://other") == 3
    assert "The specified bucket does not exist; check the name 'other'" in error_of(capfd)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_connections()
    assert "AWS_PROFILE" not in os.environ
    assert train(tmp_path, "run", root="s3://bucket") == 3
    assert "Unable to locate credentials; set AWS_ACCESS_KEY_ID" in error_of(capfd)
