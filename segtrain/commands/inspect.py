"""The command ``segtrain inspect``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from segtrain.data.datasets.recognise import recognise
from segtrain.data.scan.class_weights import AUTO_METHOD
from segtrain.errors import DataError
from segtrain.inspection import Examination, examine, print_tables, write_report, write_sheet
from segtrain.inspection.page import normalization_overrides
from segtrain.schema.sections import AUTO, InspectConfig
from segtrain.terminal import logger


def inspect(config: InspectConfig) -> Examination:
    """Scan a whole dataset, print the findings and write the report.

    Raises:
        DataError: If training would fail; the report is written before.
    """
    _name_tool(config)
    examination = examine(config.dataset, decode=config.decode)
    title = re.sub(r"[^\w\- ]", "_", examination.title)
    folder = Path(config.output or Path("outputs", "inspect", title))
    folder.mkdir(parents=True, exist_ok=True)
    print_tables(examination, AUTO_METHOD if config.class_weights == AUTO else config.class_weights)
    write_report(examination, folder, num_examples=config.num_examples, method=config.class_weights)
    logger.info("report: %s, and the same data in report.json", folder / "report.html")
    logger.info("loss.class_weights=%s", folder / "class_weights.json")
    if config.augment:
        write_sheet(
            examination,
            config.augmentation,
            folder / "augmented.html",
            num_samples=config.num_augmented,
            num_epochs=config.num_epochs,
            seed=config.seed,
        )
        logger.info("augmented samples: %s", folder / "augmented.html")
    if examination.refusal is not None:
        raise DataError(examination.refusal)
    if examination.normalization is not None:
        sys.stdout.write(f"{normalization_overrides(examination.normalization)}\n")
    return examination


def _name_tool(config: InspectConfig) -> None:
    """Log which annotation tool wrote the data, if a dataset of its own reads it."""
    root, name = config.dataset.get("root"), config.dataset["name"]
    found = recognise(Path(root).expanduser()) if root and config.dataset.get("train") else None
    if found is not None and found.dataset != name:
        logger.info(
            "%s looks like %s: dataset=%s reads it, with its classes",
            root,
            found.tool,
            found.dataset,
        )
