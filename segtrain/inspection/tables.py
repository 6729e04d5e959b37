"""The report as tables in a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from segtrain.data.scan.findings import KINDS
from segtrain.errors import printable
from segtrain.inspection.examine import Examination
from segtrain.terminal import cell, console, percent


def print_tables(examination: Examination, method: str) -> None:
    """Print a table of the classes and one of the findings.

    Args:
        examination: The examination to show.
        method: The method of the class weights in the table.
    """
    console.print(_classes(examination, method))
    if examination.findings:
        console.print(_findings(examination))


def _classes(examination: Examination, method: str) -> Table:
    title = f"{cell(examination.title)}: classes"
    table = Table("class", title=title, title_justify="left")
    columns = []
    for name, split in examination.splits.items():
        total = split.report.num_files
        columns += [
            (f"{name} pixels", [percent(share) for share in split.class_shares]),
            ("images", [f"{count} of {total}" for count in split.class_images]),
        ]
    weights = examination.weights[method]
    columns.append(("weight", [f"{weight:.4g}" for weight in weights]))
    for heading, _ in columns:
        table.add_column(heading, justify="right")
    labels = examination.splits["train"].dataset.labels
    for class_id, name in enumerate(labels.names):
        red, green, blue = labels.colours[class_id]
        label = Text.assemble(("\N{FULL BLOCK} ", f"rgb({red},{green},{blue})"), printable(name))
        table.add_row(label, *(cells[class_id] for _, cells in columns))
    return table


def _findings(examination: Examination) -> Table:
    table = Table("problem", "count", "the first one", title="findings", title_justify="left")
    table.columns[1].justify = "right"
    table.columns[2].overflow = "fold"  # so that paths can be copied
    for kind, items in examination.kinds():
        style = "red" if any(item.is_error for item in items) else "yellow"
        first = printable(f"{items[0].split}: {items[0].finding.text}")
        table.add_row(Text(KINDS[kind], style=style), str(len(items)), Text(first))
    return table
