"""Words that Hydra cannot read, or that are no key=value: the message has the word to type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import segtrain
from segtrain.cli.compose import compose_config
from segtrain.cli.main import main, run_command
from tests.cases.helpers import write_images


def typed_word(line: str) -> list[str]:
    """The word after "type", as a shell splits it."""
    return shlex.split(line.rpartition("type ")[2])


@pytest.mark.parametrize(
    "name",
    ["Übung", "my data (1)", "a=b", "run#2", "a, b", "it's", 'a "b"', "50%", "x[1", "a;b", "$HOME"],
)
def test_a_value_that_must_be_quoted(
    name: str, tmp_path: Path, last_line: Callable[[], str]
) -> None:
    given = f"dataset.root={tmp_path / name}"
    words = ["dataset=folder", given]
    code = run_command("train", words)
    line = last_line()
    assert code in (2, 3)
    if "type " in line:
        (word,) = typed_word(line)
        words = ["dataset=folder", word]
    assert compose_config(words)["dataset"]["root"] == str(tmp_path / name)


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss", "focal"], "cannot read 'loss focal' as key=value; write loss=focal"),
        (["loss", "=", "focal"], "cannot read 'loss = focal' as key=value; write loss=focal"),
        (["loss=", "focal"], "cannot read 'loss= focal' as key=value; write loss=focal"),
        (["loss", "=focal"], "cannot read 'loss =focal' as key=value; write loss=focal"),
        (["seed=1", "loss", "focal"], "write loss=focal"),
        (["dataset.root", "my data"], "write \"dataset.root='my data'\""),
        (["focal"], "cannot read 'focal' as key=value; write focal=VALUE"),
        (["--loss", "focal"], "cannot read '--loss focal': keys are written without dashes"),
        (["--loss=focal"], "as loss=focal; the options are"),
        (["--trainer.max-steps", "3"], "as trainer.max_steps=3; the options are"),
        (["-l", "focal"], "as l=focal"),
    ],
)
def test_words_that_are_no_override(
    words: list[str], message: str, last_line: Callable[[], str]
) -> None:
    assert run_command("train", words) == 2
    assert message in last_line()


def test_options_may_be_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("train", ["--cf"]) == 0
    assert "max_steps:" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["~/data", "~", "'~/my data'"])
def test_the_home_directory(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me (1)"))
    for key in ("dataset.root", "run_dir", "model.weights"):
        composed = compose_config(["dataset=folder", f"{key}={value}"])
        for part in key.split("."):
            composed = composed[part]
        assert composed == os.path.expanduser(value.strip("'"))  # noqa: PTH111


def test_a_folder_in_a_home_with_spaces_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_images(tmp_path / "my data (1)", [np.zeros((8, 8), np.uint8)] * 3)
    words = ["dataset=folder", "dataset.num_classes=2", "dataset.train.images=images"]
    words += ["dataset.train.masks=masks", "dataset.val_share=0.5"]
    assert run_command("inspect", [*words, "dataset.root=~/my data (1)"]) == 0, (
        capsys.readouterr().err
    )


# ------------------------------------------------- what a user of a command line expects


def test_help_lists_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, code in ((["--help"], 0), ([], 2)):
        monkeypatch.setattr(sys, "argv", ["segtrain", *words])
        assert main() == code
        shown = capsys.readouterr().out
        for command in ("train ", "evaluate ", "compare ", "predict ", "inspect ", "list "):
            assert f"  {command}" in shown


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["segtrain", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"segtrain {segtrain.__version__}\n"
    with pytest.raises(SystemExit):
        run_command("train", ["--version"])
    assert capsys.readouterr().out == f"segtrain {segtrain.__version__}\n"


def test_python_dash_m() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "segtrain", "list", "minings"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ohem" in found.stdout


@pytest.mark.parametrize(
    ("word", "name", "text"),
    [
        ("losses", "focal", "Cross entropy that down-weights"),
        ("loss", "ce_dice", "Cross entropy for every pixel plus dice"),
        ("datasets", "kvasir", "Kvasir-SEG"),
        ("metrics", "iou", ""),
        ("minings", "ohem", ""),
        ("heads", "fcn", ""),
        ("optimizers", "adamw", ""),
        ("hooks", "wandb", "Weights & Biases"),
    ],
)
def test_a_group_is_listed_with_what_its_names_mean(
    word: str, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("list", [word]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.split()[:1] == [name])
    assert text in line


def test_completion_of_bash(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "segtrain", "completion", "bash"]
    script = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    (tmp_path / "completion").write_text(script)
    program = (
        'source {file}; COMP_LINE="{line}"; COMP_POINT={point}; COMP_CWORD={word}; _segtrain;'
        ' printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    for line, expected in (
        ("segtrain tr", {"train"}),
        ("segtrain train loss=foc", {"focal", "focal_tversky"}),
        ("segtrain train trainer.max", {"trainer.max_steps="}),
    ):
        given = program.format(
            file=tmp_path / "completion", line=line, point=len(line), word=line.count(" ")
        )
        found = subprocess.run(["bash", "-c", given], capture_output=True, text=True, check=True)
        assert set(found.stdout.split()) == expected


def test_completion_of_another_shell(last_line: Callable[[], str]) -> None:
    assert run_command("completion", ["ksh"]) == 2
    assert "completion takes the name of a shell, bash or zsh" in last_line()
