"""Write a comparison to files."""

from __future__ import annotations

import json
from pathlib import Path

from segtrain.comparison.comparison import Comparison
from segtrain.comparison.tables import csv_table, latex, markdown
from segtrain.files import write_text


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.json``, ``.md``, ``.tex`` and ``.csv``, and return their paths.

    Args:
        comparison: The comparison.
        folder: The folder to write to; it is created.
    """
    contents = {
        "json": json.dumps(comparison.to_dict(), indent=2) + "\n",
        "md": markdown(comparison),
        "tex": latex(comparison),
        "csv": csv_table(comparison),
    }
    paths = []
    for ending, text in contents.items():
        path = folder / f"comparison.{ending}"
        write_text(path, text)
        paths.append(path)
    return paths
