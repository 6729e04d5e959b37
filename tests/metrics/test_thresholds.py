"""The sweep of thresholds, against one evaluation per threshold."""

from __future__ import annotations

import pytest
import torch

from segtrain.engine.class_ids import predict_ids
from segtrain.metrics.thresholds import THRESHOLDS, ThresholdCounts

K = 3


def test_the_scores_are_those_of_predictions_at_each_threshold() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, K, 24, 20, generator=generator)
    logits[0, 0, 0, :3] = torch.tensor([0.3, 0.5, 0.7]).logit()  # pixels on a threshold
    target = (logits + 2 * torch.randn(logits.shape, generator=generator) > 1.5).long()
    valid = torch.rand(2, 24, 20, generator=generator) > 0.2
    counts = ThresholdCounts(K, torch.device("cpu"))
    for index in range(2):
        for rows in (slice(0, 9), slice(9, 24)):
            part = (logits[index][:, rows], target[index][:, rows], valid[index][rows])
            counts.update(*part)
    scores = counts.scores()
    for place in (0, 299, 499, 699, 998):
        thresholds = [THRESHOLDS[place]] * K
        ids = predict_ids(logits, (24, 20), False, multi_label=True, thresholds=thresholds)
        for logit in range(K):
            found, actual = ids[:, logit][valid] == 1, target[:, logit][valid] == 1
            both, either = int((found & actual).sum()), int((found | actual).sum())
            assert float(scores.iou[logit, place]) == pytest.approx(both / either)
            assert float(scores.dice[logit, place]) == pytest.approx(2 * both / (both + either))
    for logit, chosen in enumerate(scores.chosen):
        best = scores.iou[logit].max()
        assert float(scores.iou[logit, THRESHOLDS.index(chosen)]) == float(best)
        assert float(scores.dice[logit].max()) == float(
            scores.dice[logit, THRESHOLDS.index(chosen)]
        )


def test_a_class_without_positive_pixels_keeps_one_half() -> None:
    counts = ThresholdCounts(1, torch.device("cpu"))
    counts.update(torch.randn(1, 9), torch.zeros(1, 9), torch.ones(9, dtype=torch.bool))
    assert counts.scores().chosen == (0.5,)


def test_of_equal_thresholds_the_one_nearest_to_one_half_is_chosen() -> None:
    counts = ThresholdCounts(1, torch.device("cpu"))
    logits = torch.tensor([[0.1, 0.9]]).logit()
    counts.update(logits, torch.tensor([[0, 1]]), torch.ones(2, dtype=torch.bool))
    assert counts.scores().chosen == (0.5,)
