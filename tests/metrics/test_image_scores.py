"""The score of each image, and the class that costs most."""

from __future__ import annotations

import pytest
import torch

from segtrain.engine.results import worst_and_best
from segtrain.metrics import Evaluation, MetricCollector, build_metrics
from segtrain.metrics.image_scores import image_scores

METRICS = ["iou", "accuracy", "hd95"]


def evaluation(classes: list[str] | None = None) -> Evaluation:
    """Three images of 2 x 4 pixels; class c is in the first one only, and is missed there."""
    collector = MetricCollector(
        build_metrics(METRICS), class_names=["a", "b", "c"], classes=classes
    )
    target = [[0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0]]
    predicted = [[0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0]]
    shape = (3, 2, 4)
    collector.update(
        torch.tensor(predicted).view(shape), torch.tensor(target).view(shape), ["x", "y", "z"]
    )
    return collector.result()


def test_images_are_ordered_by_their_mean_iou() -> None:
    found = image_scores(evaluation(), "mIoU")
    assert [image.name for image in found] == ["z", "x", "y"]
    # x: a 4/4, b 3/4, c 0. y: a 1/4, b 4/7. z: a 8/8.
    expected = [1, (1 + 3 / 4) / 3, (1 / 4 + 4 / 7) / 2]
    assert [image.value for image in found] == pytest.approx(expected)
    assert [image.class_name for image in found] == ["a", "c", "a"]


def test_classes_that_do_not_count_cost_nothing() -> None:
    found = {image.name: image for image in image_scores(evaluation(["a", "b"]), "mIoU")}
    assert (found["x"].value, found["x"].class_name) == (pytest.approx(7 / 8), "b")


def test_a_score_of_a_class_has_the_images_with_the_class() -> None:
    assert [image.name for image in image_scores(evaluation(), "iou[b]")] == ["x", "y"]
    assert [image.name for image in image_scores(evaluation(), "iou[c]")] == ["x"]


def test_the_smallest_distance_is_the_best() -> None:
    found = image_scores(evaluation(), "hd95")
    assert found[0].name == "z"
    assert found[0].value == 0 < found[-1].value
    assert {image.name: image.class_name for image in found}["x"] == "c"


def test_without_classes_the_class_with_most_wrong_pixels_costs_most() -> None:
    found = {image.name: image for image in image_scores(evaluation(), "accuracy")}
    assert found["y"].value == pytest.approx(5 / 8)
    assert found["x"].class_name in ("b", "c")


def test_no_image_is_listed_twice() -> None:
    listed = worst_and_best(evaluation(), "mIoU", 2)
    assert [image["name"] for image in listed["best"]] == ["z", "x"]
    assert [image["name"] for image in listed["worst"]] == ["y"]
    assert listed["worst"][0]["class"] == "a"
    assert worst_and_best(evaluation(), "mIoU", 1)["worst"][0]["name"] == "y"
