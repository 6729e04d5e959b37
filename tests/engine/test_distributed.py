"""However a step is divided, among processes or in time, it is the same step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.cli.main import run_command
from tests.helpers import outcome, torchrun

STEPS = [
    "model.norm=false",  # statistics of a batch depend on how it is divided
    "model.dropout=0",
    "trainer.max_steps=3",
    "trainer.batch_size=4",
    "loss.class_weights=[1,2,3,4,5,6]",
    "optimizer=sgd",
    "optimizer.lr=0.5",
    "dataset.num_val=5",  # does not divide by two
]

# What the criterion learns is outside of the wrapped model: its gradients are averaged apart.
LEARNED = [
    "model.tasks=true",
    "criterion.output_weights=learned",
    "criterion.output_losses.boundary={name:bce}",
    "loss=uncertainty",
    "loss.terms.dice.per_image=true",
]


@pytest.mark.parametrize(
    "others", [[], ["loss=focal", "mining=none", "loss.class_weights=null"], LEARNED]
)
def test_accumulation_is_one_large_batch(
    train: Callable[..., int], tmp_path: Path, others: list[str]
) -> None:
    assert train("whole", *STEPS, *others) == 0
    assert train("parts", *STEPS, *others, "trainer.batch_size=1", "trainer.accumulate=4") == 0
    whole, parts = outcome(tmp_path / "whole"), outcome(tmp_path / "parts")
    for name, weights in whole[0].items():
        torch.testing.assert_close(parts[0][name], weights, atol=1e-6, rtol=1e-5)
    assert [line["loss"] for line in parts[1] if "loss" in line] == pytest.approx(
        [line["loss"] for line in whole[1] if "loss" in line], rel=1e-5
    )


@pytest.mark.fault("F39")
@pytest.mark.parametrize("others", [[], LEARNED], ids=["weights", "learned"])
def test_two_processes_are_one_large_batch(
    train: Callable[..., int], tmp_path: Path, small: list[str], others: list[str]
) -> None:
    assert train("one", *STEPS, *others) == 0
    done = torchrun(tmp_path / "two", *small, *STEPS, *others, "trainer.batch_size=2")
    assert done.returncode == 0, done.stderr
    one, two = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    for name, weights in one[0].items():
        torch.testing.assert_close(two[0][name], weights, atol=1e-6, rtol=1e-5)
    assert [line["loss"] for line in two[1] if "loss" in line] == pytest.approx(
        [line["loss"] for line in one[1] if "loss" in line], rel=1e-5
    )
    scores = [lines[-1]["evaluation"] for _, lines in (one, two)]
    assert scores[0]["per_class_iou"] == pytest.approx(scores[1]["per_class_iou"], abs=1e-3)
    results = [
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")
    ]
    assert results[1]["val_loss"] == pytest.approx(results[0]["val_loss"], rel=1e-4)
    for metric, score in results[0]["scores"].items():
        assert results[1]["scores"][metric]["mean"] == pytest.approx(score["mean"], abs=1e-3)
    images = [np.load(tmp_path / name / "per_image.npz") for name in ("one", "two")]
    assert list(images[1]["names"]) == list(images[0]["names"])
    # Rounding may decide about a pixel, but each image is counted once, and none twice.
    valid = [sum(found[key] for key in ("tp", "fp", "fn", "tn")) for found in images]
    assert (valid[0] == valid[1]).all()
    assert np.abs(images[0]["tp"] - images[1]["tp"]).max() <= 3


@pytest.mark.fault("F37")
def test_a_process_without_a_valid_pixel_changes_no_step(tmp_path: Path, small: list[str]) -> None:
    """Half of the masks are ignored as a whole: with one image each, some ranks have no pixel."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            ids = rng.integers(0, 3, (48, 48), dtype=np.uint8)
            ids[:] = 255 if split == "train" and index % 2 else ids
            Image.fromarray(pixels).save(tmp_path / "images" / split / f"{index}.png")
            Image.fromarray(ids).save(tmp_path / "masks" / split / f"{index}.png")
    plain = [word for word in [*small, *STEPS] if "dataset." not in word and "weights" not in word]
    folder = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.num_classes=3"]
    words = [*plain, *folder, "trainer.max_steps=4"]
    one = [*words, "trainer.batch_size=2", f"run_dir={tmp_path / 'one'}"]
    assert run_command("train", one) == 0
    done = torchrun(tmp_path / "two", *words, "trainer.batch_size=1")
    assert done.returncode == 0, done.stderr
    whole, parts = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    for name, weights in whole[0].items():
        torch.testing.assert_close(parts[0][name], weights, atol=1e-6, rtol=1e-5)
    losses = [[line["loss"] for line in lines if "loss" in line] for _, lines in (whole, parts)]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.fault("F23")
def test_an_error_ends_every_process(tmp_path: Path, small: list[str]) -> None:
    done = torchrun(tmp_path / "run", *small, *STEPS, "loss.class_weights=[1,2]")
    assert done.returncode != 0
    assert "class_weights has 2 values, but num_classes is 6" in done.stderr
    assert "Traceback" not in done.stderr.split("error:")[0]


@pytest.mark.fault("F11")
def test_resume_with_two_processes_is_exact(tmp_path: Path, small: list[str]) -> None:
    words = [*small, "trainer.max_steps=4", "model.dropout=0.5"]  # each process draws its own
    for name, others in (
        ("straight", []),
        ("parts", ["trainer.stop_after=2"]),
        ("parts", ["resume=auto"]),
    ):
        done = torchrun(tmp_path / name, *words, *others)
        assert done.returncode == 0, done.stderr
    straight, parts = outcome(tmp_path / "straight"), outcome(tmp_path / "parts")
    assert all(torch.equal(parts[0][name], weights) for name, weights in straight[0].items())
    losses = [[line["loss"] for line in lines if "loss" in line] for _, lines in (straight, parts)]
    assert losses[0] == losses[1]
    # What was scored is what was saved, though every process has running statistics of its own.
    scores = tmp_path / "scores.json"
    checkpoint = tmp_path / "straight" / "checkpoints" / "last.pt"
    given = [f"checkpoint={checkpoint}", f"output={scores}", "device=cpu", f"{small[0]}"]
    assert run_command("evaluate", given) == 0
    trained = json.loads((tmp_path / "straight" / "results.json").read_text())
    assert json.loads(scores.read_text())["mIoU"] == trained["mIoU"]


@pytest.mark.fault("F31")
def test_a_wrong_label_ends_every_process(tmp_path: Path, small: list[str]) -> None:
    for split, wrong in (("train", 1), ("val", 9)):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(8):
            image = Image.new("RGB", (48, 48), (wrong, index, 0))  # no two alike
            image.save(tmp_path / "images" / split / f"{index}.png")
            Image.new("L", (48, 48), wrong).save(tmp_path / "masks" / split / f"{index}.png")
    words = [word for word in small if not word.startswith("dataset.")]
    folder = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.num_classes=2"]
    done = torchrun(tmp_path / "run", *words, *folder)
    errors = sorted(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert len(errors) == 2
    assert "0.png" in errors[0]
    assert "9" in errors[0]
    assert "the main process found an error" in errors[1]
    assert not (tmp_path / "run").exists()
