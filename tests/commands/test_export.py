"""The commands export and benchmark, and the program in the page about them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain import Predictor
from segtrain.cli.main import run_command
from segtrain.export import FORMATS
from segtrain.export.openvino import OpenVinoFormat
from tests.export.helpers import pictures
from tests.helpers import ROOT, THREE_STEPS, TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
PLUGIN = f"plugins=[{TINY}]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, whose classes and weights all tests share."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGTRAIN_CACHE", str(folder / "cache"))
        assert run_command("train", [*THREE_STEPS, f"run_dir={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(folder: Path, *sizes: tuple[int, int]) -> None:
    folder.mkdir()
    for name, image in pictures(*sizes):
        Image.fromarray(image).save(folder / name)


def program() -> str:
    """The program of the page."""
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return str(source)


def test_the_program_of_the_page_needs_no_segtrain(run: Path, tmp_path: Path) -> None:
    save(tmp_path / "photos", (60, 81), (48, 64))
    words = [f"checkpoint={run}", "output=out/model.onnx", "images=photos", PLUGIN]
    assert run_command("export", words) == 0
    source = program()
    assert "segtrain" not in source
    assert len(source.splitlines()) <= 32
    (tmp_path / "segment.py").write_text(source)
    command = [sys.executable, "segment.py", "out/model.onnx", "photos/0.png", "mask.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = Predictor.from_checkpoint(run, device="cpu")(tmp_path / "photos" / "0.png")
    mask = Image.open(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.array(mask), expected)
    contract = json.loads((tmp_path / "out" / "model.onnx.json").read_text())
    assert len(done.stdout.splitlines()) == len(contract["classes"])
    assert contract["agreement"]["images"] == ["0.png", "1.png"]
    palette = mask.getpalette()
    assert palette is not None
    assert palette[:3] == contract["palette"][0]


def test_the_validation_split_is_used(run: Path, tmp_path: Path, messages: list[str]) -> None:
    words = [f"checkpoint={run}", "output=model.onnx", "num_images=2", "argmax=false", PLUGIN]
    assert run_command("export", words) == 0
    assert "label agreement 100.0000 %, largest logit difference" in "".join(messages)
    assert len(json.loads((tmp_path / "model.onnx.json").read_text())["agreement"]["images"]) == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["output=model.tflite"], 2, "must end in one of .onnx (ONNX), .pt2"),
        (["output=model.onnx", "images=nowhere"], 3, "nowhere"),
        (["output=model.onnx", "images=broken"], 3, "broken/a.png"),
        (["output=model.onnx", "dynamic=false"], 2, "dynamic=false needs size=[HEIGHT,WIDTH]"),
        (["output=model.onnx", "upsample=false"], 2, "argmax=true needs upsample=true"),
        (["output=model.onnx", "num_images=0"], 2, "num_images"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes(
    words: list[str],
    code: int,
    message: str,
    run: Path,
    tmp_path: Path,
    last_line: Callable[[], str],
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    assert run_command("export", [f"checkpoint={run}", PLUGIN, *words]) == code
    assert message in last_line()
    assert not list(tmp_path.glob("model*"))


def test_a_split_that_is_gone(run: Path, last_line: Callable[[], str], tmp_path: Path) -> None:
    """The checkpoint of a run whose folder of images was moved."""
    import torch

    moved = tmp_path / "moved.pt"
    state = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
    gone = {"name": "folder", "root": "/nowhere", "num_classes": 6}
    torch.save({**state, "config": {**state["config"], "dataset": gone}}, moved)
    assert run_command("export", [f"checkpoint={moved}", "output=model.onnx", PLUGIN]) == 3
    assert "images=FOLDER" in last_line()


def test_scores_of_another_precision_are_warned_of(
    run: Path, tmp_path: Path, messages: list[str]
) -> None:
    import torch

    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.pt"
    state = torch.load(path, weights_only=True)
    state["metadata"]["precision"] = "bf16"
    torch.save(state, path)
    words = ["checkpoint=run", "output=model.onnx", "num_images=1", "argmax=false", PLUGIN]
    assert run_command("export", words) == 0
    assert "trained and scored in bf16" in "".join(messages)


def test_the_formats_are_timed(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    messages: list[str],
) -> None:
    monkeypatch.setattr(OpenVinoFormat, "packages", ("no_such_package",))
    words = [f"checkpoint={run}", "size=[40,60]", "batch_sizes=[1,2]", "repetitions=3", PLUGIN]
    assert run_command("benchmark", words) == 0
    output = capsys.readouterr().out
    rows = [line.split() for line in output.splitlines() if line.strip()]
    assert [row[:2] for row in rows[2:]] == [
        [name, batch] for batch in ("1", "2") for name in ("torch", "onnx", "pt2")
    ]
    assert "threads" in output
    assert "openvino is left out: .xml files need no_such_package" in "".join(messages)


def test_a_benchmark_without_a_format(
    run: Path, monkeypatch: pytest.MonkeyPatch, last_line: Callable[[], str]
) -> None:
    monkeypatch.setattr(type(FORMATS["onnx"]), "packages", ("no_such_package",))
    assert run_command("benchmark", [f"checkpoint={run}", "formats=[onnx]", PLUGIN]) == 2
    assert "none of the formats can be used" in last_line()
    assert run_command("benchmark", [f"checkpoint={run}", "formats=[tflite]", PLUGIN]) == 2
