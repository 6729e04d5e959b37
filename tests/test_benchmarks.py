"""Every loss that can be chosen trains the embedded default; the GPU benchmark runs dry."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.losses import LOSSES
from tests.helpers import ROOT, load_benchmark

EVERY = load_benchmark("every_loss")
BLOCKED = ("hydra", "omegaconf", "albumentations", "pytest", "cv2", "torchvision", "tensorboard")
BLOCK = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""


def test_every_loss_has_a_preset() -> None:
    ours = [name for name in LOSSES.names() if LOSSES.get(name).__module__.startswith("segtrain.")]
    missing = [name for name in ours if f"loss={name}" not in EVERY.choices()]
    assert [name for name in missing if not name.startswith("docs_")] == []


@pytest.mark.slow
@pytest.mark.parametrize("choice", EVERY.choices())
def test_learns_in_200_steps(choice: str, tmp_path: Path) -> None:
    outcome = EVERY.train(choice, tmp_path / "run", 200, "trainer.device=cpu")
    assert outcome.code == 0
    assert outcome.has_learned, outcome


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``benchmarks/gpu.py`` as a module; its neighbours are imported by their bare names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def rows_of(gpu: ModuleType, path: Path) -> dict[str, dict[str, Any]]:
    found = [event["row"] for event in gpu.read_events(path) if "row" in event]
    return {row["item"]: row for row in found}


def test_an_item_that_fails_does_not_stop_its_part(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(_: Any) -> Any:
        yield {"ms": 1.0}
        raise ValueError("wrong")

    def too_large(_: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    def lacks(_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    items = {
        "old": fails,
        "fails": fails,
        "large": too_large,
        "lacks": lacks,
        "good": lambda _: [{}],
    }
    monkeypatch.setattr(gpu, "part_items", lambda *_: items)
    path = tmp_path / "losses.jsonl"
    path.write_text('{"start": "old"}\n{"start": "cut sho')
    assert gpu.run_part("losses", gpu.Setting(torch.device("cpu"), 60.0, True), path) == 0
    rows = rows_of(gpu, path)
    assert {item: row["state"] for item, row in rows.items()} == {
        "fails": "failed",
        "large": "out of memory",
        "lacks": "skipped",
        "good": "ok",
    }
    assert rows["fails"]["error"] == "ValueError: wrong"
    assert rows["lacks"]["error"] == "cv2 is not installed"
    part = gpu.gpu_report.summarize("losses", gpu.read_events(path), 0, 1.0, "")
    assert (part.state, part.error) == ("failed", "ValueError: wrong")


def test_a_part_starts_nothing_after_its_cap(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "part_items", lambda *_: {"good": lambda _: [{}]})
    path = tmp_path / "losses.jsonl"
    assert gpu.run_part("losses", gpu.Setting(torch.device("cpu"), 0.0, True), path) == 0
    assert rows_of(gpu, path) == {}
    assert gpu.gpu_report.summarize("losses", gpu.read_events(path), 0, 1.0, "").state == "capped"


@pytest.mark.parametrize(
    ("codes", "states", "state"),
    [
        ([-11, 0], {"one": "ok", "two": "failed", "three": "ok"}, "failed"),
        ([0], {"one": "ok", "two": "capped"}, "done"),
        ([None], {"one": "ok", "two": "capped"}, "capped"),
        ([1], {}, "failed"),
    ],
)
def test_a_process_that_ends_early(
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    codes: list[int | None],
    states: dict[str, str],
    state: str,
) -> None:
    """A crash costs its item, the rest runs in another process; a cap keeps what there is."""
    events = tmp_path / "parts" / "losses.jsonl"
    scripts = [
        [{"start": "one"}, {"row": {"item": "one", "state": "ok"}}, {"start": "two"}],
        [{"start": "three"}, {"row": {"item": "three", "state": "ok"}}],
    ]
    scripts[0] = [] if codes == [1] else scripts[0][:2] if codes == [0] else scripts[0]

    def process(name: str, seconds: float, log: Path, options: Any) -> int | None:
        with events.open("a") as file:
            file.writelines(f"{json.dumps(event)}\n" for event in scripts.pop(0))
        log.write_text("Segmentation fault\n\n")
        return codes.pop(0)

    expected = {key: value for key, value in states.items() if codes != [0] or value == "ok"}
    monkeypatch.setattr(gpu, "_run_process", process)
    part = gpu.start_part("losses", 60.0, gpu.parse(["--out", str(tmp_path)]))
    assert part.state == state
    assert {row["item"]: row["state"] for row in part.rows} == expected
    if state == "failed":
        assert "Segmentation fault" in part.error
    assert codes == []


def test_the_report_is_written_after_each_part(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[list[str]] = []

    def part(name: str, seconds: float, options: Any) -> Any:
        path = tmp_path / "gpu.json"
        before = json.loads(path.read_text())["parts"] if path.exists() else []
        written.append([item["name"] for item in before])
        state = "failed" if name == "losses" else "done"
        return gpu.gpu_report.Part(name, state, 1.0, [{"item": "it", "state": "ok", "ms": 1234.5}])

    monkeypatch.setattr(gpu, "start_part", part)
    assert gpu.main(["--out", str(tmp_path), "--dry"]) == 1
    names = list(gpu.PARTS)
    assert written == [names[:count] for count in range(len(names))]
    assert "| 1234 |" in (tmp_path / "gpu.md").read_text()


def test_memory_on_a_gpu(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls to ``torch.cuda``, in a row that stands in for a GPU."""
    parts, training = (importlib.import_module(f"gpu_{name}") for name in ("parts", "training"))
    device, calls = torch.device("cuda", 0), []

    def fake(name: str, value: Any = None) -> None:
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_: (calls.append(name), value)[1])

    for name in ("synchronize", "reset_peak_memory_stats", "empty_cache"):
        fake(name)
    fake("memory_allocated", 3 * 2**20)
    fake("max_memory_allocated", 10 * 2**20)
    fake("mem_get_info", (30 * 2**30, 80 * 2**30))
    assert parts.peak_mib(lambda: calls.append("call"), device) == 7
    assert calls.index("reset_peak_memory_stats") < calls.index("call")
    assert calls.index("call") < calls.index("max_memory_allocated")
    assert training._batch_size(16, 6.0, device) == 4
    assert training._batch_size(16, 60.0, device) == 2
    assert parts.fits(lambda: None, device)

    def too_large() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    calls.clear()
    assert not parts.fits(too_large, device)
    assert calls == ["empty_cache"]


def test_startup_marks_a_goal_that_is_missed() -> None:
    startup = load_benchmark("startup")
    good = startup.table({"import torch": 2.0, "import segtrain": 2.3, startup.MISTYPED: 2.6})
    assert good[3] == "| import segtrain | 2.30 | +0.30 | <= 0.4 more, yes |"
    slow = startup.table({"import torch": 2.0, "import segtrain": 2.5, startup.MISTYPED: 3.1})
    assert [line.count("**no**") for line in slow] == [0, 0, 0, 1, 1]
    with pytest.raises(RuntimeError, match="ended with 3"):
        startup.cpu_seconds(["-c", "raise SystemExit(3)"], 0)


def camvid_like(root: Path) -> None:
    """A few images and masks in the layout of CamVid."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
            mask = rng.integers(0, 12, (72, 96), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{split}{index}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{split}{index}.png")


def without_packages(folder: Path) -> dict[str, str]:
    """The environment of a process that cannot import what is blocked, and sees no GPU."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCK)
    return {**os.environ, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}


def test_the_gpu_benchmark_runs_dry_without_optional_packages(tmp_path: Path) -> None:
    camvid_like(tmp_path / "camvid")
    env = without_packages(tmp_path / "blocked")
    for name in BLOCKED:
        refused = subprocess.run([sys.executable, "-c", f"import {name}"], env=env, check=False)
        assert refused.returncode == 1, name
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(tmp_path / "out")],
        env={**env, "CAMVID_ROOT": str(tmp_path / "camvid")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("no GPU found: dry pass at tiny sizes, the figures mean nothing")
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert {part["name"]: part["state"] for part in found["parts"]} == {
        "checks": "done",
        "losses": "done",
        "training": "done",
        "camvid": "done",
    }
    miou = [row["miou"] for row in found["parts"][3]["rows"] if "miou" in row]
    assert len(miou) == 1
    assert 0 <= miou[0] <= 1
    assert "## CamVid from scratch" in (tmp_path / "out" / "gpu.md").read_text()


def test_the_benchmark_of_evaluation_compares_the_same_classes() -> None:
    load_benchmark("process_memory")  # it is imported by name
    evaluate = load_benchmark("evaluate")
    logits = evaluate.smooth((1, 5, 32, 32), 8)
    target = evaluate.target_of(logits, (64, 96))
    assert evaluate.disagreement(logits, (64, 96)) == (0, True)
    counts = evaluate.ours(logits, target)
    assert int(counts.sum()) == int((target != evaluate.IGNORE).sum())


def test_the_trainer_takes_turns_with_a_bare_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = load_benchmark("trainer")
    monkeypatch.setattr(trainer, "EVERY", 2)
    case = trainer.Case("lraspp_mobilenet_v3_large", 32, 2, ema_decay=0.9)
    found = trainer.measure(case, rounds=2, device="cpu")
    assert len(trainer.Turns.seconds["trainer"]) == 3
    assert found["trainer"] > 0
    assert found["ratio"] > 0


def test_a_list_is_measured_and_a_goal_that_is_missed_is_marked(tmp_path: Path) -> None:
    lists = load_benchmark("lists")
    lists.write_files(tmp_path, 5)
    assert len((tmp_path / "train_5.txt").read_text().splitlines()) == 5
    seconds, memory, peak = lists.build_cost(tmp_path, 5, tmp_path / "cache")
    assert 0 < seconds < 30
    assert memory <= peak < 100
    assert "+6.0, goal 5: **no**" in lists.row(9, "warm", 9.0, 6.0, (1.0, 1.0, 1.0))
    assert lists.row(9, "cold", None, None, (31.0, 1.0, 1.0)).endswith("| **no** |")
