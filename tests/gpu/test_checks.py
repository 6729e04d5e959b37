"""The checks that ``benchmarks/gpu.py`` runs, on a GPU, and on the CPU where that is quick."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from segtrain.losses import LOSSES
from tests.helpers import load_benchmark

CHECKS: ModuleType = load_benchmark("gpu_checks")
NAMES = list(CHECKS.checks())


def run(name: str, device: str) -> None:
    try:
        CHECKS.checks()[name](torch.device(device))
    except CHECKS.Skipped as reason:
        pytest.skip(str(reason))


def test_every_loss_is_checked() -> None:
    known = [name for name in LOSSES.names() if not name.startswith("docs_")]  # of docstrings
    ours = {name for name in known if LOSSES.get(name).__module__.startswith("segtrain.")}
    assert {f"loss {name}" for name in ours} <= set(NAMES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("default")  # the libraries of a GPU have warnings of their own
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(name: str) -> None:
    run(name, "cuda")


@pytest.mark.parametrize("name", NAMES)
def test_on_the_cpu(name: str) -> None:
    run(name, "cpu")
