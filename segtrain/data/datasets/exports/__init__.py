"""Exports of annotation tools as datasets, with the classes and the splits of the export."""
