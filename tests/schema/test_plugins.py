from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segtrain.errors import ConfigError
from segtrain.losses import LOSSES
from segtrain.schema.plugins import load_plugins

LOSS = """
import segtrain.losses as losses

@losses.register_loss("{name}")
def function(logits, target, *, power: float = 2.0):
    return logits[:, 0] ** power
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("segtrain_plugin_", "own_")):
            del sys.modules[name]


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_file_registers_its_losses(tmp_path: Path) -> None:
    load_plugins([write(tmp_path / "mine.py", LOSS.format(name="mine"))])
    assert "mine" in LOSSES.names()
    assert LOSSES.schema("mine")["power"].default == 2.0


def test_a_file_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine.py", LOSS.format(name="mine"))
    load_plugins([path, path])
    monkeypatch.chdir(tmp_path)
    load_plugins(["mine.py"])
    assert LOSSES.names().count("mine") == 1


@pytest.mark.parametrize(
    ("one", "two"), [("a/mine.py", "b/mine.py"), ("a_b/c.py", "a/b_c.py"), ("a.b/c.py", "a_b/c.py")]
)
def test_files_of_like_paths_are_two(tmp_path: Path, one: str, two: str) -> None:
    load_plugins(
        [
            write(tmp_path / one, LOSS.format(name="first")),
            write(tmp_path / two, LOSS.format(name="second")),
        ]
    )
    assert {"first", "second"} <= set(LOSSES.names())


def test_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^plugins: no file 'gone.py' ") as caught:
        load_plugins(["gone.py"])
    assert str(caught.value).endswith(f"(looked in {tmp_path})")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1\n\nraise RuntimeError('boom')\n", 3, "failed with RuntimeError: boom"),
        ("import no_such_module_anywhere\n", 1, "failed with ModuleNotFoundError: No module"),
        ("def f():\n    1 / 0\n\nf()\n", 2, "failed with ZeroDivisionError"),
        ("x = 1\ny = (\n", 2, "failed with SyntaxError: '[(]' was never closed"),
    ],
)
def test_a_failing_file_says_where(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = write(tmp_path / "mine.py", text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_plugins([path])
    assert str(caught.value).startswith(f"plugins: {path}:{line} failed with")


def test_a_failed_file_can_be_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "oops")
    with pytest.raises(ConfigError, match="NameError"):
        load_plugins([path])
    write(tmp_path / "mine.py", LOSS.format(name="mended"))
    load_plugins([path])
    assert "mended" in LOSSES.names()


def test_a_duplicate_keeps_its_own_words(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", LOSS.format(name="dice"))
    with pytest.raises(ConfigError, match=r"^plugins: loss 'dice' is registered already"):
        load_plugins([path])


def test_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "own_package" / "__init__.py", "")
    write(tmp_path / "own_package" / "losses.py", LOSS.format(name="from_module"))
    load_plugins(["own_package.losses", "own_package.losses"])
    assert "from_module" in LOSSES.names()


def test_a_failing_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"^plugins: module 'own_gone' failed with ModuleNotFoundError"
    ):
        load_plugins(["own_gone"])
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "own_broken.py", "1 / 0")
    with pytest.raises(ConfigError, match="module 'own_broken' failed with ZeroDivisionError"):
        load_plugins(["own_broken"])


def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "own_installed.py", LOSS.format(name="installed"))

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        assert group == "segtrain.plugins"  # a promise to packages, as in the README
        return [importlib.metadata.EntryPoint("own", module, group) for module in modules]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    modules = ["own_installed"]
    load_plugins([])
    assert "installed" in LOSSES.names()
    modules = ["own_not_there"]
    with pytest.raises(ConfigError, match=r"^plugins: entry point 'own_not_there' failed with"):
        load_plugins([])
