"""One place checks each value, for command and library alike; what is written is what was meant."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import segtrain
from segtrain.assembly.check import check_config
from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.engine import OPTIMIZERS, SCHEDULERS
from segtrain.engine.moving_average import MovingAverage
from segtrain.errors import ConfigError
from segtrain.models import hub
from tests.helpers import THREE_STEPS

WRONG = [
    ("scheduler.min_lr=-0.1", "must be at least 0, got -0.1", "scheduler=cosine"),
    ("scheduler.div_factor=-1", "must be at least 1, got -1.0", "scheduler=one_cycle"),
    ("scheduler.div_factor=0.5", "must be at least 1, got 0.5", "scheduler=one_cycle"),
    ("scheduler.div_factor=0", "must be at least 1, got 0.0", "scheduler=one_cycle"),
    ("scheduler.power=-1", "must be above 0", "scheduler=poly"),
    ("scheduler.warmup_steps=9", "must be from 0 to 2, got 9", "scheduler=poly"),
    ("optimizer.lr=inf", "must be finite and above 0, got inf", "seed=0"),
    ("optimizer.weight_decay=inf", "must be finite and at least 0, got inf", "seed=0"),
    ("optimizer.betas=[1.5,0.9]", "must be from 0 to 1, got [1.5, 0.9]", "seed=0"),
    ("loader.num_workers=-1", "must be at least 0, got -1", "seed=0"),
    ("trainer.clip_grad_norm=inf", "must be finite and above 0, got inf", "seed=0"),
    ("dataset.ignore_label=255.5", "must be a whole number, got 255.5", "seed=0"),
    ("trainer.best=foo", "metric 'foo' is not computed", "seed=0"),
    ("evaluation.classes=[x]", "unknown class 'x'", "seed=0"),
    ("augmentation.mean=[0.5]", "must have one number per channel (3)", "seed=0"),
]


@pytest.mark.fault("F50")
@pytest.mark.parametrize(("word", "message", "more"), WRONG)
@pytest.mark.parametrize("show", [False, True])
def test_a_wrong_value_is_refused_by_training_and_by_cfg(
    word: str, message: str, more: str, last_line: Callable[[], str], *, show: bool
) -> None:
    words = [*THREE_STEPS, more, word, *(["--cfg"] if show else ["run_dir=run"])]
    assert run_command("train", words) == 2
    line = last_line()
    assert message in line
    assert word.partition("=")[0] in line
    assert not Path("run").exists()


def test_the_library_checks_the_same() -> None:
    model = segtrain.build_model("hrnet_w18_small_v1", num_classes=2)
    with pytest.raises(ConfigError, match=r"optimizer\.lr must be finite and above 0, got inf"):
        OPTIMIZERS.build({"name": "sgd", "lr": math.inf}, model=model)
    optimizer = OPTIMIZERS.build("sgd", model=model)
    with pytest.raises(ConfigError, match=r"scheduler\.div_factor must be at least 1"):
        SCHEDULERS.build(
            {"name": "one_cycle", "div_factor": 0.5}, optimizer=optimizer, total_steps=3
        )


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, "much"])
def test_output_weights_in_python(weight: Any) -> None:
    loss = segtrain.build_loss("dice", num_classes=2)
    with pytest.raises(ConfigError, match=r"criterion\.output_weights\.out must be finite"):
        segtrain.Criterion(loss, output_weights={"out": weight})


@pytest.mark.parametrize("label", [None, 255.5, "void", True])
def test_an_ignore_label_is_a_whole_number(label: Any) -> None:
    for make in (
        lambda: segtrain.build_loss("dice", num_classes=2, ignore_label=label),
        lambda: segtrain.LabelContract(2, ignore_label=label),
    ):
        with pytest.raises(ConfigError, match="ignore_label must be a whole number"):
            make()


@pytest.mark.parametrize("convert", [np.array, torch.tensor, tuple])
def test_numbers_may_be_arrays_and_tensors(convert: Callable[[Any], Any]) -> None:
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(3, (1, 4, 4))
    for name, key in (
        ("cross_entropy", "class_weights"),
        ("bce", "pos_weight"),
        ("focal", "alpha"),
    ):
        values = [0.5, 1.0, 2.0]
        given = segtrain.build_loss(name, num_classes=3, **{key: convert(values)})
        listed = segtrain.build_loss(name, num_classes=3, **{key: values})
        assert given(logits, target) == listed(logits, target)


# ------------------------------------------------- presets and entry points in Python


def test_presets_have_their_names_in_python() -> None:
    logits, target = torch.randn(1, 3, 8, 8), torch.randint(3, (1, 8, 8))
    found = segtrain.build_loss("ce_dice", num_classes=3)(logits, target)
    parts = [
        segtrain.build_loss(name, num_classes=3)(logits, target)
        for name in ("cross_entropy", "dice")
    ]
    torch.testing.assert_close(found, sum(parts))
    assert {"ce_dice", "focal"} <= set(segtrain.list_losses())
    for name in set(segtrain.list_losses()) - {"sum", "uncertainty"}:
        assert compose_config([f"loss={name}"])["loss"]
    with pytest.raises(ConfigError, match="unknown loss 'ce_dicee'"):
        segtrain.build_loss("ce_dicee", num_classes=3)


def test_entry_points_are_known_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    class Offered:
        value = "offered"

        @staticmethod
        def load() -> None:
            if "offered_loss" not in segtrain.losses.LOSSES.names():
                segtrain.register_loss("offered_loss")(lambda logits, target: logits[:, 0])

    monkeypatch.setattr(
        segtrain.losses.LOSSES, "_factories", dict(segtrain.losses.LOSSES._factories)
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Offered])
    assert segtrain.build_loss("offered_loss", num_classes=2) is not None


# ------------------------------------------------- messages instead of tracebacks


def test_what_is_no_tensor() -> None:
    loss = segtrain.build_loss("dice", num_classes=2)
    logits, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    with pytest.raises(TypeError, match="target must be a tensor, got NoneType"):
        loss(logits, None)
    criterion = segtrain.Criterion(loss)
    with pytest.raises(TypeError, match="outputs must be a tensor, or a dict of tensors"):
        criterion((logits, logits), target)
    with pytest.raises(TypeError, match="target must be a tensor, or a dict"):
        criterion(logits, None)


@pytest.mark.parametrize("name", ["mps", "xpu", "meta", "vulkan"])
def test_devices_that_are_not_there(name: str, last_line: Callable[[], str]) -> None:
    if name in ("mps", "xpu") and getattr(torch, name).is_available():
        pytest.skip(f"{name} is here")
    assert run_command("train", [*THREE_STEPS, f"trainer.device={name}", "run_dir=run"]) == 2
    assert f"device '{name}' is" in last_line()


def test_a_run_dir_that_cannot_be_created(last_line: Callable[[], str]) -> None:
    Path("file").write_text("")
    assert run_command("train", [*THREE_STEPS, "run_dir=file/run"]) == 6
    assert "run_dir file/run cannot be created (Not a directory)" in last_line()


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    asked = []
    monkeypatch.setattr(hub, "is_reachable", lambda address: asked.append(address) or False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub.asked_once():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    assert asked == [constants.ENDPOINT]


# ------------------------------------------------- what a run writes


def test_the_logged_rate_is_that_of_the_step() -> None:
    words = [*THREE_STEPS, "trainer.max_steps=4", "scheduler=poly", "scheduler.power=1.0"]
    assert run_command("train", [*words, "optimizer.lr=0.1", "run_dir=run"]) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


@pytest.mark.fault("F47")
def test_metrics_are_json_after_a_skipped_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from segtrain.engine import run_directory

    kept = run_directory.Run.log_step

    def with_infinity(self: Any, step: int, line: dict[str, Any], parts: dict[str, float]) -> None:
        kept(self, step, {**line, "grad_norm": math.inf}, {**parts, "out/dice": math.nan})

    monkeypatch.setattr(run_directory.Run, "log_step", with_infinity)
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    for line in Path("run/metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_the_moving_average_copies_counts() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    average = MovingAverage(model, decay=0.99)
    for _ in range(5):
        model(torch.randn(4, 2, 3, 3))
        average.update_parameters(model)
    assert int(average.module[0].num_batches_tracked) == 5
    assert not torch.equal(average.module[0].running_mean, model[0].running_mean)


def test_cfg_prints_what_training_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("train", [*THREE_STEPS, "--cfg"]) == 0
    assert check_config(yaml.safe_load(capsys.readouterr().out)).trainer.max_steps == 3
