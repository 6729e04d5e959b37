"""The files of a report: ``report.json``, ``report.html`` and ``class_weights.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segtrain.data.scan.class_weights import AUTO_METHOD, describe_weights
from segtrain.errors import DataError
from segtrain.files import write_text
from segtrain.inspection.charts import distinct_sizes
from segtrain.inspection.examine import Examination
from segtrain.inspection.page import report_page
from segtrain.inspection.pictures import Example, choose_examples, draw_example
from segtrain.schema.sections import AUTO
from segtrain.terminal import progress
from segtrain.version import __version__


def write_report(
    examination: Examination, folder: Path, *, num_examples: int = 12, method: str = AUTO
) -> None:
    """Write the files of a report, replacing those of an earlier one.

    Args:
        examination: The examination to report.
        folder: The directory to write to.
        num_examples: Number of samples that the page shows.
        method: The method of the class weights in ``class_weights.json``.
    """
    plain = json.dumps(report_dict(examination), indent=2)  # ASCII, whatever the names contain
    write_text(folder / "report.json", plain + "\n")
    weights = json.dumps(_weights_dict(examination, method), indent=2)
    write_text(folder / "class_weights.json", weights + "\n")
    page = report_page(examination, _examples(examination, num_examples))
    write_text(folder / "report.html", page)


def report_dict(examination: Examination) -> dict[str, Any]:
    """Return an examination as plain values, the content of ``report.json``.

    Its keys are:

    - ``segtrain``: the version.
    - ``dataset``: the title.
    - ``verdict``: ``fine``, ``warnings`` or ``refused``.
    - ``refusal``: the error message with which training would end, or null.
    - ``findings``: a list, each with ``split`` (such as ``train and val`` for an image in both),
      ``kind``, ``error``, ``file`` and ``text``.
    - ``counts``: number of findings by kind.
    - ``splits``: by split (``test`` if it is configured), ``images``, ``left_out``,
      ``ignored_pixels``, ``invalid_pixels`` (those of the ignored ones that do not count by the
      valid files) and ``sizes``.
    - ``classes``: a list, each with ``id``, ``name``, ``colour`` and, by split, ``pixels``,
      ``share`` and ``images``.
    - ``normalisation``: ``mean`` and ``std`` of the train split, or null.
    - ``class_weights``: by method and class name.
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
            for item in examination.findings
        ],
        "counts": {kind: len(items) for kind, items in examination.kinds()},
        "splits": {split: _split_dict(examination, split) for split in examination.splits},
        "classes": _class_dicts(examination),
        "normalisation": None
        if examination.normalization is None
        else dict(zip(("mean", "std"), examination.normalization, strict=True)),
        "class_weights": {
            method: dict(zip(names, weights, strict=True))
            for method, weights in examination.weights.items()
        },
    }


def _weights_dict(examination: Examination, method: str) -> dict[str, Any]:
    name = AUTO_METHOD if method == AUTO else method
    train = examination.splits["train"]
    return describe_weights(
        name, train.dataset.class_names, examination.weights[name], train.class_shares.tolist()
    )


def _split_dict(examination: Examination, split: str) -> dict[str, Any]:
    dataset, report = examination.splits[split]
    return {
        "images": report.num_files,
        "left_out": len(getattr(dataset, "left_out", ())),
        "ignored_pixels": report.ignored_pixels,
        "invalid_pixels": int(report.invalid_pixels.sum()),
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
    for name, split in examination.splits.items():
        shares, images = split.class_shares, split.class_images
        for class_id, entry in enumerate(classes):
            entry[name] = {
                "pixels": int(split.report.class_pixels[class_id]),
                "share": float(shares[class_id]),
                "images": int(images[class_id]),
            }
    return classes


def _examples(examination: Examination, count: int) -> list[Example]:
    """Draw samples of the train split, leaving out those that cannot be read."""
    dataset, report = examination.splits["train"]
    chosen = choose_examples(report.image_pixels, count, examination.not_loadable)
    drawn = []
    with progress("draw examples", len(chosen)) as bar:
        for index in chosen:
            bar.advance()
            try:
                drawn.append(draw_example(dataset[index], dataset.labels))
            except DataError:  # damage that the header does not show
                continue
    return drawn
