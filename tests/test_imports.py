"""What a fresh `import segtrain` loads, which decides how long every command takes to start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers import ROOT

HEAVY = (
    "albumentations",
    "cv2",
    "hydra",
    "mlflow",
    "omegaconf",
    "tensorboard",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "torchvision",
    "trackio",
    "wandb",
)

DISTANCE = """
import torch
from segtrain.losses.distance import distance_to
distance_to(torch.ones(1, 2, 2, dtype=torch.bool))
"""


def loaded(code: str) -> set[str]:
    """The modules of HEAVY that a new process has loaded after `code`."""
    code += f"\nimport sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("code", "expected"),
    [("import segtrain", set()), (DISTANCE, {"cv2"})],
    ids=["segtrain", "distance_to"],
)
def test_heavy_libraries_are_imported_where_they_are_used(code: str, expected: set[str]) -> None:
    assert loaded(code) == expected
