"""Rare-class sampling: what is drawn, and that the order depends on seed and epoch alone."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from segtrain.data import (
    ShapesDataset,
    StepSampler,
    TrainTransform,
    TrainView,
    build_train_loader,
    count_dataset,
    iterate,
)
from segtrain.data.loading.rare_classes import rare_class_order
from segtrain.data.loading.sampler import epoch_order
from segtrain.data.loading.seeds import SampleKey
from segtrain.errors import DataError
from segtrain.schema.sections import AugmentationConfig

# 40 images of 1000 pixels; class 1 in a quarter of them, class 2 in two, class 3 nowhere.
PIXELS = np.zeros((40, 4), dtype=np.int64)
PIXELS[:, 0] = 900
PIXELS[::4, 1] = 100
PIXELS[[5, 6], 2] = 40
SHARE = PIXELS.sum(0) / PIXELS.sum()


class TestOrder:
    def test_the_probabilities_of_the_paper(self) -> None:
        order = rare_class_order(PIXELS, temperature=0.5)
        expected = np.exp((1 - SHARE[:3]) / 0.5)
        assert order.probabilities[:3] == pytest.approx(expected / expected.sum())
        assert order.probabilities[3] == 0

    def test_classes_are_drawn_so_often(self) -> None:
        order = rare_class_order(PIXELS, temperature=0.5, seed=3)
        draws = np.concatenate([order(epoch) for epoch in range(500)])
        share = np.mean(np.isin(draws, [5, 6]))
        # An image of class 2 comes for its class, or for class 0 by chance.
        by_chance = order.probabilities[0] * 2 / 40
        assert share == pytest.approx(order.probabilities[2] + by_chance, abs=0.01)

    def test_images_of_a_class_take_turns(self) -> None:
        order = rare_class_order(PIXELS, temperature=1e-3)  # the rarest class alone
        for epoch in range(5):
            drawn = order(epoch)
            assert len(drawn) == 40
            assert sorted(set(drawn.tolist())) == [5, 6]
            assert np.bincount(drawn)[[5, 6]].tolist() == [20, 20]

    @pytest.mark.parametrize("temperature", [1e-6, 1e-3, 0.01, 1.0, 1e6])
    def test_any_temperature_is_a_distribution(self, temperature: float) -> None:
        order = rare_class_order(PIXELS, temperature=temperature)
        assert order.probabilities.sum() == pytest.approx(1)
        assert np.isfinite(order.probabilities).all()

    def test_a_large_temperature_draws_classes_evenly(self) -> None:
        order = rare_class_order(PIXELS, temperature=1e9)
        assert order.probabilities == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])

    def test_it_depends_on_seed_and_epoch_alone(self) -> None:
        one, same, other = (rare_class_order(PIXELS, seed=seed) for seed in (1, 1, 2))
        np.random.seed(0)  # noqa: NPY002
        later = [same(epoch).tolist() for epoch in (3, 0, 3)]
        assert [one(3).tolist(), one(0).tolist(), one(3).tolist()] == later
        assert one(0).tolist() != one(1).tolist()
        assert one(0).tolist() != other(0).tolist()
        assert one(0).tolist() != epoch_order(1, 0, 40).tolist()

    def test_a_speck_does_not_stand_for_its_class(self) -> None:
        pixels = np.array([[999, 1], [990, 10], [1000, 0]])
        assert [found.tolist() for found in rare_class_order(pixels).images] == [[0, 1, 2], [1]]
        specks = np.array([[999, 1], [1000, 0]])  # nobody has more
        assert rare_class_order(specks).images[1].tolist() == [0]

    def test_multi_label_takes_the_area(self) -> None:
        yes = np.array([[50, 0], [50, 1]])
        order = rare_class_order(yes, np.array([100, 100]), temperature=1.0)
        assert np.log(order.probabilities[1] / order.probabilities[0]) == pytest.approx(0.5 - 0.005)

    def test_nothing_to_draw(self) -> None:
        with pytest.raises(DataError, match=r"loader.sampling=rare_class .* loader.sampling=unif"):
            rare_class_order(np.zeros((3, 2), dtype=np.int64))


def steps(batch_size: int, accumulate: int, world_size: int, **given: Any) -> list[list[SampleKey]]:
    """The samples of each of the first steps, over all processes."""
    order = rare_class_order(PIXELS, temperature=0.1, seed=5)
    ranks = [
        list(
            islice(
                StepSampler(40, batch_size, accumulate, world_size, rank, 5, order=order, **given),
                25 * accumulate,
            )
        )
        for rank in range(world_size)
    ]
    return [
        sorted(
            key
            for rank in ranks
            for batch in rank[step * accumulate : (step + 1) * accumulate]
            for key in batch
        )
        for step in range(25)
    ]


class TestSampler:
    def test_a_step_is_the_same_set_however_it_is_split(self) -> None:
        whole = steps(4, 1, 1)
        assert whole == steps(2, 2, 1) == steps(2, 1, 2) == steps(1, 2, 2)

    def test_a_restart_is_the_tail(self) -> None:
        whole = steps(4, 1, 1)
        for start in (1, 9, 10, 13):
            assert steps(4, 1, 1, start_step=start)[: 25 - start] == whole[start:]

    def test_no_key_comes_twice(self) -> None:
        keys = [key for step in steps(4, 1, 1) for key in step]
        assert len(set(keys)) == len(keys)
        assert len({key[:2] for key in keys}) < len(keys)  # though samples do


def test_a_repeated_sample_is_augmented_differently() -> None:
    shapes = ShapesDataset(size=(48, 48), num_train=4)
    view = TrainView(
        shapes, TrainTransform(shapes.labels, AugmentationConfig(crop_size=(32, 32))), seed=0
    )
    first, second, third = (view[key] for key in ((0, 1), (0, 1, 1), (0, 1, 2)))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert isinstance(third, dict)
    assert not torch.equal(first["images"], second["images"])
    assert not torch.equal(second["images"], third["images"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rare_classes_are_seen_more(num_workers: int) -> None:
    shapes = ShapesDataset(size=(48, 48), num_train=48)
    report = count_dataset(shapes)
    transform = TrainTransform(shapes.labels, AugmentationConfig(crop_size=(40, 40), scale=(1, 1)))
    order = rare_class_order(report.image_pixels, temperature=0.05)
    share = []
    for chosen in (None, order):
        sampler = StepSampler(48, 8, order=chosen)
        loader = build_train_loader(
            shapes, transform, sampler, num_workers=num_workers, prefetch_factor=3
        )
        targets = torch.cat([batch["target"] for batch in islice(iterate(loader), 18)])
        share.append(torch.bincount(targets[targets != 255].flatten(), minlength=6) / len(targets))
    rarest = report.class_pixels.argmin()
    assert share[1][rarest] > 1.5 * share[0][rarest]
