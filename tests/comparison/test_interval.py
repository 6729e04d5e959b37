"""Intervals against analysis of variance by hand, and against a t test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from segtrain.comparison.interval import (
    Spread,
    fold_variance,
    half_width,
    holm_corrected,
    intervals,
    seeds_needed,
    spread,
)

GENERATOR = np.random.default_rng(0)


def test_the_spread_is_that_of_the_analysis_of_variance() -> None:
    values = GENERATOR.normal(size=(4, 7))
    found = spread(values)
    rows = 7 * ((values.mean(1) - values.mean()) ** 2).sum() / 3
    columns = 4 * ((values.mean(0) - values.mean()) ** 2).sum() / 6
    rest = ((values - values.mean()) ** 2).sum() - 3 * rows - 6 * columns
    assert found.between_seeds * 7 == pytest.approx(rows)
    assert found.between_images * 4 == pytest.approx(columns)
    assert found.rest == pytest.approx(rest / 18)


def test_without_a_seed_effect_it_is_a_t_interval_over_images() -> None:
    images = GENERATOR.normal(size=30)
    (found,) = intervals([images.mean()], [spread(np.stack([images] * 3))], [None])
    expected = stats.t.interval(0.95, 29, images.mean(), stats.sem(images))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.p == pytest.approx(stats.ttest_1samp(images, 0).pvalue, rel=1e-6)


def test_p_is_below_a_level_where_its_interval_excludes_zero() -> None:
    for mean in (0.3, 0.6, 0.9):
        values = mean + GENERATOR.normal(size=(3, 20)) * 0.5
        (found,) = intervals([values.mean()], [spread(values)], [None])
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        assert found.above == pytest.approx(1 - found.p / 2)


def test_equal_runs_have_no_interval_but_no_difference() -> None:
    (found,) = intervals([0.0], [spread(np.zeros((3, 5)))], [None])
    assert (found.low, found.high, found.p) == (0, 0, 1)
    (found,) = intervals([0.1], [spread(np.full((3, 5), 0.1))], [None])
    assert (found.low, found.high, found.p) == pytest.approx((0.1, 0.1, 0))


def test_a_difference_that_varies_more_is_not_pooled_away() -> None:
    calm, wild = np.array([[0.0], [0.01], [0.02]]), np.array([[0.0], [0.5], [1.0]])
    both = intervals([0.01, 0.5], [spread(calm), spread(wild)], [None, None])
    alone = intervals([0.5], [spread(wild)], [None])
    assert both[1].seed_variance == pytest.approx(alone[0].seed_variance)
    assert both[0].seed_variance > intervals([0.01], [spread(calm)], [None])[0].seed_variance


def test_folds_are_corrected_as_by_nadeau_and_bengio() -> None:
    differences = np.array([[0.1], [0.3], [0.2], [0.2], [0.4]])
    between = float(differences.var(ddof=1))
    assert fold_variance(spread(differences)) == pytest.approx(between / 4)
    corrected = between * (1 / 5 + 1 / 4)  # their variance of the mean of five folds
    assert between / 5 + fold_variance(spread(differences)) == pytest.approx(corrected)


def test_holm() -> None:
    assert holm_corrected([]) == []
    assert holm_corrected([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])


def test_the_number_of_seeds_that_would_show_a_difference() -> None:
    """Against simulation: with that number, about 80 % of the studies show it."""
    item = Spread(3, 20, between_seeds=1.0, between_images=0.0, rest=0.0)
    (interval,) = intervals([0.2], [item], [None])
    needed = seeds_needed(interval, item, size=1.0)
    assert needed == 10
    shown = 0
    for _ in range(2000):
        sample = 1.0 + GENERATOR.normal(size=needed)
        shown += stats.ttest_1samp(sample, 0).pvalue < 0.05
    assert shown / 2000 == pytest.approx(0.8, abs=0.04)


def test_more_seeds_do_not_show_what_images_hide() -> None:
    item = Spread(3, 20, between_seeds=0.01, between_images=4.0, rest=0.0)
    (interval,) = intervals([0.2], [item], [None])
    assert seeds_needed(interval, item, size=1.0) is None


def test_half_width_of_two_sources() -> None:
    one, two = half_width([(0.01, 4)], 0.95), half_width([(0.04, 29)], 0.95)
    assert half_width([(0.01, 4), (0.04, 29)], 0.95) == pytest.approx(np.hypot(one, two))
