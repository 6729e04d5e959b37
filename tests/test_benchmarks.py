"""Every loss that can be chosen trains the embedded default."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from segtrain.losses import LOSSES
from tests.helpers import ROOT


def load() -> Any:
    path = ROOT / "benchmarks" / "every_loss.py"
    spec = importlib.util.spec_from_file_location("every_loss", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


EVERY = load()


def test_every_loss_has_a_preset() -> None:
    ours = [name for name in LOSSES.names() if LOSSES.get(name).__module__.startswith("segtrain.")]
    missing = [name for name in ours if f"loss={name}" not in EVERY.choices()]
    assert [name for name in missing if not name.startswith("docs_")] == []


@pytest.mark.slow
@pytest.mark.parametrize("choice", EVERY.choices())
def test_learns_in_200_steps(choice: str, tmp_path: Path) -> None:
    outcome = EVERY.train(choice, tmp_path / "run", 200, "trainer.device=cpu")
    assert outcome.code == 0
    assert outcome.has_learned, outcome
