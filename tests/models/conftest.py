from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

_REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "seg_hrnet.pt"


@pytest.fixture(scope="session")
def reference_seg_hrnet() -> dict[str, Any]:
    """Weights, inputs and outputs of the official seg_hrnet (w18_small_v1)."""
    if not _REFERENCE.exists():
        pytest.skip(f"no reference values at {_REFERENCE}")
    loaded: dict[str, Any] = torch.load(_REFERENCE, weights_only=True)
    return loaded
