from __future__ import annotations

from typing import ClassVar

import pytest
from torch import nn

from segtrain.models import Segmentor


class Linear(Segmentor):
    """A backbone, a norm and a head of one layer each."""

    head_prefixes: ClassVar[tuple[str, ...]] = ("classifier",)

    def __init__(self) -> None:
        super().__init__(num_classes=2)
        self.backbone = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.classifier = nn.Conv2d(3, 2, 1)


@pytest.fixture
def linear() -> Segmentor:
    return Linear()
