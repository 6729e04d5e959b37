"""What a user types, and what comes back: a run, or one sentence and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from segtrain.cli import main as cli
from segtrain.cli.main import run_command
from segtrain.errors import SegtrainError


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["+loss.gama=3", "loss=focal"], 2, "no parameter 'gama'; did you mean 'gamma'?"),
        (["loss.gama=3", "loss=focal"], 2, "no parameter 'gama'; did you mean 'gamma'?"),
        (["loss=[cross_entropy,focal]"], 2, "-m loss=cross_entropy,focal"),
        (["lr=abc"], 2, "unknown key lr; did you mean optimizer.lr?"),
        (["optimizer.lr=abc"], 2, "optimizer.lr must be a number, got 'abc'"),
        (["optimizer.lr=-1"], 2, "optimizer.lr"),
        (["loss.name=focal"], 2, "choose a loss with loss=focal"),
        (["loss.name=focal", "loss.label_smoothing=0.1"], 2, "choose a loss with loss=focal"),
        (["loss=focall"], 2, "unknown loss 'focall'; did you mean 'focal'?"),
        (["model=hrnet_w84"], 2, "did you mean 'hrnet_w48'?"),
        (["mining=ohm"], 2, "did you mean 'ohem'?"),
        (["optimizer=damw"], 2, "did you mean 'adamw'?"),
        (["optimizer.name=damw"], 2, "did you mean 'adamw'?"),
        (["experiment=camvid"], 2, "did you mean 'camvid_cpu'?"),
        (
            ["experiment=camvid_finetune"],
            2,
            "model.weights has no default here: add model.weights=",
        ),
        (["trainer.max_step=3"], 2, "did you mean 'max_steps'?"),
        (["trainer.max_steps=0"], 2, "trainer.max_steps must be above 0"),
        (["trainer.precision=fp8"], 2, "'fp32' or 'bf16' or 'fp16'"),
        (["loss=dice", "mining=ohem"], 2, "is not a pixel loss"),
        (["loss.mining=ohem", "mining=ohem"], 2, "set twice"),
        (["loss=focal", "loss.gamma=-1"], 2, "error: loss.gamma must be finite"),
        (["loss=sum", "loss.terms=[dice]"], 2, "error: loss.terms is a mapping of keys and cannot"),
        (["loss=sum", "loss.terms=3"], 2, "error: loss.terms must be a mapping by name, got 3"),
        (["loss=ce_dice", "loss.terms.cross_entropy.mining=ohm"], 2, "error: loss.terms.cross_ent"),
        (["loss.class_weights=autoo"], 2, "error: loss.class_weights: autoo cannot be read"),
        (["criterion.output_losses={aux: dise}"], 2, "error: criterion.output_losses.aux: unkno"),
        (["criterion.output_losses={out: dice}"], 2, "error: criterion.output_losses.out: the ma"),
        (
            ["model=hrnet_w18_small_v1", "model.task_heads={edge: 1}"],
            2,
            "output 'edge' has 1 channel, but learns 6 class ids; set its",
        ),
        (["loss.class_weights=[1,2]"], 2, "class_weights has 2 values, but num_classes is 6"),
        (["model.num_classes=3"], 2, "model.num_classes"),
        (["dataset.ignore_label=2"], 2, "ignore_label"),
        (["criterion.output_weights={out:1,aux:0.4}", "model=hrnet_w18_small_v1"], 2, "aux"),
        (["criterion.strip_rows=0"], 2, "strip_rows"),
        (["~loss"], 2, "choose one of"),
        (["loss="], 2, "unknown loss ''"),
        (["loss={gamma:3}"], 2, "loss takes one name"),
        (["nonsense"], 2, "key=value"),
        (["plugins=my_losses.py"], 2, "plugins must be a list"),
        (["plugins=[absent.py]"], 2, "absent.py"),
        (["resume=auto"], 2, "run_dir"),
        (["trainer.device=gpu"], 2, "device 'gpu'"),
        (["trainer.batch_size=2000"], 3, "2000"),
        (["dataset=camvid", "dataset.root=nowhere"], 3, "nowhere"),
        (["dataset=folder"], 2, "num_classes"),
        (["resume=absent.pt"], 4, "absent.pt"),
        (["scheduler.warmup_steps=99999", "scheduler=poly"], 2, "warmup_steps"),
    ],
)
def test_a_mistake_gets_one_sentence(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_command("train", words) == code
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].startswith("error: ")
    assert sentence in error.strip().splitlines()[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "outputs").exists()  # nothing half-written


def test_the_traceback_is_there_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGTRAIN_DEBUG", "1")
    assert run_command("train", ["loss=focall"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_cfg_prints_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("train", ["loss=focal", "--cfg"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    expected = {"name": "focal", "gamma": 2.0, "alpha": 1.0}
    shared = {"class_weights": None, "mining": None, "label_smoothing": 0.0, "reduction": "mean"}
    assert shown["loss"] == {**expected, **shared}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["loss=focal", "loss.gamma=-1"], "error: loss.gamma must be"),
        (["mining=ohem", "mining.threshold=5"], "error: mining.threshold must be"),
        (["loss.class_weights=[1,2]"], "error: loss.class_weights has 2 values, but num_classes"),
        (
            [
                "criterion.output_targets={edge:boundary}",
                "criterion.output_losses={edge:cross_entropy}",
            ],
            "error: criterion.output_losses.edge: num_classes is 1",
        ),
    ],
)
def test_cfg_tries_the_losses(
    words: list[str], sentence: str, last_line: Callable[[], str]
) -> None:
    assert run_command("train", [*words, "--cfg"]) == 2
    assert last_line().startswith(sentence)


def test_cfg_needs_no_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset=camvid", "dataset.root=nowhere", "loss.class_weights=[1,2]"]
    assert run_command("train", [*words, "--cfg"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["loss"]["class_weights"] == [1.0, 2.0]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(command, ["--help"], f"segtrain {command}")
    assert stop.value.code == 0
    assert f"segtrain {command}" in capsys.readouterr().out


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("list", []) == 0
    assert f"loss: {', '.join(cli.group_choices('loss'))}\n" in capsys.readouterr().out


def test_torchvision_of_another_build_is_explained(
    monkeypatch: pytest.MonkeyPatch, last_line: Callable[[], str], tmp_path: Path
) -> None:
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_command("train", ["loss.gama=3"]) == 2  # the configuration comes first
    assert run_command("train", []) == 6
    message = last_line()
    assert "torchvision::nms" in message
    assert "pip install --force-reinstall torch torchvision" in message


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = [error.exit_code for error in SegtrainError.__subclasses__()]
    assert sorted(set(codes) - {1}) == [2, 3, 4, 5, 6, 7]
