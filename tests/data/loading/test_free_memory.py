from __future__ import annotations

import os
from pathlib import Path

import pytest

from segtrain.data.loading import free_memory as memory_module
from segtrain.data.loading.free_memory import free_memory


def test_here() -> None:
    found = free_memory()
    assert found is None or found > 1e6


def test_the_smallest_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 9999 kB\nMemAvailable:    5000 kB\n")
    monkeypatch.setattr(memory_module, "_PROC", info)
    monkeypatch.setattr(memory_module, "_GROUPS", ((tmp_path, "max", "current", "inactive"),))
    assert free_memory() == 5_120_000
    for limit, expected in (("max", 5_120_000), ("4000000", 3_500_000), ("1", 0)):
        (tmp_path / "max").write_text(f"{limit}\n")
        (tmp_path / "current").write_text("1000000\n")
        (tmp_path / "memory.stat").write_text("anon 500000\ninactive 500000\n")
        assert free_memory() == expected


def test_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(memory_module, "_PROC", tmp_path / "none")
    monkeypatch.setattr(memory_module, "_GROUPS", ())
    monkeypatch.setattr(os, "sysconf", none)
    assert free_memory() is None
