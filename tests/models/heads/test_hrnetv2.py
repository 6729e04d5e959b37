"""The layers of the head of HRNetV2."""

from __future__ import annotations

import torch

from segtrain.models.heads import HRNetHead


def test_dropout_acts_in_training_only_and_adds_no_key() -> None:
    head = HRNetHead(in_channels=64, num_classes=3, dropout=0.5)
    plain = HRNetHead(in_channels=64, num_classes=3)
    plain.load_state_dict(head.state_dict())
    features = torch.randn(2, 64, 4, 4)
    assert torch.equal(head.eval()(features), plain.eval()(features))
    assert not torch.allclose(head.train()(features), plain.train()(features))
