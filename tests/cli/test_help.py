"""The help texts name every key, and their examples are accepted."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

import pytest

from segtrain.assembly.check import check_config
from segtrain.cli.compose import compose_config
from segtrain.cli.help import HELP
from segtrain.cli.main import COMMANDS, compare_config
from segtrain.cli.sweep import plan_sweep
from segtrain.schema.sections import (
    BenchmarkConfig,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    InspectConfig,
    PredictConfig,
    ShardsConfig,
)
from segtrain.schema.values import build_dataclass

CONFIGS: dict[str, type] = {
    "compare": CompareConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "benchmark": BenchmarkConfig,
    "import": ImportConfig,
    "inspect": InspectConfig,
    "shards": ShardsConfig,
}
OPTIONS = ("-m", "--cfg", "--augment")


def examples() -> list[tuple[str, list[str]]]:
    """The example lines of all commands: the command and its words."""
    found = []
    for command, text in HELP.items():
        for line in re.findall(r"^  \{program\} (.*)$", re.sub(r"\\\n\s*", "", text), re.MULTILINE):
            example = re.split(r"\s{3,}", line)[0]  # without the remark beside it
            found.append((command, shlex.split(example)))
    return found


def test_every_command_has_help() -> None:
    assert HELP.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", CONFIGS)
def test_every_key_is_named(command: str) -> None:
    named = HELP[command].partition("Keys:")[2]
    for item in fields(CONFIGS[command]):
        assert re.search(rf"^  {item.name}\b", named, re.MULTILINE), item.name


def test_import_names_the_files_and_the_keys_of_the_model() -> None:
    for word in ("final_state.pth", "model.align_corners", "model.abn", "augmentation.mean"):
        assert word in HELP["import"]


@pytest.mark.parametrize(("command", "given"), examples(), ids=str)
def test_an_example_is_accepted(command: str, given: list[str]) -> None:
    words = [word for word in given if word not in OPTIONS]
    if command == "list" or "plugins=[my_losses.py]" in words:
        return
    if command == "import":  # the keys of a run, and its own
        own = {item.name for item in fields(ImportConfig)}
        raw = compose_config(["dataset=folder", *words], "train")
        build_dataclass(ImportConfig, {key: raw.pop(key) for key in own})
        raw["dataset"].setdefault("num_classes", 19)  # in the command, that of the file
        check_config(raw)
    elif command == "compare":
        compare_config(words)
    elif command == "train" and "-m" in given:
        plan_sweep(words, None)
    elif command == "train":
        check_config(compose_config(words, command))
    else:
        build_dataclass(CONFIGS[command], compose_config(words, command))
