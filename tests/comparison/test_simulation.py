"""The intervals and verdicts hold in simulated studies, whose true differences are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from segtrain.comparison.interval import intervals, spread
from segtrain.comparison.pseudo_values import ImageMetric
from segtrain.comparison.runs import ImageScores
from segtrain.metrics import build_metrics

STUDIES = 500
IMAGES = 40
MOST = 0.985  # three seeds whose own effect is close to nothing: 0.981


class Case(NamedTuple):
    """Standard deviations: of the seed, of the image in a group, and of the rest."""

    seed: float
    image: float
    rest: float


SEEDS_VARY = Case(1.0, 1.0, 1.0)  # the mean over 40 images varies by 1 between seeds, .16 by images
IMAGES_VARY = Case(0.05, 1.0, 1.0)


class Found(NamedTuple):
    """Shares of the studies with a verdict, and of the intervals that cover, by group."""

    verdicts: float
    covered: np.ndarray


def simulate(
    case: Case, seeds: int, groups: int, factors: tuple[float, ...], true: float = 0.0
) -> Found:
    """Compare `groups` with a baseline in many studies; only the first one differs, by `true`.

    `factors` multiply the deviation of the seeds, of the baseline first, and then in turn.
    """
    generator = np.random.default_rng(seeds * 100 + groups)
    factor = np.resize(factors, groups + 1)
    verdicts = 0
    covered = np.zeros(groups)
    for _ in range(STUDIES):
        scores = (
            generator.standard_normal((groups + 1, seeds, 1)) * case.seed * factor[:, None, None]
            + generator.standard_normal((groups + 1, 1, IMAGES)) * case.image
            + generator.standard_normal((groups + 1, seeds, IMAGES)) * case.rest
            + generator.standard_normal((1, 1, IMAGES)) * 5  # some images are hard for all
        )
        scores[1] += true
        differences = scores[1:] - scores[0]
        means = differences.mean((1, 2))
        found = intervals(list(means), [spread(item) for item in differences], [None] * groups)
        wrong = found[1:] if true else found
        verdicts += any(item.p_holm < 0.05 for item in wrong)
        truths = [true, *[0.0] * (groups - 1)]
        covered += [
            item.low <= truth <= item.high for item, truth in zip(found, truths, strict=True)
        ]
    return Found(verdicts / STUDIES, covered / STUDIES)


@pytest.mark.parametrize("case", [SEEDS_VARY, IMAGES_VARY], ids=["seeds vary", "images vary"])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("groups", [1, 2, 4, 9])
def test_groups_of_equal_deviation(case: Case, seeds: int, groups: int) -> None:
    found = simulate(case, seeds, groups, (1.0,))
    assert found.verdicts <= 0.07
    assert 0.92 <= found.covered.mean() <= MOST


@pytest.mark.parametrize("factors", [(1.0, 2.0), (2.0, 1.0)])
@pytest.mark.parametrize("case", [SEEDS_VARY, IMAGES_VARY], ids=["seeds vary", "images vary"])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("groups", [2, 9])
def test_groups_whose_deviations_differ(
    case: Case, seeds: int, groups: int, factors: tuple[float, ...]
) -> None:
    found = simulate(case, seeds, groups, factors)
    assert found.verdicts <= 0.07
    assert 0.92 <= found.covered.mean() <= MOST
    assert found.covered.min() >= 0.91


@pytest.mark.parametrize("case", [SEEDS_VARY, IMAGES_VARY], ids=["seeds vary", "images vary"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_known_difference_is_covered(case: Case, seeds: int) -> None:
    found = simulate(case, seeds, 4, (1.0, 2.0), true=2.0)
    assert 0.92 <= found.covered[0] <= 0.98
    assert found.verdicts <= 0.07


@pytest.mark.parametrize(("seed_deviation", "image_deviation"), [(0.3, 0.3), (0.02, 0.6)])
def test_pseudo_values_of_the_iou_cover_too(seed_deviation: float, image_deviation: float) -> None:
    """The error rates of runs vary; the IoU follows from their counts of pixels."""
    generator = np.random.default_rng(0)
    (iou,) = build_metrics(["iou"])
    seeds, images, pixels = 3, 30, 1000
    names = tuple(map(str, range(images)))
    verdicts = covered = 0
    for _ in range(STUDIES):
        logits = (
            -2
            + generator.standard_normal((2, seeds, 1)) * seed_deviation
            + generator.standard_normal((2, 1, images)) * image_deviation
            + generator.standard_normal((2, seeds, images)) * 0.2
            + generator.standard_normal((1, 1, images)) * 0.5
        )
        positive = generator.integers(50, pixels // 2, images)
        wrong = 1 / (1 + np.exp(-logits))
        fn, fp = (wrong * positive).astype(int), (wrong * (pixels - positive)).astype(int)
        tp, tn = positive - fn, pixels - positive - fp
        counts = np.stack([[tn, tp], [fn, fp], [fp, fn], [tp, tn]]).transpose(2, 3, 4, 0, 1)
        found = [
            [
                ImageMetric(iou, ImageScores(names, ("0", "1"), torch.from_numpy(run), {}))
                for run in group
            ]
            for group in counts
        ]
        scores = np.array([[run.score() for run in group] for group in found])
        values = np.array([[run.pseudo_values() for run in group] for group in found])
        (interval,) = intervals(
            [float(np.diff(scores.mean(1))[0])], [spread(values[1] - values[0])], [None]
        )
        verdicts += interval.p_holm < 0.05
        covered += interval.low <= 0 <= interval.high
    assert verdicts / STUDIES <= 0.07
    assert 0.92 <= covered / STUDIES <= 0.98
