"""Class weights from the data, rare-class sampling and caches, in whole runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segtrain.assembly.check import check_config, check_parts
from segtrain.cli.main import run_command
from segtrain.data import ShapesDataset
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.engine.trainer import Trainer
from segtrain.losses import LOSSES, Term
from segtrain.losses.class_weights import WORDS
from tests.assembly.test_label_kinds import two_discs, write_multi_label
from tests.helpers import ROOT, differences, outcome, state, torchrun

TERMS: dict[str, Any] = {
    "sum": {"terms": {"cross_entropy": {}}},
    "uncertainty": {"terms": {"dice": {}}},
}
WEIGHTED = [name for name in LOSSES.names() if "class_weights" in LOSSES.schema(name)]
Train = Callable[..., int]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[list[list[float]]]:
    """The class weights of every term, of each run."""
    found: list[list[list[float]]] = []
    fit = Trainer.fit

    def keep(self: Trainer) -> Any:
        terms = [module for module in self.criterion.modules() if isinstance(module, Term)]
        found.append([term.get_buffer("class_weights").tolist() for term in terms])
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", keep)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> list[str]:
    """Overrides for a folder of 8 and 4 images in which class 2 is rare, and class 3 nowhere."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 8), ("val", 4)):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for index in range(number):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            ids = np.zeros((40, 48), np.uint8)
            ids[:, 24:] = 1
            ids[:4, :4] = 255
            if index == 0:
                ids[10:20, 10:20] = 2
            Image.fromarray(pixels).save(tmp_path / "data" / "images" / split / f"{index}.png")
            Image.fromarray(ids).save(tmp_path / "data" / "masks" / split / f"{index}.png")
    return [
        *("dataset=folder", f"dataset.root={tmp_path / 'data'}", "dataset.num_classes=4"),
        *("dataset.class_names=[road,car,dog,ufo]", "augmentation.crop_size=[32,32]"),
    ]


@pytest.fixture
def train_folder(tmp_path: Path, small: list[str], folder: list[str]) -> Train:
    own = [word for word in small if not word.startswith("dataset.")]

    def run(name: str, *words: str) -> int:
        given = [*own, *folder, f"run_dir={tmp_path / name}", *words]
        return run_command("train", given)

    return run


def written(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "class_weights.json").read_text())
    return found


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_check_of_the_configuration_needs_no_counts(name: str) -> None:
    raw = {
        "dataset": {"name": "shapes"},
        "model": {"name": "hrnet_w18_small_v1"},
        "loss": {"name": name, "class_weights": "auto", **TERMS.get(name, {})},
        "optimizer": {"name": "sgd"},
        "scheduler": {"name": "poly"},
        "trainer": {"epochs": 1},
    }
    for word in WORDS:
        raw["loss"]["class_weights"] = word  # type: ignore[index]
        check_parts(check_config(raw))


def test_auto_on_a_dataset_without_files(
    train: Train, tmp_path: Path, used: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("run", "trainer.max_steps=2", "loss.class_weights=auto") == 0
    targets = [np.asarray(s.target) for s in _all(ShapesDataset(size=(48, 48), num_train=32))]
    pixels = np.array([sum((ids == c).sum() for ids in targets) for c in range(6)])
    expected = 1 / np.log(1.02 + pixels / pixels.sum())
    expected /= expected.mean()
    for weights in used[0]:  # of the main output and of the auxiliary one
        assert weights == pytest.approx(expected, rel=1e-6)
    content = written(tmp_path / "run")
    assert content["method"] == "inverse_log"
    assert list(content["class_weights"].values()) == pytest.approx(expected)
    assert list(content["pixel_share"].values()) == pytest.approx(pixels / pixels.sum())
    log = (tmp_path / "run" / "train.log").read_text()
    assert "class_weights=auto (inverse_log): background 0." in log
    assert "class weights: auto (inverse_log)" in capsys.readouterr().err


def _all(dataset: ShapesDataset) -> list[Any]:
    return [dataset[index] for index in range(len(dataset))]


def test_the_file_gives_the_same_weights(train: Train, tmp_path: Path, used: list[Any]) -> None:
    words = ["trainer.max_steps=1", "loss=ce_dice"]
    assert train("one", *words, "loss.class_weights=effective_number") == 0
    path = tmp_path / "one" / "class_weights.json"
    assert train("other", *words, f"loss.class_weights={path}") == 0
    assert used[0] == used[1]
    assert not (tmp_path / "other" / "class_weights.json").exists()


def test_a_folder(train_folder: Train, tmp_path: Path, used: list[Any]) -> None:
    assert train_folder("run", "trainer.max_steps=1", "loss.class_weights=median_frequency") == 0
    of_image = 40 * 48 - 16
    shares = np.array([(8 * (960 - 16) - 100) / (8 * of_image), 0.5 * 1920 / of_image])
    shares = np.append(shares, 100 / of_image)
    expected = np.median(shares) / shares
    expected = [*(expected / expected.mean()), 1.0]
    assert used[0][0] == pytest.approx(expected, rel=1e-6)
    log = (tmp_path / "run" / "train.log").read_text()
    assert "no pixel in the train split, so the class weight is 1: ufo" in log


def test_terms_may_ask_for_weights_of_their_own(
    train_folder: Train, tmp_path: Path, used: list[Any]
) -> None:
    words = [
        "loss=ce_dice",
        "loss.terms.cross_entropy.class_weights=auto",
        "loss.terms.dice.class_weights=inverse_frequency",
        "trainer.max_steps=1",
    ]
    assert train_folder("run", *words) == 0
    names = sorted(path.name for path in (tmp_path / "run").glob("class_weights*"))
    assert names == ["class_weights_auto.json", "class_weights_inverse_frequency.json"]
    assert used[0][0] != used[0][1]


def test_a_steep_weight_is_said(train_folder: Train, tmp_path: Path, folder: list[str]) -> None:
    for index in range(8):
        path = tmp_path / "data" / "masks" / "train" / f"{index}.png"
        ids = np.zeros((40, 48), np.uint8)
        ids[0, 0] = index == 0
        Image.fromarray(ids).save(path)
    assert train_folder("run", "trainer.max_steps=1", "loss.class_weights=inverse_frequency") == 0
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"the weight of car is {8 * 1920 - 1} times that of road" in log


def test_the_data_is_counted_before_it_is_weighed(
    train_folder: Train, tmp_path: Path, folder: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data" / "masks" / "train" / "3.png"
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(path)
    assert train_folder("run", "trainer.max_steps=1", "loss.class_weights=auto") == 3
    assert "3.png: the mask holds value 7" in capsys.readouterr().err.splitlines()[-1]


BALANCED = ["loss=bce", "loss.class_weights=auto", "loader.sampling=rare_class"]


@pytest.mark.parametrize("cache", ["none", "compressed", "decoded"])
def test_one_logit_has_two_weights(
    train_folder: Train, tmp_path: Path, used: list[Any], cache: str
) -> None:
    words = ["dataset.num_classes=1", "dataset.class_names=[dog]", "dataset.label_map={0-1:0,2:1}"]
    assert (
        train_folder("run", *BALANCED, *words, "trainer.max_steps=2", f"loader.cache={cache}") == 0
    )
    share = 100 / (8 * (40 * 48 - 16))
    expected = 1 / np.log(1.02 + np.array([1 - share, share]))
    assert used[0][0] == pytest.approx(expected / expected.mean(), rel=1e-6)
    assert list(written(tmp_path / "run")["class_weights"]) == ["background", "dog"]


@pytest.mark.parametrize("cache", ["none", "compressed", "decoded"])
def test_several_classes_per_pixel(
    small: list[str], tmp_path: Path, used: list[Any], cache: str
) -> None:
    words = write_multi_label(tmp_path, files=True)
    own = [word for word in small if not word.startswith("dataset.")]
    own += [f"run_dir={tmp_path / 'run'}", "dataset=folder", f"dataset.root={tmp_path}"]
    own += [*BALANCED, "trainer.max_steps=2", f"loader.cache={cache}"]
    assert run_command("train", [*own, *words]) == 0
    bits = np.array([two_discs(index)[1] for index in range(8)])
    bits[0, ..., 1] = False  # there is no such file
    share = bits.mean((0, 1, 2))
    expected = 1 / np.log(1.02 + share)
    assert used[0][0] == pytest.approx(expected / expected.mean(), rel=1e-6)
    assert written(tmp_path / "run")["pixel_share"] == pytest.approx(
        {"red": share[0], "green": share[1]}
    )


STEPS = ["trainer.max_steps=12", "augmentation.crop_size=[40,40]", "loss.class_weights=auto"]


@pytest.mark.fault("F10")
@pytest.mark.parametrize("others", [[], ["loader.sampling=rare_class", "loader.cache=decoded"]])
def test_resume_is_exact(train: Train, tmp_path: Path, used: list[Any], others: list[str]) -> None:
    words = [*STEPS, *others]
    assert train("straight", *words) == 0
    assert train("parts", *words, "trainer.stop_after=5") == 0
    assert train("parts", *words, "resume=auto") == 0
    assert used[0] == used[1] == used[2]
    assert differences(state(tmp_path / "straight"), state(tmp_path / "parts")) == []
    assert written(tmp_path / "straight") == written(tmp_path / "parts")


def test_a_run_keeps_the_weights_that_it_began_with(
    train_folder: Train, tmp_path: Path, used: list[Any]
) -> None:
    words = ["trainer.batch_size=4", "loss.class_weights=inverse_frequency"]
    assert train_folder("run", *words, "trainer.max_steps=2") == 0
    before = written(tmp_path / "run")
    path = tmp_path / "data" / "masks" / "train" / "7.png"
    Image.fromarray(np.full((40, 48), 2, np.uint8)).save(path)
    assert train_folder("run", *words, "trainer.max_steps=4", "resume=auto") == 0
    assert used[0] == used[1]
    assert written(tmp_path / "run") == before
    assert "the weights that the run began with" in (tmp_path / "run" / "train.log").read_text()
    # In a directory of its own too, and from a checkpoint of it again.
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert train_folder("other", *words, "trainer.max_steps=5", f"resume={last}") == 0
    assert used[2] == used[0]
    assert written(tmp_path / "other")["class_weights"] == before["class_weights"]
    kept = load_checkpoint(tmp_path / "other" / "checkpoints" / "last.pt")["metadata"]
    assert kept["class_weights"]["inverse_frequency"] == list(before["class_weights"].values())
    # Another method was not asked for before.
    again = [*words[:1], "loss.class_weights=auto", "trainer.max_steps=6", "resume=auto"]
    assert train_folder("run", *again, "resume_allow=[loss.class_weights]") == 0
    assert used[3] != used[0]


def test_a_cache_changes_nothing(
    train_folder: Train, lines: Callable[[str], list[dict[str, Any]]]
) -> None:
    words = ["trainer.max_steps=6", "loader.num_workers=2", "loader.prefetch_factor=3"]
    for cache in ("none", "compressed", "decoded"):
        assert train_folder(cache, *words, f"loader.cache={cache}") == 0
    assert lines("none") == lines("compressed") == lines("decoded")


def test_a_cache_of_files_that_are_none(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert train("run", "loader.cache=compressed") == 2
    assert "use loader.cache=decoded" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_too_little_memory(
    train: Train,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("segtrain.assembly.caching.free_memory", lambda: 1000)
    assert train("run", "loader.cache=decoded") == 6
    assert "use loader.cache=compressed or none" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("loader.cache=ram", "loader.cache"),
        ("loader.sampling=rare", "loader.sampling"),
        ("loader.prefetch_factor=0", "prefetch_factor must be above 0"),
        ("loader.rare_class_temperature=0", "rare_class_temperature must be above 0"),
        ("loader.rare_class_temprature=1", "rare_class_temperature"),
        ("loss.class_weights=inverse", "did you mean 'inverse_log'"),
    ],
)
def test_mistakes(
    train: Train, capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    assert train("run", word) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("word", ["loader.cache=decoded", "loader.sampling=rare_class"])
def test_an_evaluation_has_neither(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert run_command("evaluate", ["checkpoint=none.pt", word]) == 2
    assert "are for training" in capsys.readouterr().err.splitlines()[-1]


def test_two_processes_are_one(train: Train, tmp_path: Path, small: list[str]) -> None:
    words = [
        *("model.norm=false", "model.dropout=0", "trainer.max_steps=6", "optimizer=sgd"),
        *("loss.class_weights=auto", "loader.sampling=rare_class", "loader.cache=decoded"),
        *("loader.rare_class_temperature=0.1", "optimizer.lr=0.5"),
    ]
    assert train("one", *words) == 0
    done = torchrun(tmp_path / "two", *small, *words, "trainer.batch_size=2")
    assert done.returncode == 0, done.stderr
    assert "of memory in each of 2 processes" in done.stderr
    one, two = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    for name, weights in one[0].items():
        torch.testing.assert_close(two[0][name], weights, atol=1e-6, rtol=1e-5)
    assert written(tmp_path / "one") == written(tmp_path / "two")


def test_the_documented_words_are_in_the_configs() -> None:
    text = (ROOT / "configs" / "train.yaml").read_text()
    loader = yaml.safe_load(text)["loader"]
    assert loader["cache"] == "none"
    assert loader["sampling"] == "uniform"
    assert math.isclose(loader["rare_class_temperature"], 0.01)
