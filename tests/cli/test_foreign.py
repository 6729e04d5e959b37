"""No file of a user's own folder of configs, and no key, runs code through Hydra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segtrain.cli.main import run_command
from tests.helpers import THREE_STEPS

PAYLOAD = "callbacks: {x: {_target_: pathlib.Path.touch, self: ran}}"


@pytest.mark.fault("F56")
@pytest.mark.parametrize("many", [[], ["-m", "seed=0,1"], ["-m", "seed=range(0,2)"]])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("experiment/x.yaml", f"hydra:\n  {PAYLOAD}\n"),
        ("experiment/x.yaml", f"# @package hydra\n{PAYLOAD}\n"),
        ("experiment/x.yaml", f"# @package _global_\nhydra: {{{PAYLOAD}}}\n"),
        ("experiment/x.yaml", "defaults: [{/parts@hydra.callbacks: y}]\n"),
        ("experiment/x.yaml", "defaults: [{override /hydra/launcher: y}]\n"),
        ("loss/x.yaml", f"name: dice\nhydra:\n  {PAYLOAD}\n"),
        ("hydra/launcher/x.yaml", "_target_: pathlib.Path.touch\nself: ran\n"),
        ("hydra/callbacks/x.yaml", "x: {_target_: pathlib.Path.touch}\n"),
    ],
)
def test_a_file_that_reaches_hydra_is_refused(
    tmp_path: Path, last_line: Callable[[], str], name: str, text: str, many: list[str]
) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    words = [*THREE_STEPS, "--config-dir", str(tmp_path / "mine"), *many]
    if name == "experiment/x.yaml":
        words.append("experiment=x")
    assert run_command("train", words) == 2
    line = last_line()
    assert f"mine/{name}" in line
    assert "could run code" in line
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "outputs").exists()


@pytest.mark.fault("F56")
@pytest.mark.parametrize(
    "word",
    [
        "hydra.callbacks.x={_target_:pathlib.Path.touch,self:ran}",
        "+hydra.callbacks={x:{_target_:pathlib.Path.touch,self:ran}}",
        "hydra.launcher={_target_:pathlib.Path.touch}",
        "hydra.launcher._target_=pathlib.Path.touch",
        "hydra.launcher.x={_target_:pathlib.Path.touch}",
        "hydra/callbacks=x",
        "hydra.job.chdir=true",
    ],
)
def test_a_key_of_hydra_is_refused(tmp_path: Path, last_line: Callable[[], str], word: str) -> None:
    for many in ([], ["-m", "seed=0,1"]):
        assert run_command("train", [*THREE_STEPS, word, *many]) == 2
        assert "of hydra, only hydra/launcher, hydra/sweeper" in last_line()
    assert not (tmp_path / "ran").exists()


def test_other_files_may_speak_of_hydra(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text("# @package _global_\n# hydra: not a key\nname: hydra_study\n")
    (folder / "y.yaml").write_text("# @package _global_\ndefaults: [override /loss: dice]\n")
    words = [*THREE_STEPS, "--config-dir", str(tmp_path / "mine")]
    assert run_command("train", [*words, "experiment=x", "--cfg"]) == 0
    assert run_command("train", [*words, "hydra/launcher=basic", "-m", "seed=0,1"]) == 0
