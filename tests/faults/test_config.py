"""Mistakes in a configuration, found before anything is read or written."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from segtrain.cli.main import run_command
from segtrain.data import DATASETS
from segtrain.engine import OPTIMIZERS, SCHEDULERS
from segtrain.losses import LOSSES, MININGS
from segtrain.losses.targets import TARGETS
from segtrain.metrics import METRICS
from segtrain.models import MODELS
from segtrain.models.backbones.registry import BACKBONES
from segtrain.models.heads.registry import HEADS
from tests.helpers import SMALL

Last = Callable[[], str]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(last_line: Last, *words: str) -> str:
    """The message of a run that is refused as a mistake and writes nothing."""
    assert run_command("train", [*SMALL, "run_dir=run", "trainer.max_steps=1", *words]) == 2
    assert not Path("run").exists()
    line = last_line()
    assert line.startswith("error: ")
    return line


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lrr=1", "unknown key lrr; did you mean optimizer.lr?"),
        ("+lrr=1", "unknown key lrr; did you mean optimizer.lr?"),
        ("+optimizer.lrr=1", "optimizer.lrr: optimizer 'adamw' has no parameter 'lrr'"),
        ("trainer.max_step=1", "did you mean 'max_steps'?"),
        ("optimizer.lr=", "optimizer.lr must be a number, got ''"),
        ("optimizer.lr=abc", "optimizer.lr must be a number, got 'abc'"),
        ("optimizer.lr=nan", "optimizer.lr must be a number, got nan"),
        ("optimizer.lr=[0.1]", "optimizer.lr must be a number, got [0.1]"),
        ("augmentation.crop_size=0", "augmentation.crop_size must be a list"),
        ("augmentation.crop_size=[0,0]", "augmentation.crop_size must be at least 1, got [0, 0]"),
        ("trainer.checkpoint_every=-1", "trainer.checkpoint_every must be above 0, got -1"),
        ("trainer.batch_size=0", "trainer.batch_size must be above 0, got 0"),
    ],
)
def test_wrong_keys_and_values(word: str, said: str, last_line: Last) -> None:
    assert said in refused(last_line, word)


@pytest.mark.fault("F50")
def test_a_wrong_key_in_a_file(last_line: Last) -> None:
    Path("own/experiment").mkdir(parents=True)
    text = "# @package _global_\noptimizer:\n  lrr: 1\n"
    Path("own/experiment/mine.yaml").write_text(text)
    line = refused(last_line, "--config-dir=own", "experiment=mine")
    assert "optimizer.lrr" in line
    assert "did you mean 'lr'?" in line


NAMES = {
    ("loss={}",): LOSSES.names(),
    ("loss=sum", "loss.terms={{{}: {{}}}}"): LOSSES.names(),
    ("mining={}",): MININGS.names(),
    ("model={}",): MODELS.names(),
    ("model=encoder_decoder", "model.backbone={}"): BACKBONES.names(),
    ("model=encoder_decoder", "model.head={}"): HEADS.names(),
    ("optimizer={}",): OPTIMIZERS.names(),
    ("scheduler={}",): SCHEDULERS.names(),
    ("dataset={}",): DATASETS.names(),
    ("evaluation.metrics=[{}]",): METRICS.names(),
    ("criterion.output_targets={{aux: {}}}",): TARGETS.names(),
}


@pytest.mark.fault("F51")
@pytest.mark.parametrize("words", NAMES)
def test_misspelt_names_are_refused_with_the_closest(
    words: tuple[str, ...], last_line: Last
) -> None:
    for name in NAMES[words]:
        line = refused(last_line, *(word.format(f"{name}q") for word in words))
        assert f"'{name}q'; did you mean '{name}'?" in line


WRONG_WEIGHTS = {
    "5 of 6": ([1.0] * 5, "has 5 values, but num_classes is 6"),
    "7 of 6": ([1.0] * 7, "has 7 values, but num_classes is 6"),
    "negative": ([1.0, -1.0, 1.0, 1.0, 1.0, 1.0], "not negative"),
    "infinite": ([1.0, math.inf, 1.0, 1.0, 1.0, 1.0], "must be finite"),
    "nan": ([1.0, math.nan, 1.0, 1.0, 1.0, 1.0], "must be a list of (a number)"),
}


@pytest.mark.fault("F52")
@pytest.mark.parametrize("mistake", WRONG_WEIGHTS)
@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal", "lovasz_softmax"])
def test_wrong_class_weights(name: str, mistake: str, last_line: Last) -> None:
    weights, said = WRONG_WEIGHTS[mistake]
    line = refused(last_line, f"loss={name}", f"loss.class_weights={weights}".replace(" ", ""))
    assert "loss.class_weights" in line
    assert said in line


@pytest.mark.fault("F54")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "dataset.ignore_label=2",
            "dataset.ignore_label=2 is also a class id, because dataset.num",
        ),
        ("model.num_classes=3", "model.num_classes is not set here"),
        ("loss.num_classes=3", "loss.num_classes is not set here"),
        ("loss.ignore_label=3", "loss.ignore_label is not set here"),
    ],
)
def test_classes_that_contradict_each_other(word: str, said: str, last_line: Last) -> None:
    assert said in refused(last_line, word)
