"""Inspection of a whole dataset: what it contains, what is wrong with it, and the report."""

from segtrain.inspection.examine import Examination, SplitFinding, examine
from segtrain.inspection.report import write_report
from segtrain.inspection.scanned_split import ScannedSplit
from segtrain.inspection.sheet import write_sheet
from segtrain.inspection.tables import print_tables

__all__ = [
    "Examination",
    "ScannedSplit",
    "SplitFinding",
    "examine",
    "print_tables",
    "write_report",
    "write_sheet",
]
