"""The command ``segtrain list models``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from segtrain.errors import ConfigError
from segtrain.models.table import HEADINGS, model_row
from segtrain.terminal import cell, progress

_NUMBERS = ("parameters (M)", "GMACs")
_PIPE_WIDTH = 1000


def list_models(specs: Mapping[str, Any]) -> None:
    """Print a table of parameters, multiply-adds, outputs and source of each model in `specs`."""
    table = Table(box=None, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    with progress("count", len(specs)) as bar:
        for name, spec in specs.items():
            bar.advance(name)
            try:
                cells = model_row(name, spec).cells()
            except ConfigError as error:  # a missing package affects the rows of its models only
                cells = (name, "", "", "", "", str(error))
            table.add_row(*map(cell, cells))
    # In a file or a pipe, each row stays on one line.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
