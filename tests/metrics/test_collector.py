"""The collector: merging processes, files per image, pictures, choices."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import segtrain
from segtrain.errors import ConfigError
from segtrain.metrics import (
    METRICS,
    MaskMetric,
    MetricCollector,
    build_metrics,
    confusion_picture,
    larger_is_better,
)
from tests.metrics.conftest import IGNORE

NAMES = ["a", "b", "c", "d"]
CHOSEN = ["iou", "accuracy", "assd", "nll", "auc"]


def collect(prediction: Tensor, target: Tensor, indices: list[int]) -> MetricCollector:
    collector = MetricCollector(build_metrics(CHOSEN), class_names=NAMES, ignore_label=IGNORE)
    for index in indices:
        logits = torch.nn.functional.one_hot(prediction[index], 4).permute(2, 0, 1).float()
        part = slice(index, index + 1)
        collector.update(
            prediction[part], target[part], [f"{index}"], lambda _, x=logits: [(slice(None), x)]
        )
    return collector


@pytest.mark.fault("F39")
def test_several_processes_give_the_result_of_one(random_pair: tuple[Tensor, Tensor]) -> None:
    whole = collect(*random_pair, [0, 1, 2, 3]).result()
    parts = [collect(*random_pair, part) for part in ([3, 0, 2], [1], [])]
    merged = parts[0]
    merged.merge([part.state() for part in parts])
    found = merged.result()
    assert found.names == ["0", "1", "2", "3"]
    assert torch.equal(found.counts, whole.counts)
    assert torch.equal(found.confusion, whole.confusion)
    for name, score in whole.scores.items():
        assert found.scores[name].mean == pytest.approx(score.mean, rel=1e-12)
        assert found.scores[name].per_class == pytest.approx(score.per_class, nan_ok=True)
    for name, values in whole.values.items():
        torch.testing.assert_close(found.values[name], values, equal_nan=True)


def test_nothing_was_collected() -> None:
    evaluation = collect(torch.zeros(0, 2, 2).long(), torch.zeros(0, 2, 2).long(), []).result()
    assert all(math.isnan(score.mean) for score in evaluation.scores.values())
    assert math.isnan(evaluation.miou)


def test_the_file_per_image(random_pair: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    evaluation = collect(*random_pair, [2, 0]).result()
    evaluation.save_per_image(tmp_path / "per_image.npz")
    with np.load(tmp_path / "per_image.npz") as found:
        arrays = dict(found)
    assert set(arrays) == {*("names", "classes", "tp", "fp", "fn", "tn"), "assd", "nll", "auc"}
    assert list(arrays["classes"]) == NAMES
    assert arrays["tp"].dtype == np.int64
    assert arrays["tp"].shape == arrays["assd"].shape == (2, 4)
    assert arrays["nll"].shape == (2,)
    total = arrays["tp"] + arrays["fp"] + arrays["fn"] + arrays["tn"]
    assert (total == 17 * 30).all()


def test_the_shapes_must_agree() -> None:
    collector = MetricCollector(build_metrics(["iou"]), class_names=NAMES)
    with pytest.raises(ValueError, match=r"prediction is \(1, 2, 2\) but target is \(1, 3, 2\)"):
        collector.update(torch.zeros(1, 2, 2).long(), torch.zeros(1, 3, 2).long(), ["x"])


def test_unknown_classes() -> None:
    for classes, message in ((["bb"], "unknown class 'bb'"), ([], "is empty")):
        with pytest.raises(ConfigError, match=rf"^evaluation\.classes:? {message}"):
            MetricCollector(build_metrics(["iou"]), class_names=NAMES, classes=classes)


def test_which_direction_is_better() -> None:
    assert larger_is_better("mIoU")
    assert larger_is_better("dice[a]")
    assert not larger_is_better("hd95[a]")
    assert not larger_is_better("ece")


def test_every_metric_is_listed_and_documented() -> None:
    names = segtrain.list_metrics()
    expected = (
        "accuracy assd auc betti0_error betti1_error boundary_f boundary_iou brier cldice dice ece"
        " fw_iou hd95 iou kappa mcc mean_accuracy nll nsd precision recall specificity"
    )
    assert names == expected.split()
    for name in names:
        assert METRICS.get(name).__doc__


def test_a_metric_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "_factories", dict(METRICS._factories))

    @segtrain.register_metric("area_error")
    class AreaError(MaskMetric):
        """Difference of the areas."""

        larger_is_better = False

        def __init__(self, *, scale: float = 1.0) -> None:
            self.scale = scale

        def image_value(self, prediction: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
            return self.scale * abs(int(prediction.sum()) - int(target.sum()))

    (metric,) = build_metrics([{"name": "area_error", "scale": 2}])
    collector = MetricCollector([metric], class_names=["a", "b"])
    collector.update(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 255]]]), ["x"])
    assert collector.result().scores["area_error"].per_class == [2.0, 2.0]


@pytest.mark.parametrize(("classes", "size"), [(3, 3 * 44), (60, 60 * 8)])
def test_the_picture_of_the_confusion(classes: int, size: int) -> None:
    confusion = torch.diag(torch.arange(classes))
    picture = confusion_picture(confusion, [f"class {index}" for index in range(classes)])
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3
    assert min(picture.shape[1:]) >= size
    row, column = picture.shape[1] - 3, picture.shape[2] - 3
    assert picture[:, row, column].tolist() == [8, 48, 107]  # all pixels of the last class


def test_the_means_of_the_results_follow_the_classes(random_pair: tuple[Tensor, Tensor]) -> None:
    collector = MetricCollector(
        build_metrics(["iou", "mean_accuracy"]), class_names=NAMES, classes=["b", "c"]
    )
    collector.update(*random_pair, ["0", "1", "2", "3"])
    evaluation = collector.result()
    assert evaluation.miou == evaluation.scores["iou"].mean
    assert evaluation.mean_accuracy == evaluation.scores["mean_accuracy"].mean


def test_a_function_is_no_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "_factories", dict(METRICS._factories))
    segtrain.register_metric("plain_in_test")(lambda prediction, target: 0.0)
    with pytest.raises(ConfigError, match="not a subclass of CountMetric"):
        build_metrics(["plain_in_test"])
