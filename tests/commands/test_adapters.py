"""Runs that train an adapter: resumed, scored, predicted, exported, and started from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from segtrain import Predictor
from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.export import Trained
from tests.helpers import differences, outcome, state, torchrun

pytest.importorskip("peft")
pytest.importorskip("timm")
LORA = "model.adapter={name: lora, rank: 2, alpha: 16, dropout: 0.1}"
VIT = [
    *("model=encoder_decoder", "model.backbone=timm/test_vit", "model.head=fcn", LORA),
    *("optimizer.lr=0.01", "optimizer.head_lr_factor=1", "trainer.max_steps=4"),
    *("dataset.num_val=4", "trainer.evaluate_every=4"),
]
Train = Callable[..., int]


def test_a_run_resumes_exactly(train: Train, tmp_path: Path) -> None:
    assert train("whole", *VIT) == 0
    assert train("parts", *VIT, "trainer.stop_after=2") == 0
    assert train("parts", *VIT, "resume=auto") == 0
    assert differences(state(tmp_path / "whole"), state(tmp_path / "parts")) == []


def test_only_adapters_and_head_change(train: Train, tmp_path: Path) -> None:
    words = [*VIT, "optimizer.layer_decay=0.9"]
    assert train("one", *words, "trainer.stop_after=1") == 0
    assert train("whole", *words) == 0
    assert "M of them trained" in (tmp_path / "whole/train.log").read_text()
    before, after = (outcome(tmp_path / name)[0] for name in ("one", "whole"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapters = {name for name in before if ".lora_" in name}
    assert adapters
    assert adapters <= changed
    assert all(name.startswith("head.") for name in changed - adapters)
    optimizer = load_checkpoint(tmp_path / "whole/checkpoints/last.pt")["optimizer"]
    moments = [each for each in optimizer["state"].values() if "exp_avg" in each]
    head = {name for name in before if name.startswith("head.") and name in changed}
    parameters = {name for name in head if not name.rpartition(".")[2].startswith(("run", "num"))}
    assert len(moments) == len(adapters) + len(parameters)


def test_a_run_is_scored_predicted_exported_and_started_from(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("run", *VIT, "trainer.ema_decay=0.5") == 0
    trained = json.loads(Path("run/results.json").read_text())
    words = ["checkpoint=run/checkpoints/last.pt", "output=scores.json", "device=cpu"]
    assert run_command("evaluate", words) == 0
    assert json.loads(Path("scores.json").read_text())["mIoU"] == trained["mIoU"]
    predictor = Predictor.from_checkpoint("run", device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    merged = Trained.load("run").predictor
    assert any("lora" in name for name in predictor.model.state_dict())
    assert not any("lora" in name for name in merged.model.state_dict())
    torch.testing.assert_close(
        merged.probabilities(image), predictor.probabilities(image), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(merged(image), predictor(image))
    # A new run starts from the merged weights, with or without an adapter of its own.
    start = [*VIT, "model.weights=run", "trainer.max_steps=1", "optimizer.lr=1e-9"]
    for name, adapter in (("plain", "model.adapter=null"), ("again", LORA)):
        assert train(name, *start, adapter) == 0
        found = Trained.load(name).predictor.model.state_dict()
        for key, weight in merged.model.named_parameters():
            torch.testing.assert_close(found[key], weight, rtol=0, atol=1e-4, msg=key)


def test_the_exported_file_agrees(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    assert train("run", *VIT, "trainer.max_steps=1") == 0
    words = ["checkpoint=run", "output=model.onnx", "argmax=false", "num_images=2"]
    assert run_command("export", words) == 0
    contract = json.loads(Path("model.onnx.json").read_text())
    assert contract["agreement"]["labels"] >= 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_are_one_large_batch(
    train: Train, tmp_path: Path, small: list[str], parallel: str
) -> None:
    words = [*VIT, "model.adapter.dropout=0", "optimizer=asgd", "optimizer.lr=0.1"]
    # Statistics of a batch depend on how it is divided.
    words += ["model.head={name: fcn, dropout: 0}", "trainer.freeze=[head.norm]"]
    assert train("one", *words) == 0
    done = torchrun(
        tmp_path / "two", *small, *words, "trainer.batch_size=2", f"trainer.parallel={parallel}"
    )
    assert done.returncode == 0, done.stderr
    one, two = outcome(tmp_path / "one")[0], outcome(tmp_path / "two")[0]
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.adapter=lore"], "did you mean 'lora'"),
        (["model.adapter={name: lora, rank: -1}"], "model.adapter.rank must be at least 1"),
        (["trainer.freeze=[backbone]"], "trainer.freeze=[backbone] freezes all layers of model.ad"),
        (["trainer.freeze=['back*']"], "trainer.freeze=[back*] freezes all layers of model.ad"),
        (["model.adapter={name: lora, targets: [qvk]}"], "matches 'qvk'"),
    ],
)
def test_mistakes_are_one_sentence(
    train: Train, last_line: Callable[[], str], words: list[str], said: str
) -> None:
    assert train("run", *VIT, *words) == 2
    assert said in last_line()


def test_the_configuration_of_a_run_is_complete(train: Train, tmp_path: Path) -> None:
    assert train("run", *VIT, "model.adapter.dropout=0", "trainer.stop_after=1") == 0
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    wanted = {"name": "lora", "rank": 2, "alpha": 16, "dropout": 0.0, "targets": None}
    assert config["model"]["adapter"] == wanted


def test_a_resumed_run_keeps_its_adapter(train: Train, last_line: Callable[[], str]) -> None:
    assert train("run", *VIT, "trainer.stop_after=1") == 0
    assert train("run", *VIT, "model.adapter={name: lora, rank: 4}", "resume=auto") != 0
    assert "model.adapter" in last_line()
