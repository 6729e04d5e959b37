"""The jackknife against its definition, and the score against that of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segtrain.comparison.pseudo_values import ImageMetric
from segtrain.comparison.runs import ImageScores
from segtrain.metrics import Evaluation, MetricCollector, build_metrics

NAMES = ["iou", "dice", "recall", "accuracy", "fw_iou", "kappa", "mcc", "betti0_error"]
CLASSES = ("a", "b", "rare")


def evaluation(numbers: list[int], *, classes: list[str] | None = None) -> Evaluation:
    """The evaluation of some of eight images; only image 2 has the class `rare`."""
    collector = MetricCollector(build_metrics(NAMES), class_names=CLASSES, classes=classes)
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        target = torch.randint(0, 2, (1, 12, 12), generator=generator)
        wrong = torch.rand(1, 12, 12, generator=generator) < 0.2
        prediction = torch.where(wrong, 1 - target, target)
        if number == 2:
            target[:, 0, :6] = prediction[:, 0, :4] = 2
        target[:, -1] = 255
        collector.update(prediction, target, [f"{number}.png"])
    return collector.result()


@pytest.fixture
def images(tmp_path: Path) -> ImageScores:
    evaluation(list(range(8))).save_per_image(tmp_path / "per_image.npz")
    return ImageScores.read(tmp_path / "per_image.npz")


@pytest.mark.parametrize("name", NAMES)
def test_the_score_of_all_images_is_that_of_the_evaluation(images: ImageScores, name: str) -> None:
    (metric,) = build_metrics([name])
    expected = evaluation(list(range(8))).scores[name].mean
    assert ImageMetric(metric, images).score() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_pseudo_values_are_the_jackknife(images: ImageScores, name: str) -> None:
    (metric,) = build_metrics([name])
    found = ImageMetric(metric, images).pseudo_values()
    whole = evaluation(list(range(8))).scores[name].mean
    for left_out in range(8):
        if left_out == 2:
            continue  # without it, the class `rare` is undefined: see below
        others = [number for number in range(8) if number != left_out]
        part = evaluation(others).scores[name].mean
        assert found[left_out] == pytest.approx(8 * whole - 7 * part, rel=1e-9, abs=1e-9)


def test_a_class_in_a_single_image_keeps_its_value(images: ImageScores) -> None:
    (iou,) = build_metrics(["iou"])
    whole, part = evaluation(list(range(8))), evaluation([0, 1, 3, 4, 5, 6, 7])
    assert np.isnan(part.iou[2])
    without = np.mean([*part.iou[:2], whole.iou[2]])
    found = ImageMetric(iou, images).pseudo_values()[2]
    assert found == pytest.approx(8 * whole.miou - 7 * without)


def test_classes_and_one_class(images: ImageScores) -> None:
    (iou,) = build_metrics(["iou"])
    counted = evaluation(list(range(8)), classes=["b"])
    assert ImageMetric(iou, images, classes=["b"]).score() == pytest.approx(counted.miou)
    assert ImageMetric(iou, images, class_name="rare").score() == pytest.approx(counted.iou[2])


def test_for_a_mean_over_images_they_are_the_values(images: ImageScores) -> None:
    (betti,) = build_metrics(["betti0_error"])
    found = ImageMetric(betti, images, class_name="a").pseudo_values()
    assert found == pytest.approx(images.values["betti0_error"][:, 0].numpy())


def test_images_of_several_splits_are_sorted_by_name(tmp_path: Path) -> None:
    parts = []
    for numbers in ([5, 0, 2], [1, 4]):
        path = tmp_path / f"{numbers[0]}.npz"
        evaluation(numbers).save_per_image(path)
        parts.append(ImageScores.read(path))
    together = ImageScores.together(parts)
    expected = tmp_path / "all.npz"
    evaluation([0, 1, 2, 4, 5]).save_per_image(expected)
    whole = ImageScores.read(expected)
    assert together.names == whole.names
    assert torch.equal(together.counts, whole.counts)
