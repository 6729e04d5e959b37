"""What a person sees in a terminal while a command runs: messages and progress bars."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger("segtrain")


console = Console(stderr=True)  # standard output is left to what a command prints as its result


def start_logging() -> None:
    """Send the messages of segtrain to the terminal."""
    if not logger.handlers:
        handler = RichHandler(
            console=console, show_path=False, markup=False, highlighter=None, log_time_format="%X"
        )
        logger.addHandler(handler if console.is_terminal else logging.StreamHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


@contextmanager
def progress(
    description: str, total: int, done: int = 0, *, shown: bool = True
) -> Iterator[ProgressLine]:
    """A progress bar with a free text beside it; nothing when not a terminal or not `shown`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    visible = shown and console.is_terminal
    with Progress(*columns, console=console, disable=not visible, transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done, text="")
        yield ProgressLine(bar, task)


class ProgressLine:
    """One line of progress."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar = bar
        self._task = task

    def move_to(self, done: int) -> None:
        """So many are done."""
        self._bar.update(self._task, completed=done)

    def advance(self, text: str | None = None) -> None:
        """One more is done."""
        if text is None:
            self._bar.update(self._task, advance=1)
        else:
            self._bar.update(self._task, advance=1, text=text)


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
