from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def reference_seg_hrnet(reference: Callable[[str], Any]) -> dict[str, Any]:
    """Weights, inputs and outputs of the official seg_hrnet (w18_small_v1)."""
    values: dict[str, Any] = reference("seg_hrnet.pt")
    return values


@pytest.fixture(scope="session")
def reference_seg_hrnet_ocr(reference: Callable[[str], Any]) -> dict[str, Any]:
    """Weights, inputs and outputs [aux, main] of the official seg_hrnet_ocr (w18_small_v1)."""
    values: dict[str, Any] = reference("seg_hrnet_ocr.pt")
    return values
