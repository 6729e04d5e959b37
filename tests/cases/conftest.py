from __future__ import annotations

from pathlib import Path

import pytest

from segtrain.terminal import logger


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged, whatever handlers other tests have left."""
    found: list[str] = []
    monkeypatch.setattr(logger, "handle", lambda record: found.append(record.getMessage()))
    return found
