"""The runs of a sweep as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table

from segtrain.engine.results import final_score
from segtrain.engine.status import Status, read_status
from segtrain.engine.sweep_directory import Row, SweepDirectory, run_folder
from segtrain.errors import printable
from segtrain.terminal import cell


def plan_table(
    runs: Sequence[Sequence[str]], grid: Mapping[str, Sequence[str]], directory: SweepDirectory
) -> Table | str:
    """The runs that a sweep would start, and the states of those that exist.

    Args:
        runs: The overrides of each run; empty if a sweeper chooses them.
        grid: The values of each swept key.
        directory: The directory of the sweep, which may not exist yet.
    """
    if not runs:
        searched = " ".join(f"{key}={values[0]}" for key, values in grid.items())
        return f"hydra/sweeper chooses the values: {cell(searched)}"
    states = {row["dir"]: row["state"] for row in directory.runs()}
    title = f"{len(runs)} runs in {cell(str(directory.path))}"
    table = Table("folder", "state", title=title, title_justify="left")
    table.columns[0].overflow = "fold"  # so that folders can be copied
    for run in runs:
        folder = run_folder(run, grid)
        table.add_row(cell(folder), states.get(folder, "new"))
    return table


def runs_table(rows: Sequence[Row], directory: SweepDirectory, choice: str) -> Group:
    """All runs with their scores, and below them why runs failed or stopped.

    Args:
        rows: The runs of ``sweep.json``.
        directory: The directory of the sweep.
        choice: The score to show, such as ``mIoU``.
    """
    keys = list(directory.grid)
    title = f"sweep {cell(str(directory.path))}"
    table = Table(*map(cell, keys), title=title, title_justify="left")
    table.add_column(cell(choice), justify="right")
    table.add_column("state")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        path = directory.path / row["dir"]
        values = dict(word.partition("=")[::2] for word in row["overrides"])
        score = final_score(path, choice)
        table.add_row(
            *(cell(values.get(key, "")) for key in keys),
            "" if score is None else f"{score:.4f}",
            row["state"],
        )
        status = read_status(path)
        if status is not None and status.reason is not None:
            reasons.setdefault(_reason(status), []).append(row["dir"])
    return Group(table, *(cell(_listed(*item)) for item in reasons.items()))


def _reason(status: Status) -> str:
    return f"{status.state} (exit code {status.exit_code}): {printable(status.reason)}"


def _listed(reason: str, folders: Sequence[str]) -> str:
    """A reason, with the folder of the first run that ended with it."""
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    return f"{folders[0]}{more} {reason}"
