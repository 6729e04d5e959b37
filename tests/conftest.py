"""Fixtures for the whole suite."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.cli.main import run_command
from segtrain.terminal import logger
from tests.helpers import SHARED, SMALL

# Small tensors gain nothing from threads, and threads of several processes wait for each other.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

pytest_plugins = ["tests.fault_table"]

# They register models, and the plugin loader is to do that.
collect_ignore = ["tiny.py", "engine/sharded_runs.py"]


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """Values computed by the official code, or a skip that names the missing file."""

    def load(name: str) -> Any:
        path = SHARED / "reference" / name
        if not path.is_file():
            pytest.skip(f"no reference values at {path}")
        return torch.load(path, weights_only=True)

    return load


@pytest.fixture
def camvid_root() -> Path:
    if not (SHARED / "camvid").is_dir():
        pytest.skip(f"CamVid is not at {SHARED / 'camvid'}")
    return SHARED / "camvid"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the cache of the person who runs it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEGTRAIN_CACHE", str(folder))
    return folder


@pytest.fixture
def small() -> list[str]:
    """Overrides that make a run small."""
    return SMALL


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., int]:
    """Train the tiny model: the name of the run and overrides in, the exit code out."""

    def run(name: str, *words: str) -> int:
        return run_command("train", [*SMALL, f"run_dir={tmp_path / name}", *words])

    return run


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """What a run wrote to ``metrics.jsonl``, without what depends on the clock."""

    def read(name: str) -> list[dict[str, Any]]:
        found = []
        for text in (tmp_path / name / "metrics.jsonl").read_text().splitlines():
            line = json.loads(text)
            line.pop("images_per_second", None)
            line.get("evaluation", {}).pop("seconds", None)
            found.append(line)
        return found

    return read


@pytest.fixture
def last_line(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def read() -> str:
        return capsys.readouterr().err.strip().splitlines()[-1]

    return read


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged, whatever handlers other tests have left."""
    found: list[str] = []
    monkeypatch.setattr(logger, "handle", lambda record: found.append(record.getMessage()))
    return found
