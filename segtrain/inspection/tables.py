"""The report for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from segtrain.data.scan.class_weights import pixel_share
from segtrain.data.scan.findings import KINDS
from segtrain.errors import printable
from segtrain.inspection.examine import Examination
from segtrain.inspection.outliers import areas
from segtrain.terminal import console


def print_tables(examination: Examination, method: str) -> None:
    """Show the classes and the findings.

    Args:
        examination: What was found.
        method: Whose class weights are shown.
    """
    console.print(_classes(examination, method))
    if examination.found:
        console.print(_findings(examination))


def _classes(examination: Examination, method: str) -> Table:
    title = f"{escape(printable(examination.title))}: classes"
    table = Table("class", title=title, title_justify="left")
    columns = []
    for split, (dataset, report) in examination.splits.items():
        shares = pixel_share(report.image_pixels, areas(dataset, report))
        images = (report.image_pixels > 0).sum(0)
        columns += [
            (f"{split} pixels", [_percent(share) for share in shares]),
            ("images", [f"{count} of {report.num_files}" for count in images]),
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
    table = Table("found", "count", "the first one", title="findings", title_justify="left")
    table.columns[1].justify = "right"
    table.columns[2].overflow = "fold"  # paths are to be copied
    for kind, items in examination.kinds():
        style = "red" if any(item.is_error for item in items) else "yellow"
        first = printable(f"{items[0].split}: {items[0].finding.text}")
        table.add_row(Text(KINDS[kind], style=style), str(len(items)), Text(first))
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.3f} %" if share == 0 or share >= 1e-5 else f"{100 * share:.0e} %"
