"""The doctor: a look at a whole dataset, and the report of it."""

from segtrain.inspection.examine import Examination, Examined, Found, examine
from segtrain.inspection.report import write_report
from segtrain.inspection.sheet import write_sheet
from segtrain.inspection.tables import print_tables

__all__ = [
    "Examination",
    "Examined",
    "Found",
    "examine",
    "print_tables",
    "write_report",
    "write_sheet",
]
