"""The formats, by name and by the ending of a file."""

from __future__ import annotations

from pathlib import Path

from segtrain.errors import ConfigError
from segtrain.export.base import Format
from segtrain.export.onnx import OnnxFormat
from segtrain.export.openvino import OpenVinoFormat
from segtrain.export.program import ProgramFormat

FORMATS: dict[str, Format] = {
    one.name: one for one in (OnnxFormat(), ProgramFormat(), OpenVinoFormat())
}


def format_of(path: Path) -> Format:
    """Return the format that the ending of `path` chooses.

    Raises:
        ConfigError: When the ending is not that of a format, or a package is missing.
    """
    for one in FORMATS.values():
        if path.suffix == one.ending:
            missing = one.missing()
            if missing is not None:
                raise ConfigError(missing)
            return one
    allowed = ", ".join(f"{one.ending} ({one.title})" for one in FORMATS.values())
    raise ConfigError(f"output={path} must end in one of {allowed}")
