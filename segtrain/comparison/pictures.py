"""The images on which two groups differ most, with the truth and the predictions of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.comparison.comparison import Comparison
from segtrain.comparison.pairs import Pair
from segtrain.comparison.pseudo_values import Values
from segtrain.comparison.runs import RunRecord
from segtrain.data import FileDataset, LabelContract, Sample, SegmentationDataset, as_rgb
from segtrain.data.build import build_dataset
from segtrain.errors import CheckpointError, SegtrainError, one_line
from segtrain.inference import Predictor
from segtrain.pages.pictures import Pixels, draw_target, shrunk
from segtrain.terminal import progress

_IMAGES, _OTHERS = 5, 2  # images per pair, and how many of them contradict the others
_MOST_PAIRS = 3


@dataclass(frozen=True)
class Differing:
    """An image on which a group and its baseline differ.

    Attributes:
        name: The name of the image.
        group: The name of the group.
        baseline: The name of the baseline.
        difference: The difference of the pseudo-values, averaged over the seeds.
        pictures: Title and pixels ``(h, w, 3)`` of image, truth, and the predictions of both.
    """

    name: str
    group: str
    baseline: str
    difference: float
    pictures: tuple[tuple[str, Pixels], ...]


def differing_images(comparison: Comparison) -> tuple[list[Differing], str | None]:
    """Draw the images on which groups differ most from their baselines.

    Returns:
        The images, and why there are none or fewer; None: nothing is missing.
    """
    pairs = [
        item.difference.pair
        for item in comparison.groups
        if item.difference and item.difference.pair and item.difference.by_images
    ]
    if not pairs:
        return [], "there is no pair of groups with values per image"
    largest = sorted(pairs, key=lambda pair: -abs(pair.mean or 0.0))[:_MOST_PAIRS]
    drawn: list[Differing] = []
    with progress("draw images", len(largest)) as bar:
        for pair in largest:
            try:
                drawn += _of_pair(pair)
            except (SegtrainError, OSError) as error:
                return drawn, one_line(error)
            bar.advance()
    return drawn, None


def _of_pair(pair: Pair) -> Iterator[Differing]:
    runs = pair.first_runs()
    if len(runs) > 1:  # with folds, each image belongs to one of several runs
        raise CheckpointError("pictures of cross-validations are not drawn")
    ((one, other),) = runs
    predictors = [_predictor(run) for run in (one, other)]
    dataset = build_dataset(one.config["dataset"], split=str(one.results.get("split", "val")))
    differences = pair.image_differences.mean(0)
    if not pair.scoring.larger_is_better:
        differences = -differences
    names = list(pair.image_names)
    for place in _largest(differences):
        sample = _sample(dataset, names[place])
        if sample is not None:
            pictures = _draw(pair, sample, predictors, dataset.labels)
            yield Differing(
                names[place], pair.group.name, pair.baseline.name, differences[place], pictures
            )


def _largest(differences: Values) -> list[int]:
    """The images with the largest differences, some of them with the rarer sign if there are any.

    Example:
        >>> _largest(np.array([5.0, 4.0, 3.0, 2.0, 6.0, 7.0, -1.0]))
        [5, 4, 0, 1, 6]
    """
    order = [int(place) for place in np.argsort(-np.abs(differences))]
    sign = np.sign(differences[order[:_IMAGES]].sum())
    others = [place for place in order if differences[place] * sign < 0][:_OTHERS]
    same = [place for place in order if place not in others]
    return [*same[: _IMAGES - len(others)], *others]


def _predictor(run: RunRecord) -> Predictor:
    path = run.path / "checkpoints" / "last.pt"
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    return Predictor.from_checkpoint(path, device="cpu")


def _sample(dataset: SegmentationDataset, name: str) -> Sample | None:
    """The sample with a name; None if the dataset has changed."""
    if isinstance(dataset, FileDataset):
        names = [files.name for files in dataset.files]
        return dataset[names.index(name)] if name in names else None
    return next(
        (dataset[index] for index in range(len(dataset)) if dataset[index].name == name), None
    )


def _draw(
    pair: Pair, sample: Sample, predictors: Sequence[Predictor], labels: LabelContract
) -> tuple[tuple[str, Pixels], ...]:
    image: NDArray[Any] = as_rgb(sample.image)
    found = []
    small, truth = shrunk(image, sample.target)
    found += [("image", small), ("truth", draw_target(truth, labels))]
    ignored = sample.target == labels.ignore_label
    for predictor, group in zip(predictors, (pair.group, pair.baseline), strict=True):
        ids = predictor(sample.image).astype(np.int64)
        shown = np.where(ignored, labels.ignore_label, ids)
        found.append((group.name, draw_target(shrunk(image, shown)[1], labels)))
    return tuple(found)
