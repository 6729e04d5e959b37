"""Scores of windows, scales and flips do not depend on how the work is divided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.assembly.evaluation import build_evaluation
from segtrain.cli.main import run_command
from segtrain.engine.distributed import processes
from segtrain.metrics import Evaluation
from segtrain.schema.sections import EvaluateConfig, LoaderConfig
from tests.helpers import THREE_STEPS, TINY, in_two_processes

VIEWS: dict[str, Any] = {"scales": [0.5, 1.25], "flip": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views") / "run"
    words = (
        "trainer.max_steps=30",
        "dataset.num_val=5",
        "dataset.size=[80,96]",
        "optimizer.lr=0.05",
    )
    assert run_command("train", [*THREE_STEPS, f"run_dir={path}", *words]) == 0
    return path


def config(run: Path, **evaluation: Any) -> EvaluateConfig:
    loader = LoaderConfig(num_workers=0)
    return EvaluateConfig(checkpoint=str(run), evaluation=evaluation, loader=loader, device="cpu")


def score(run: Path, **evaluation: Any) -> Evaluation:
    with processes("cpu") as here:
        evaluator, model, _ = build_evaluation(config(run, **evaluation), here)
        return evaluator.evaluate(model).evaluation


@pytest.mark.parametrize("views", [{}, VIEWS, {**VIEWS, "window": [64, 64]}], ids=str)
def test_any_batch_size_gives_the_same_scores(run: Path, views: dict[str, Any]) -> None:
    metrics = ["iou", "nll"]
    one, three = (score(run, batch_size=size, metrics=metrics, **views) for size in (1, 3))
    assert (one.counts - three.counts).abs().sum() <= 4  # rounding may move a pixel
    assert one.scores["nll"].mean == pytest.approx(three.scores["nll"].mean, rel=1e-5)
    assert one.names == three.names


def test_windows_score_as_the_whole_image(run: Path) -> None:
    whole, windows = score(run), score(run, window=[64, 64], stride=[32, 32], blend="uniform")
    assert not windows.counts.equal(whole.counts)  # a window sees no pixels around it
    assert windows.miou == pytest.approx(whole.miou, abs=0.02)
    assert windows.pixel_accuracy == pytest.approx(whole.pixel_accuracy, abs=0.02)
    assert score(run, window=[96, 96]).counts.equal(whole.counts)


def averaged(model: torch.nn.Module, images: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean of the probabilities of all scales and flips at the size of the target."""
    found = torch.zeros(1)
    for scale in VIEWS["scales"]:
        scaled_size = [round(scale * length) for length in images.shape[2:]]
        scaled = F.interpolate(images, scaled_size, mode="bilinear", antialias=scale < 1)
        logits = model(scaled)["out"].softmax(1), model(scaled.flip(3))["out"].flip(3).softmax(1)
        mean = torch.log((logits[0] + logits[1]) / 2)  # averaged at the resolution of the logits
        shown = F.interpolate(mean, size, mode="bilinear").softmax(1)
        found = found + shown / len(VIEWS["scales"])
    return found


def test_metrics_of_probabilities_are_those_of_their_mean(run: Path) -> None:
    found = score(run, metrics=["nll", "brier", "ece", "auc"], **VIEWS).scores
    chosen, right_ones = [], []
    with processes("cpu") as here, torch.no_grad():
        evaluator, model, _ = build_evaluation(config(run), here)
        for batches in evaluator.loader:
            for batch in batches:
                target = batch["target"].long()
                size = (target.shape[1], target.shape[2])
                images = evaluator.normalization(batch["images"])
                valid = target != 255
                chosen.append(averaged(model, images, size).movedim(1, -1)[valid])
                right_ones.append(target[valid])
    probability, target = torch.cat(chosen).double(), torch.cat(right_ones)
    of_target = probability.gather(1, target[:, None])[:, 0]
    assert found["nll"].mean == pytest.approx(float(-of_target.log().mean()), rel=1e-5)
    one_hot = F.one_hot(target, probability.shape[1])
    brier = ((probability - one_hot) ** 2).sum(1).mean()
    assert found["brier"].mean == pytest.approx(float(brier), rel=1e-5)
    confidence, predicted = probability.max(1)
    bins = np.digitize(confidence.numpy(), np.arange(1, 15) / 15, right=True)
    gaps = [
        abs(
            float((confidence[bins == index] - (predicted == target)[bins == index].double()).sum())
        )
        for index in range(15)
    ]
    assert found["ece"].mean == pytest.approx(sum(gaps) / len(target), abs=1e-4)
    for index, value in enumerate(found["auc"].per_class):
        positive, negative = (
            probability[target == index, index],
            probability[target != index, index],
        )
        if len(positive) and len(negative):
            order = torch.cat([negative, positive]).argsort().argsort()[len(negative) :] + 1
            pairs = order.sum() - len(positive) * (len(positive) + 1) / 2
            expected = float(pairs) / (len(positive) * len(negative))
            assert value == pytest.approx(expected, abs=2e-3)


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(run: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={run}", "device=cpu", "loader.num_workers=0", "evaluation.flip=true"]
    words += ["evaluation.window=[64,64]", "class_map={disc: thing, box: thing, dot: null}"]
    outputs = [tmp_path / "one.json", tmp_path / "two.json"]
    assert run_command("evaluate", [*words, f"output={outputs[0]}"]) == 0
    done = in_two_processes("evaluate", f"plugins=[{TINY}]", *words, f"output={outputs[1]}")
    assert done.returncode == 0, done.stderr
    one, two = (json.loads(path.read_text()) for path in outputs)
    assert one == two
    arrays = [np.load(path.with_suffix(".npz")) for path in outputs]
    assert all((arrays[0][key] == arrays[1][key]).all() for key in arrays[0])
