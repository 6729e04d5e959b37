"""Scores under the names that a model and a dataset share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.assembly.evaluation import build_evaluation
from segtrain.cli.main import run_command
from segtrain.engine.distributed import processes
from segtrain.engine.evaluator import Scored
from segtrain.engine.results import scores_table
from segtrain.schema.sections import EvaluateConfig, LoaderConfig
from tests.helpers import THREE_STEPS

NAMES = ["background", "disc", "box", "line", "ring", "dot"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("class_map") / "run"
    words = [f"run_dir={path}", "trainer.ema_decay=null", "evaluation.classes=[disc,dot]"]
    assert run_command("train", [*THREE_STEPS, *words]) == 0
    return path


def score(run: Path, **given: Any) -> Scored:
    config = EvaluateConfig(
        checkpoint=str(run), loader=LoaderConfig(num_workers=0), device="cpu", **given
    )
    with processes("cpu") as here:
        evaluator, model, _ = build_evaluation(config, here)
        return evaluator.evaluate(model)


def merged(confusion: torch.Tensor, rows: Sequence[int | None], columns: Sequence[int]) -> Any:
    """A confusion matrix of merged classes, added up pair by pair."""
    found = np.zeros((max(row for row in rows if row is not None) + 1, max(columns) + 1))
    for (target, predicted), count in np.ndenumerate(confusion.numpy()):
        row = rows[target]
        if row is not None:
            found[row, columns[predicted]] += count
    return found


def test_ids_are_mapped_after_the_prediction(run: Path) -> None:
    metrics = {"metrics": ["iou", "recall", "accuracy", "nll", "brier"], "classes": None}
    plain = score(run, evaluation=metrics).evaluation
    class_map = {"disc": "thing", "box": "thing", "dot": None}
    evaluation = score(run, class_map=class_map, evaluation=metrics).evaluation
    assert evaluation.class_names == ("background", "thing", "line", "ring")
    assert plain.confusion is not None
    assert evaluation.confusion is not None
    expected = merged(plain.confusion, [0, 1, 1, 2, 3, None], [0, 1, 1, 2, 3, 4])
    assert evaluation.confusion.tolist() == expected[:, :4].tolist()
    assert evaluation.predicted_only == {"dot": expected[:, 4].sum()}
    assert expected[:, 4].sum() > 0
    assert evaluation.valid == expected.sum()
    right = np.diag(expected)
    union = expected.sum(0)[:4] + expected.sum(1) - right
    assert evaluation.iou == pytest.approx((right / union).tolist())
    assert evaluation.pixel_accuracy == pytest.approx(right.sum() / expected.sum())
    assert evaluation.scores["recall"].per_class == pytest.approx(right / expected.sum(1))


def test_an_error_of_an_ignored_class_is_a_false_negative(run: Path) -> None:
    """Two classes: every prediction of the third is wrong where the target is one of the two."""
    class_map = dict.fromkeys(NAMES[2:]) | {"disc": "disc"}
    evaluation = score(run, class_map=class_map).evaluation
    recall = evaluation.total.tp / evaluation.total.target
    assert evaluation.scores["recall"].per_class == pytest.approx(recall.tolist())
    wrong = int(evaluation.total.fn.sum() - evaluation.total.fp.sum())
    assert wrong == sum(evaluation.predicted_only.values()) > 0


def test_the_classes_of_the_training_are_renamed(run: Path) -> None:
    evaluation = score(run, class_map={"disc": "thing", "box": "thing", "dot": None}).evaluation
    assert evaluation.miou == pytest.approx(evaluation.iou[1])  # thing, for disc


def test_probabilities_of_merged_classes_are_added(run: Path) -> None:
    class_map = dict.fromkeys(NAMES[1:], "object")
    scored = score(run, class_map=class_map, evaluation={"metrics": ["nll"]})
    config = EvaluateConfig(checkpoint=str(run), loader=LoaderConfig(num_workers=0), device="cpu")
    with processes("cpu") as here, torch.no_grad():
        evaluator, model, _ = build_evaluation(config, here)
        total, count = 0.0, 0
        for (batch,) in evaluator.loader:
            logits = model(evaluator.normalization(batch["images"]))["out"]
            size = batch["target"].shape[-2:]
            logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear")
            background = logits.softmax(1)[:, 0]
            right = torch.where(batch["target"] == 0, background, 1 - background)
            valid = batch["target"] != 255
            total, count = total - float(right[valid].log().sum()), count + int(valid.sum())
    assert scored.evaluation.scores["nll"].mean == pytest.approx(total / count, rel=1e-4)


def other_dataset(root: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for folder, shape in (("images", (48, 48, 3)), ("masks", (48, 48))):
        (root / folder / "val").mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256 if folder == "images" else 3, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / "val" / f"{number}.png")
    return [
        *("dataset=folder", f"dataset.root={root}", "dataset.num_classes=3"),
        *("dataset.val.images=images/val", "dataset.val.masks=masks/val"),
        "dataset.class_names=[Ring,plate,background]",
    ]


def test_another_dataset(run: Path, tmp_path: Path, last_line: Callable[[], str]) -> None:
    words = [f"checkpoint={run}", "device=cpu", *other_dataset(tmp_path)]
    assert run_command("evaluate", words) == 2
    assert "has 6 classes, but the dataset has 3; " in (line := last_line())
    assert "map their names with class_map" in line
    assert run_command("evaluate", [*words, "class_map={}"]) == 2
    assert "no class for 'plate' of the dataset" in last_line()
    output = f"output={tmp_path / 'scores.json'}"
    assert run_command("evaluate", [*words, output, "class_map={disc: plate, box: null}"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores["per_class_iou"]) == ["Ring", "plate", "background"]
    assert scores["predicted_only"].keys() == {"box", "line", "dot"}
    counts = np.load(tmp_path / "scores.npz")
    assert list(counts["classes"]) == ["Ring", "plate", "background"]
    total = sum(counts[kind].sum() for kind in ("tp", "fn"))
    assert total == 2 * 48 * 48
    missed = counts["fn"].sum() - counts["fp"].sum()
    assert missed == sum(scores["predicted_only"].values())


def test_the_table_names_what_is_never_right(run: Path) -> None:
    evaluation = score(run, class_map={"dot": None}).evaluation
    lines = [str(part) for part in scores_table(evaluation, "").renderables]
    assert any(line.startswith("dot: not a class of the target; predicted for ") for line in lines)
