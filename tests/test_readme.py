"""The code and the commands of the README work as written."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.assembly.check import check_config
from segtrain.cli import main as cli
from segtrain.cli.compose import compose_config
from segtrain.cli.main import compare_config, run_command
from segtrain.cli.sweep import plan_sweep
from segtrain.data import DATASETS
from segtrain.files import config_dir
from segtrain.losses import LOSSES, MININGS
from segtrain.schema.sections import (
    BenchmarkConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    InspectConfig,
    PredictConfig,
    ShardsConfig,
)
from segtrain.schema.values import build_dataclass
from tests.helpers import ROOT

OWN_CONFIGS: dict[str, type] = {
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "benchmark": BenchmarkConfig,
    "inspect_dataset": InspectConfig,
    "make_shards": ShardsConfig,
}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """Return the name and the words of every ``tools/NAME.py`` command."""
    found = []
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for index, word in enumerate(words):
                if word.startswith("tools/"):
                    found.append((Path(word).stem, words[index + 1 :]))
    return found


@pytest.fixture(autouse=True)
def _folder_with_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))
    source = next(block for block in blocks("python") if block.startswith("# my_losses.py"))
    (tmp_path / "my_losses.py").write_text(source)


def test_commands_are_found() -> None:
    assert len(commands()) > 12


@pytest.mark.parametrize(("name", "words"), commands(), ids=lambda part: " ".join(part)[:60])
def test_a_command_is_accepted(name: str, words: list[str]) -> None:
    plain = [word for word in words if not word.startswith("-")]
    if name == "compare":
        compare_config(plain)
        return
    if "-m" in words:
        plan_sweep(plain, None)
        return
    # An import takes the keys of a run and its own.
    command = {"import_weights": "train", "inspect_dataset": "inspect", "make_shards": "shards"}
    raw = compose_config(plain, command.get(name, name))
    if name in ("train", "import_weights"):
        own = {} if name == "train" else {field.name for field in fields(ImportConfig)}
        check_config({key: value for key, value in raw.items() if key not in own})
    else:
        build_dataclass(OWN_CONFIGS[name], raw)


def test_the_error_message_is_the_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = (block for block in blocks("text") if block.startswith("$"))
    command, expected = text.strip().splitlines()
    assert run_command("train", shlex.split(command)[3:]) == 2
    assert capsys.readouterr().err.strip() == expected


def test_the_library_example_runs() -> None:
    (source,) = (block for block in blocks("python") if "build_criterion" in block)
    exec(compile(source, "README.md", "exec"), {})  # noqa: S102


def test_the_table_of_losses_is_complete() -> None:
    table = README.split("<!-- losses:begin -->")[1].split("<!-- losses:end -->")[0]
    rows = "\n".join(line for line in table.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in rows.splitlines())))
    assert named == {name for name in LOSSES.names() if "test" not in name and "docs" not in name}
    for row in rows.splitlines():
        names, keys = (re.findall(r"`(\w+)`", row.split("|")[column]) for column in (1, 3))
        for name in names:
            assert set(keys) <= LOSSES.schema(name).keys()


def test_the_table_of_minings_is_complete() -> None:
    table = README.split("| mining |")[1].split("\n\n")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    found = {row[1].strip(" `"): re.findall(r"`(\w+)`", row[3]) for row in rows}
    assert found == {name: list(MININGS.schema(name)) for name in MININGS.names()}


def test_the_table_of_datasets_is_complete() -> None:
    table = README.split("**Ready datasets.**")[1].split("**Class imbalance.**")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    files = {path.stem for path in (config_dir() / "dataset").glob("*.yaml")}
    classes = set(DATASETS.names())  # they are for the user's own data
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == files - classes


def test_exit_codes_are_those_of_the_errors() -> None:
    assert all(f" {code} " in README for code in (2, 3, 4, 5, 6, 7))
    assert set(cli.COMMANDS) == {
        "train",
        "evaluate",
        "compare",
        "predict",
        "export",
        "benchmark",
        "import",
        "inspect",
        "shards",
        "list",
        "completion",
    }


@pytest.mark.slow
def test_train_evaluate_predict_resume_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((60, 80, 3), dtype=np.uint8)).save(tmp_path / "photos" / "street.jpg")
    demo = [(name, words) for name, words in commands() if "outputs/demo" in " ".join(words)]
    assert [name for name, _ in demo] == ["train", "evaluate", "predict", "train"]
    for name, words in demo:
        assert run_command(name, words) == 0
    (source,) = (block for block in blocks("python") if "from_checkpoint" in block)
    names: dict[str, object] = {"segtrain": sys.modules["segtrain"]}
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102
    assert isinstance(names["ids"], np.ndarray)
    assert names["ids"].shape == (60, 80)
