"""Write a comparison to files."""

from __future__ import annotations

import json
from pathlib import Path

from segtrain.comparison.comparison import Comparison
from segtrain.comparison.page import comparison_page
from segtrain.comparison.pictures import differing_images
from segtrain.comparison.tables import csv_table, latex, markdown
from segtrain.files import write_text


def write_comparison(comparison: Comparison, folder: Path, *, images: bool = True) -> list[Path]:
    """Write ``comparison.json``, ``.md``, ``.tex``, ``.csv`` and ``.html``; return their paths.

    Args:
        comparison: The comparison.
        folder: The folder to write to; it is created.
        images: Whether the page shows the images on which groups differ most.
    """
    drawn, missing = differing_images(comparison) if images else ([], None)
    contents = {
        "json": json.dumps(comparison.to_dict(), indent=2) + "\n",
        "md": markdown(comparison),
        "tex": latex(comparison),
        "csv": csv_table(comparison),
        "html": comparison_page(comparison, drawn, missing),
    }
    paths = []
    for ending, text in contents.items():
        path = folder / f"comparison.{ending}"
        write_text(path, text)
        paths.append(path)
    return paths
