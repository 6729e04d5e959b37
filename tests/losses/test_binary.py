from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from segtrain.errors import ConfigError
from segtrain.losses import BinaryCrossEntropy


def test_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), 0.0, -math.log(3.0)]).reshape(1, 3, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.long)
    # sigmoid: 3/4 for the target's class, 1/2 and 1/4 for the others
    expected = -(math.log(3 / 4) + math.log(1 / 2) + math.log(3 / 4)) / 3
    assert BinaryCrossEntropy(num_classes=3)(logits, target).item() == pytest.approx(expected)


def test_agrees_with_torch_on_one_hot_targets() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 5, 6) * 3, torch.randint(0, 4, (2, 5, 6))
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = BinaryCrossEntropy(num_classes=4)(one, target)
    one_hot = F.one_hot(target, 4).movedim(-1, 1).float()
    expected = F.binary_cross_entropy_with_logits(two, one_hot)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_one_channel_tells_two_classes_apart() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 1, 5, 6) * 3, torch.randint(0, 2, (2, 5, 6))
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], target.float())
    torch.testing.assert_close(BinaryCrossEntropy(num_classes=1)(logits, target), expected)


def test_one_channel_with_ignored_pixels_and_weights() -> None:
    logits = torch.zeros(1, 1, 1, 3)
    logits[0, 0, 0, 1] = math.log(3.0)
    target = torch.tensor([[[0, 1, 255]]])
    loss = BinaryCrossEntropy(num_classes=1, class_weights=[1.0, 3.0])
    expected = (math.log(2) + 3 * math.log(4 / 3)) / 4
    assert loss(logits, target).item() == pytest.approx(expected)
    with pytest.raises(ConfigError, match="class_weights has 1 values, but num_classes is 1"):
        BinaryCrossEntropy(num_classes=1, class_weights=[1.0])
    with pytest.raises(ValueError, match=r"target holds 2 .*allowed are 0 to 1"):
        loss(logits, target.clamp(max=2))


@pytest.mark.parametrize("num_classes", [1, 3])
def test_hardness_is_the_sigmoid_of_the_target(num_classes: int) -> None:
    logits = torch.tensor([2.0, -1.0, 0.5])[:num_classes].reshape(1, -1, 1, 1).expand(1, -1, 1, 2)
    probability = BinaryCrossEntropy(num_classes=num_classes).target_probability(
        logits, torch.tensor([[[0, 1]]])
    )
    expected = [-2.0, 2.0] if num_classes == 1 else [2.0, -1.0]
    torch.testing.assert_close(probability.flatten(), torch.tensor(expected).sigmoid())
