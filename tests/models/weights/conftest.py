"""Fixtures for the tests of weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from segtrain.models import MODELS
from tests.models.weights.helpers import (
    State,
)


@pytest.fixture(scope="session")
def states() -> Callable[[str], State]:
    """Random weights by model name, built once per model."""
    known: dict[str, State] = {}

    def of(name: str) -> State:
        if name not in known:
            model = MODELS.build(name, num_classes=5)
            generator = torch.Generator().manual_seed(len(name))
            for key, value in model.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.rand(value.shape, generator=generator) * 0.1 - 0.03)
                    if key.endswith("running_var"):
                        value.abs_().add_(0.5)
                else:
                    value.fill_(7)
            known[name] = deepcopy(model.state_dict())
        return known[name]

    return of
