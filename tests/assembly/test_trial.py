"""Losses, models and datasets that a user wrote wrong are found before training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segtrain.cli.main import run_command
from segtrain.data import DATASETS
from segtrain.losses import LOSSES
from segtrain.models import MODELS
from tests.helpers import THREE_STEPS, TINY


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("code", "words", "exit_code", "sentence"),
    [
        ("def part(logits, target):\n    return logits.argmax(1).float()", [], 2, "trial batch"),
        ("def part(logits, target):\n    raise KeyError('x')", [], 2, "KeyError"),
        (
            "class part(segtrain.PixelLoss):\n    def pixel_loss(self, logits, target):\n"
            "        return logits.mean()",
            [],
            2,
            "must return a map",
        ),
        ("class part(segtrain.PixelLoss):\n    pass", [], 2, "cannot be built"),
    ],
)
def test_a_wrong_loss_is_found_before_training(
    tmp_path: Path,
    last_line: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    words: list[str],
    exit_code: int,
    sentence: str,
) -> None:
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))
    source = f'import segtrain\n\n\n@segtrain.register_loss("wrong")\n{code}\n'
    (tmp_path / "wrong.py").write_text(source)
    given = [*THREE_STEPS[1:], f"plugins=[wrong.py,{TINY}]", "loss=wrong", "run_dir=run", *words]
    assert run_command("train", given) == exit_code
    assert sentence in last_line()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise RuntimeError('no')", "failed on a trial image: RuntimeError: no"),
        ("return images", "must return a dict of logits"),
        ("return {'out': images}", "must return logits (N, 6, h, w), got (1, 3, 64, 64)"),
    ],
)
def test_a_wrong_model_is_found_before_training(
    tmp_path: Path,
    last_line: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(MODELS, "_factories", dict(MODELS._factories))
    (tmp_path / "wrong.py").write_text(
        'import segtrain\n\n\n@segtrain.register_model("wrong")\nclass Wrong(segtrain.Segmentor):\n'
        f"    def forward(self, images):\n        {body}\n"
    )
    assert run_command("train", [*THREE_STEPS[2:], "plugins=[wrong.py]", "model=wrong"]) == 2
    assert sentence in last_line()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return np.zeros((8, 8)), np.zeros((8, 8)), 'a'", "images (H, W, 3), uint8"),
        ("raise KeyError(index)", "failed on its first sample"),
        (
            "return segtrain.Sample(np.zeros((8, 8, 3), np.uint8),"
            " np.full((8, 8), 9 if index else 0), 'late')",
            "sample 'late': its target holds 9",
        ),
    ],
)
def test_a_wrong_dataset_is_a_data_error(
    tmp_path: Path,
    last_line: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(DATASETS, "_factories", dict(DATASETS._factories))
    (tmp_path / "wrong.py").write_text(
        "import numpy as np\nimport segtrain\n\n\n"
        '@segtrain.register_dataset("wrong")\nclass Wrong(segtrain.SegmentationDataset):\n'
        "    def __init__(self, split='train'):\n"
        "        super().__init__(segtrain.LabelContract(num_classes=2))\n\n"
        "    def __len__(self):\n        return 8\n\n"
        f"    def __getitem__(self, index):\n        {body}\n"
    )
    words = [word for word in THREE_STEPS[1:] if not word.startswith("dataset.")]
    given = [*words, f"plugins=[wrong.py,{TINY}]", "dataset=wrong", "run_dir=run"]
    assert run_command("train", given) == 3
    assert sentence in last_line()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["optimizer.betas=[1,2]"], 2, "optimizer.betas must be from 0 to 1, got [1.0, 2.0]"),
        (
            ["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"],
            2,
            "cannot be built",
        ),
        (["scheduler.div_factor=0"], 2, "scheduler.div_factor must be at least 1"),
        (["scheduler=poly", "scheduler.power=-3"], 2, "scheduler.power must be above 0"),
        (["seed=99999999999999999999"], 2, "seed must be from 0"),
        (["criterion.output_weights={out:-1,aux:1}"], 2, "output_weights.out"),
        (["loss=cross_entropy,focal"], 2, "add -m"),
        (["-m", "--cfg", "loss=cross_entropy,focal"], 2, "leave -m out"),
        (["-m", "seed=0,1"], 2, "a sweep has sweep_dir="),
        (["=focal"], 2, "no key"),
        (["loss.mining=foo"], 2, "unknown mining 'foo'"),
        (["loss=sum", "loss.terms.dice.smooth=a"], 2, "loss.terms.dice.smooth must be a number"),
        (["evaluation.size=[0,0]"], 2, "evaluation.size"),
        (["run_dir=file"], 6, "file"),
    ],
)
def test_values_that_only_their_part_can_judge(
    words: list[str],
    code: int,
    sentence: str,
    last_line: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    (tmp_path / "file").write_text("")
    given = (
        [*THREE_STEPS, *words] if "run_dir=file" in words else [*THREE_STEPS, "run_dir=run", *words]
    )
    assert run_command("train", given) == code
    assert sentence in last_line()
    assert not (tmp_path / "run").exists()
