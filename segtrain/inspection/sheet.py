"""A contact sheet: samples beside what the augmentation of training makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from segtrain.assembly.batches import train_transform
from segtrain.data import LabelContract, Sample, SegmentationDataset, TrainTransform, TrainView
from segtrain.errors import SegtrainError
from segtrain.files import write_text
from segtrain.inspection.examine import Examination
from segtrain.inspection.html import escaped, legend, page, picture, section
from segtrain.inspection.pictures import choose_examples, data_uri, draw_example
from segtrain.schema.sections import AugmentationConfig
from segtrain.terminal import progress

_NOTE = (
    "On the left each sample with its mask as it is, then what the first epochs of a run with this"
    " seed make of it. Striped pixels have no class: they are ignored, or outside the image."
)
_MIXED = " What augmentation.mix pastes in from other samples of a batch is not shown."


def write_sheet(
    examination: Examination,
    augmentation: AugmentationConfig,
    path: Path,
    *,
    num_samples: int = 8,
    num_epochs: int = 5,
    seed: int = 0,
) -> None:
    """Write a page of augmented samples of the train split, the same for the same seed.

    Args:
        examination: Knows the dataset, which samples can be read, and what a normalisation that
            `augmentation` leaves open may be taken from.
        augmentation: The section of a configuration.
        path: The file to write.
        num_samples: Rows.
        num_epochs: How many epochs are shown.
        seed: Of the run; sample and epoch decide the rest, as in training.

    Raises:
        SegtrainError: When the augmentation is wrong, or fails on a sample.
    """
    dataset, report = examination.splits["train"]
    moments = examination.moments
    if augmentation.mean is None and augmentation.std is None and moments and dataset.channels != 3:
        augmentation = replace(augmentation, mean=tuple(moments[0]), std=tuple(moments[1]))
    transform = train_transform(augmentation, dataset.labels, dataset.channels)
    view = TrainView(dataset, transform, seed)
    chosen = choose_examples(report.image_pixels, num_samples, examination.unreadable)
    rows = []
    with progress("augment", len(chosen)) as bar:
        for index in chosen:
            bar.advance()
            rows.append(_row(dataset, view, transform, index, num_epochs))
    note = _NOTE + (_MIXED if augmentation.mix else "")
    title = f"{examination.title}: augmented samples"
    words = escaped(describe(augmentation))
    colours = legend(dataset.labels.names, dataset.labels.colours)
    parts = [f"<header><h1>{escaped(title)}</h1></header>", f"<pre>{words}</pre>", colours]
    write_text(path, page(title, [*parts, section("sheet", f"Seed {seed}", rows, note)]))


def describe(augmentation: AugmentationConfig) -> str:
    """What an augmentation does, as words of a command line.

    Example:
        >>> describe(AugmentationConfig(scale=(1.0, 1.0), crop_size=(64, 96)))
        'augmentation.scale=[1.0,1.0] augmentation.crop_size=[64,96] augmentation.flip=0.5'
    """
    idle = {"cat_max_ratio": 1.0, "mix_prob": None if augmentation.mix else augmentation.mix_prob}
    plain = {
        name: value
        for name, value in vars(augmentation).items()
        if value not in (None, (), 0.0, idle.get(name))
    }
    return " ".join(f"augmentation.{name}={_word(value)}" for name, value in plain.items())


def _word(value: object) -> str:
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)


def _row(
    dataset: SegmentationDataset,
    view: TrainView,
    transform: TrainTransform,
    index: int,
    num_epochs: int,
) -> str:
    sample = dataset[index]
    cells = [_cell(sample, dataset.labels, "as it is")]
    for epoch in range(num_epochs):
        item = view[epoch, index]
        if isinstance(item, SegtrainError):
            raise item
        pixels = item["images"].numpy().transpose(1, 2, 0) * transform.std + transform.mean
        target = item["target"].numpy()
        target = target.transpose(1, 2, 0) if dataset.labels.multi_label else target
        augmented = Sample(pixels.astype(np.float32), target, sample.name)
        cells.append(_cell(augmented, dataset.labels, f"epoch {epoch}"))
    columns = f'style="grid-template-columns:repeat({num_epochs + 1},1fr)"'
    return (
        f'<figure><div class="sheet" {columns}>{"".join(cells)}</div>'
        f"<figcaption><b>{escaped(sample.name)}</b></figcaption></figure>"
    )


def _cell(sample: Sample, labels: LabelContract, text: str) -> str:
    overlay = draw_example(sample, labels).overlay
    shown = picture(data_uri(overlay), f"{sample.name}, {text}")
    return f"<div>{shown}<small>{text}</small></div>"
