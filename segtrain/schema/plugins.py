"""Plugins: files of the user that register losses, models and datasets when they are imported."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from segtrain.errors import ConfigError

ENTRY_POINT_GROUP = "segtrain.plugins"


def load_plugins(plugins: Sequence[str]) -> None:
    """Import plugins and the entry points of installed packages, once per process.

    Args:
        plugins: ``.py`` files or module names.

    Raises:
        ConfigError: When a file or module is missing or fails while it is imported.
    """
    load_entry_points()
    for plugin in plugins:
        if plugin.endswith(".py"):
            _load_file(Path(plugin))
        else:
            _load(partial(importlib.import_module, plugin), f"module {plugin!r}")


def load_entry_points() -> None:
    """Import what installed packages offer under the entry point group ``segtrain.plugins``.

    Raises:
        ConfigError: When one fails while it is imported.
    """
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        _load(entry_point.load, f"entry point {entry_point.value!r}")


def _load_file(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"plugins: no file {str(path)!r} (looked in {Path.cwd()})")
    path = path.resolve()
    # The name carries the whole path, so that two files called losses.py are two modules and one
    # file is loaded once.
    name = "segtrain_plugin_" + quote(str(path.with_suffix("")), safe="").replace(".", "%2E")
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"plugins: {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"plugins: {_failure(error, path)}") from error


def _failure(error: Exception, path: Path) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    at = f"{path}:{line}" if line else str(path)
    return (
        str(error)
        if isinstance(error, ConfigError)
        else f"{at} failed with {type(error).__name__}: {error}"
    )


def _load(load: Callable[[], object], what: str) -> None:
    try:
        load()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"plugins: {what} failed with {type(error).__name__}: {error}") from error
