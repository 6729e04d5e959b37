"""Terminal output: log messages, progress bars and percentages."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segtrain.errors import printable

logger = logging.getLogger("segtrain")
console = Console(stderr=True)  # standard output is for the result of a command


def cell(text: object) -> str:
    r"""A text of a file or a user for a table: without markup, and nothing controls the terminal.

    Example:
        >>> print(cell("[red]a\x1b[31m"))
        \[red]a\x1b[31m
    """
    return escape(printable(text))


class _Printable(logging.Filter):
    """Escapes what a message is filled with, such as the name of a file."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                value if isinstance(value, (int, float)) else _lines(value) for value in record.args
            )
        return True


def _lines(value: object) -> str:
    return "\n".join(printable(line) for line in str(value).split("\n"))


logger.addFilter(_Printable())


def start_logging(*, only_warnings: bool = False) -> None:
    """Print the log messages of segtrain on the terminal.

    Args:
        only_warnings: Print neither other messages nor tables, in a process that is one of many.
    """
    if not logger.handlers:
        rich = RichHandler(
            console=console, show_path=False, markup=False, highlighter=None, log_time_format="%X"
        )
        handler = rich if console.is_terminal else logging.StreamHandler()
        handler.setLevel(logging.WARNING if only_warnings else logging.NOTSET)
        console.quiet = only_warnings
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def shows_progress() -> bool:
    """Whether progress bars are visible: on a terminal, and in a notebook that has ipywidgets."""
    has_widgets = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal or has_widgets


@contextmanager
def progress(
    description: str, total: int, done: int = 0, *, shown: bool = True
) -> Iterator[ProgressLine]:
    """Show a progress bar with a text, on a terminal or in a notebook, and only if `shown`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(),
    )
    visible = shown and shows_progress()
    with Progress(*columns, console=console, disable=not visible, transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done, text="")
        yield ProgressLine(bar, task)


class ProgressLine:
    """One line of progress."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar = bar
        self._task = task

    def move_to(self, done: int) -> None:
        """Set how many items are done."""
        self._bar.update(self._task, completed=done)

    def show(self, text: str) -> None:
        """Show a new text."""
        self._bar.update(self._task, text=printable(text))

    def advance(self, text: str | None = None) -> None:
        """Count one more item, and show a new text if one is given."""
        if text is None:
            self._bar.update(self._task, advance=1)
        else:
            self._bar.update(self._task, advance=1, text=printable(text))


def percent(share: float, decimals: int | None = None) -> str:
    """A share as a percentage, with three significant digits unless `decimals` are given.

    Example:
        >>> percent(0.12345), percent(0.0000012), percent(0.0), percent(float("nan"))
        ('12.3 %', '0.00012 %', '0 %', 'n/a')
        >>> percent(0.72204, decimals=2)
        '72.20 %'
    """
    if math.isnan(share):
        return "n/a"
    return f"{100 * share:.3g} %" if decimals is None else f"{100 * share:.{decimals}f} %"
