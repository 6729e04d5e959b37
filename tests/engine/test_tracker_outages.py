"""Servers of loggers that hang or go away: what a run does, from its start to its exit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT, SMALL

pytestmark = pytest.mark.slow

# The seconds that a run takes besides, on a busy machine.
OTHERS = 60


def train(tmp_path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segtrain", "train", *SMALL, f"run_dir={tmp_path / 'run'}"]
    return subprocess.run(
        [*command, "trainer.max_steps=4", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=10 + 30 + OTHERS,  # the limits of a logger at the start and at the end
        check=False,
    )


def test_a_server_that_hangs_delays_a_run_by_less_than_a_minute(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts, and never answers
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        result = train(tmp_path, f"hooks=[{{name: mlflow, tracking_uri: '{uri}'}}]")
    assert result.returncode == 0
    assert "mlflow: no answer after 10 seconds; training goes on" in result.stderr
    assert "mlflow: the server does not answer; unsent messages:" in result.stderr
    assert json.loads((tmp_path / "run/results.json").read_text())["state"] == "finished"


class Answers(BaseHTTPRequestHandler):
    """As much of a server of Weights & Biases as a run needs to start."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers.get("content-length", 0)))
        given = json.loads(request).get("variables", {}) if self.path == "/graphql" else {}
        bucket = {
            "id": "x",
            "name": given.get("name"),
            "config": "{}",
            "project": {"name": "p", "entity": {"name": "e"}},
            "historyLineCount": 0,
        }
        data = {
            "upsertBucket": {"bucket": bucket, "inserted": True},
            "viewer": {"id": "v", "entity": "e", "username": "u", "flags": "{}"},
        }
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if b"file_stream" in self.path.encode():  # the first values
            threading.Thread(target=self.server.shutdown, daemon=True).start()


@contextmanager
def server_that_goes_away() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)

    def serve() -> None:
        server.serve_forever()
        server.server_close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def test_wandb_that_goes_away_is_left_behind_and_synced_later(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with server_that_goes_away() as url:
        hook = "hooks=[wandb]"
        words = [hook, "trainer.max_steps=1500", "trainer.evaluate_every=1500"]
        result = train(tmp_path, *words, WANDB_BASE_URL=url, WANDB_API_KEY=40 * "a")
    assert result.returncode == 0
    assert "wandb: http" in result.stderr
    assert "wandb: the server does not answer" in result.stderr
    assert "wandb: later, `wandb sync " in result.stderr
    (folder,) = (tmp_path / "run/wandb").glob("run-*")
    assert str(folder) in result.stderr
    assert json.loads((tmp_path / "run/results.json").read_text())["state"] == "finished"
