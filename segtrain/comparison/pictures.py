"""The images on which two groups differ most, with the truth and the predictions of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from segtrain.comparison.comparison import Comparison
from segtrain.comparison.pairs import Pair
from segtrain.comparison.pseudo_values import Values
from segtrain.comparison.runs import RunRecord
from segtrain.data import FileDataset, LabelContract, Sample, SegmentationDataset, as_rgb
from segtrain.data.build import build_dataset
from segtrain.errors import CheckpointError, DataError, SegtrainError, describe_error, one_line
from segtrain.inference import Predictor
from segtrain.pages.pictures import Pixels, draw_target, shrunk
from segtrain.terminal import progress

_IMAGES, _CONTRARY = 6, 2  # images per pair, and how many of them contradict its difference
_MOST_PAIRS = 3
_LONGEST = 512  # pixels of the longer side of a picture
_CHECKPOINTS = ("last.pt", "best.pt")  # the first is what was scored


@dataclass(frozen=True)
class Differing:
    """An image on which a group and its baseline differ.

    Attributes:
        name: The name of the image.
        group: The name of the group.
        baseline: The name of the baseline.
        difference: The difference of the pseudo-values, averaged over the seeds.
        is_better: Whether the group is better on this image.
        num_images: Number of images that were scored; the mean of all their `difference` is the
            difference of the groups, up to the bias of the jackknife.
        labels: The label contract, for the names and colours of the classes.
        pictures: Title and pixels ``(h, w, 3)`` of image, truth, and the predictions of the
            baseline and the group.
    """

    name: str
    group: str
    baseline: str
    difference: float
    is_better: bool
    num_images: int
    labels: LabelContract
    pictures: tuple[tuple[str, Pixels], ...]


def differing_images(
    comparison: Comparison, *, device: str = "auto"
) -> tuple[list[Differing], str | None]:
    """Draw the images on which groups differ most from their baselines.

    These are the three pairs with the largest differences, and for each the images that contribute
    most to the difference and those that contradict it most. The models of the first common seed
    predict them.

    Args:
        comparison: The comparison.
        device: Where the models run: ``auto``, ``cpu``, ``cuda``, ...

    Returns:
        The images, and why there are none or fewer; None: nothing is missing.

    Example:
        >>> images, missing = differing_images(comparison)  # doctest: +SKIP
        >>> images[0].name, images[0].group, missing  # doctest: +SKIP
        ('street/0017.png', 'focal', None)
    """
    pairs = [
        item.difference.pair
        for item in comparison.groups
        if item.difference and item.difference.pair and item.difference.by_images
    ]
    if not pairs:
        return [], "no two groups have values per image that can be compared"
    largest = sorted(pairs, key=lambda pair: -abs(pair.mean or 0.0))[:_MOST_PAIRS]
    drawn: list[Differing] = []
    reasons: list[str] = []
    with progress("draw images", len(largest)) as bar:
        for pair in largest:
            try:
                drawn += _of_pair(pair, device)
            except (SegtrainError, OSError) as error:
                reasons.append(one_line(error))
            except Exception as error:  # noqa: BLE001  a dataset or model of other code
                reasons.append(describe_error(error))
            bar.advance()
    return drawn, reasons[0] if reasons else None


def _of_pair(pair: Pair, device: str) -> list[Differing]:
    names, values = list(pair.image_names), pair.image_differences.mean(0)
    sign = 1 if pair.scoring.larger_is_better else -1
    wanted = {names[place]: float(values[place]) for place in _chosen(sign * values)}
    found: dict[str, Differing] = {}
    for one, other in pair.first_runs():
        here = [name for name in wanted if name in one.images.names]
        if not here:  # with folds, each image belongs to one of several runs
            continue
        predictors = [_predictor(run, device) for run in (other, one)]
        split = str(one.results.get("split", "val"))
        dataset = build_dataset(one.config["dataset"], split=split)
        for sample in _samples(dataset, here):
            value = wanted[sample.name]
            found[sample.name] = Differing(
                name=sample.name,
                group=pair.group.name,
                baseline=pair.baseline.name,
                difference=value,
                is_better=sign * value > 0,
                num_images=len(names),
                labels=dataset.labels,
                pictures=_draw(pair, sample, predictors, dataset.labels),
            )
    return [found[name] for name in wanted]


def _chosen(gains: Values) -> list[int]:
    """The images that contribute most to the mean of `gains`, and some that contradict it.

    Example:
        >>> _chosen(np.array([5.0, 4.0, 3.0, -2.0, 6.0, 7.0, 0.0, -9.0, -1.0]))
        [5, 4, 0, 1, 7, 3]
    """
    sign = -1 if gains.mean() < 0 else 1
    order = [int(place) for place in np.argsort(-sign * gains, kind="stable")]
    fitting = [place for place in order if sign * gains[place] > 0]
    contrary = [place for place in reversed(order) if sign * gains[place] < 0][:_CONTRARY]
    return [*fitting[: _IMAGES - len(contrary)], *contrary]


def _predictor(run: RunRecord, device: str) -> Predictor:
    paths = [run.path / "checkpoints" / name for name in _CHECKPOINTS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise CheckpointError(f"{paths[0]} does not exist")
    return Predictor.from_checkpoint(path, device=device)


def _samples(dataset: SegmentationDataset, wanted: Sequence[str]) -> Iterator[Sample]:
    """The samples with these names.

    Raises:
        DataError: When the dataset lacks one of them, because it changed since the run.
    """
    left = set(wanted)
    for index in range(len(dataset)):
        if not left:
            return
        # The names of files are known without reading them.
        if isinstance(dataset, FileDataset) and dataset.files[index].name not in left:
            continue
        sample = dataset[index]
        if sample.name in left:
            left.remove(sample.name)
            yield sample
    if left:
        raise DataError(f"the dataset has no image {min(left)!r} any more")


def _draw(
    pair: Pair, sample: Sample, predictors: Sequence[Predictor], labels: LabelContract
) -> tuple[tuple[str, Pixels], ...]:
    image = as_rgb(sample.image)
    small, truth = shrunk(image, sample.target, _LONGEST)
    drawn = [("image", small), ("truth", draw_target(truth, labels))]
    ignored = sample.target == labels.ignore_label
    for predictor, group in zip(predictors, (pair.baseline, pair.group), strict=True):
        ids = predictor(sample.image).astype(np.int64)
        shown = np.where(ignored, labels.ignore_label, ids)
        drawn.append((group.name, draw_target(shrunk(image, shown, _LONGEST)[1], labels)))
    return tuple(drawn)
