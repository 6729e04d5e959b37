from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import nn

from segtrain.cli.main import run_command
from segtrain.models import Segmentor

collect_ignore = ["tiny.py"]  # it registers a model, and the plugin loader is to do that
TINY = Path(__file__).parent / "tiny.py"
SMALL = [
    f"plugins=[{TINY}]",
    "model=tiny",
    "dataset.size=[48,48]",
    "dataset.num_train=32",
    "dataset.num_val=6",
    "trainer.batch_size=4",
    "trainer.log_every=1",
    "trainer.log_images=0",
    "trainer.device=cpu",
    "loader.num_workers=0",
    "evaluation.batch_size=2",
]


@pytest.fixture
def small() -> list[str]:
    """Overrides that make a run small."""
    return SMALL


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., int]:
    """Train the tiny model: the name of the run and overrides in, the exit code out."""

    def run(name: str, *words: str) -> int:
        return run_command("train", [*SMALL, f"run_dir={tmp_path / name}", *words])

    return run


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """What a run wrote to ``metrics.jsonl``, without what depends on the clock."""

    def read(name: str) -> list[dict[str, Any]]:
        found = []
        for text in (tmp_path / name / "metrics.jsonl").read_text().splitlines():
            line = json.loads(text)
            line.pop("images_per_second", None)
            line.get("evaluation", {}).pop("seconds", None)
            found.append(line)
        return found

    return read


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
