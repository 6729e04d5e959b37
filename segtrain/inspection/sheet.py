"""A contact sheet: samples next to augmented versions of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segtrain.assembly.batches import train_transform
from segtrain.data import LabelContract, Sample, SegmentationDataset, TrainView
from segtrain.errors import SegtrainError
from segtrain.files import write_text
from segtrain.inspection.examine import Examination
from segtrain.inspection.pictures import choose_examples, draw_example
from segtrain.pages.html import escaped, legend, page, picture, section
from segtrain.pages.pictures import data_uri
from segtrain.schema.sections import AugmentationConfig
from segtrain.terminal import progress

_NOTE = (
    "The first column shows each sample with its mask; the others show it as the first epochs of a"
    " run with this seed would augment it. Striped pixels have no class: they are ignored, or"
    " outside the image."
)
_MIXED = " The patches that augmentation.mix pastes in from other samples are not shown."


def write_sheet(
    examination: Examination,
    augmentation: AugmentationConfig,
    path: Path,
    *,
    num_samples: int = 8,
    num_epochs: int = 5,
    seed: int = 0,
) -> None:
    """Write a page of augmented samples of the train split; the same seed gives the same page.

    Args:
        examination: The examined dataset. For images without three channels, its normalization is
            used if `augmentation` gives none.
        augmentation: The section ``augmentation`` of a configuration.
        path: The file to write.
        num_samples: Number of samples, one per row.
        num_epochs: Number of epochs, one per column.
        seed: Seed of the run that the page shows.

    Raises:
        SegtrainError: If the augmentation is not valid, or fails on a sample.
    """
    dataset, report = examination.splits["train"]
    measured = examination.normalization
    given = augmentation.mean is not None or augmentation.std is not None
    if measured and not given and dataset.channels != 3:
        mean, std = measured
        augmentation = replace(augmentation, mean=tuple(mean), std=tuple(std))
    transform = train_transform(augmentation, dataset.labels, dataset.channels)
    view = TrainView(dataset, transform, seed)
    chosen = choose_examples(report.image_pixels, num_samples, examination.not_loadable)
    rows = []
    with progress("augment", len(chosen)) as bar:
        for index in chosen:
            bar.advance()
            rows.append(_row(dataset, view, index, num_epochs))
    note = _NOTE + (_MIXED if augmentation.mix else "")
    title = f"{examination.title}: augmented samples"
    overrides = escaped(describe(augmentation))
    colours = legend(dataset.labels.names, dataset.labels.colours)
    parts = [f"<header><h1>{escaped(title)}</h1></header>", f"<pre>{overrides}</pre>", colours]
    write_text(path, page(title, [*parts, section("sheet", f"Seed {seed}", rows, note)]))


def describe(augmentation: AugmentationConfig) -> str:
    """Return an augmentation as overrides for the command line, without what has no effect.

    Example:
        >>> describe(AugmentationConfig(scale=(1.0, 1.0), crop_size=(64, 96)))
        'augmentation.scale=[1.0,1.0] augmentation.crop_size=[64,96] augmentation.flip=0.5'
    """
    idle = {"cat_max_ratio": 1.0, "mix_prob": None if augmentation.mix else augmentation.mix_prob}
    effective = {
        name: value
        for name, value in vars(augmentation).items()
        if value not in (None, (), 0.0, idle.get(name))
    }
    return " ".join(f"augmentation.{name}={_yaml(value)}" for name, value in effective.items())


def _yaml(value: object) -> str:
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)


def _row(
    dataset: SegmentationDataset,
    view: TrainView,
    index: int,
    num_epochs: int,
) -> str:
    sample = dataset[index]
    cells = [_cell(sample, dataset.labels, "original")]
    for epoch in range(num_epochs):
        item = view[epoch, index]
        if isinstance(item, SegtrainError):
            raise item
        pixels = item["images"].numpy().transpose(1, 2, 0)
        target = item["target"].numpy()
        target = target.transpose(1, 2, 0) if dataset.labels.multi_label else target
        augmented = Sample(pixels, target, sample.name)
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
