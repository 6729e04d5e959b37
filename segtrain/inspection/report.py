"""The report of an examination: ``report.json``, ``report.html`` and ``class_weights.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segtrain.data.scan.class_weights import AUTO_METHOD, describe_weights, pixel_share
from segtrain.errors import DataError
from segtrain.files import write_text
from segtrain.inspection.charts import distinct_sizes
from segtrain.inspection.examine import Examination
from segtrain.inspection.outliers import areas
from segtrain.inspection.page import report_page
from segtrain.inspection.pictures import Example, choose_examples, draw_example
from segtrain.schema.sections import AUTO
from segtrain.terminal import progress
from segtrain.version import __version__


def write_report(
    examination: Examination, folder: Path, *, num_examples: int = 12, method: str = AUTO
) -> None:
    """Write what was found; files of an earlier report are replaced.

    Args:
        examination: What was found.
        folder: The directory to write to; it is made.
        num_examples: How many samples the page shows.
        method: How the class weights in ``class_weights.json`` come about.
    """
    plain = json.dumps(report_dict(examination), indent=2)  # ASCII, whatever names hold
    write_text(folder / "report.json", plain + "\n")
    name = AUTO_METHOD if method == AUTO else method
    train, report = examination.splits["train"]
    share = pixel_share(report.image_pixels, areas(train, report)).tolist()
    content = describe_weights(name, train.class_names, examination.weights[name], share)
    write_text(folder / "class_weights.json", json.dumps(content, indent=2) + "\n")
    write_text(
        folder / "report.html", report_page(examination, examples(examination, num_examples))
    )


def report_dict(examination: Examination) -> dict[str, Any]:
    """An examination as plain values.

    Its keys: ``segtrain`` (the version), ``dataset`` (the title), ``verdict`` (``fine``,
    ``warnings`` or ``refused``), ``refusal`` (the sentence with which training would end, or null),
    ``findings`` (each with ``split``, ``kind``, ``error``, ``file``, ``text``), ``counts`` (of each
    kind), ``splits`` (each with ``images``, ``left_out``, ``ignored_pixels``, ``sizes``),
    ``classes`` (each with ``id``, ``name``, ``colour`` and, by split, ``pixels``, ``share``,
    ``images``), ``normalisation`` (``mean`` and ``std`` of the train split, or null) and
    ``class_weights`` (by method, by class name).
    """
    names = examination.splits["train"].dataset.class_names
    return {
        "segtrain": __version__,
        "dataset": examination.title,
        "verdict": examination.verdict,
        "refusal": examination.refusal,
        "findings": [
            {
                "split": item.split,
                "kind": item.finding.kind,
                "error": item.is_error,
                "file": item.finding.file,
                "text": item.finding.text,
            }
            for item in examination.found
        ],
        "counts": {kind: len(items) for kind, items in examination.kinds()},
        "splits": {split: _split_dict(examination, split) for split in examination.splits},
        "classes": _class_dicts(examination),
        "normalisation": None
        if examination.moments is None
        else dict(zip(("mean", "std"), examination.moments, strict=True)),
        "class_weights": {
            method: dict(zip(names, weights, strict=True))
            for method, weights in examination.weights.items()
        },
    }


def _split_dict(examination: Examination, split: str) -> dict[str, Any]:
    dataset, report = examination.splits[split]
    return {
        "images": report.num_files,
        "left_out": len(getattr(dataset, "left_out", ())),
        "ignored_pixels": report.ignored_pixels,
        "sizes": [
            {"height": height, "width": width, "images": count}
            for height, width, count in distinct_sizes(report.sizes)
        ],
    }


def _class_dicts(examination: Examination) -> list[dict[str, Any]]:
    labels = examination.splits["train"].dataset.labels
    classes: list[dict[str, Any]] = [
        {"id": class_id, "name": name, "colour": list(labels.colours[class_id])}
        for class_id, name in enumerate(labels.names)
    ]
    for split, (dataset, report) in examination.splits.items():
        shares = pixel_share(report.image_pixels, areas(dataset, report))
        images = (report.image_pixels > 0).sum(0)
        for class_id, entry in enumerate(classes):
            entry[split] = {
                "pixels": int(report.class_pixels[class_id]),
                "share": float(shares[class_id]),
                "images": int(images[class_id]),
            }
    return classes


def examples(examination: Examination, count: int) -> list[Example]:
    """Samples of the train split as pictures; those that cannot be read are left out."""
    dataset, report = examination.splits["train"]
    chosen = choose_examples(report.image_pixels, count, examination.unreadable)
    drawn = []
    with progress("draw examples", len(chosen)) as bar:
        for index in chosen:
            bar.advance()
            try:
                drawn.append(draw_example(dataset[index], dataset.labels))
            except DataError:  # damage that a header does not show
                continue
    return drawn
