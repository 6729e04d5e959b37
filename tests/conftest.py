"""Fixtures for the whole suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
