from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.helpers import SHARED


def _load(name: str) -> dict[str, Any]:
    path = SHARED / "reference" / name
    if not path.exists():
        pytest.skip(f"no reference values at {path}")
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


@pytest.fixture(scope="session")
def reference_seg_hrnet() -> dict[str, Any]:
    """Weights, inputs and outputs of the official seg_hrnet (w18_small_v1)."""
    return _load("seg_hrnet.pt")


@pytest.fixture(scope="session")
def reference_seg_hrnet_ocr() -> dict[str, Any]:
    """Weights, inputs and outputs [aux, main] of the official seg_hrnet_ocr (w18_small_v1)."""
    return _load("seg_hrnet_ocr.pt")
