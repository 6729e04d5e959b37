"""The hook profile: what it says agrees with a clock of its own."""

from __future__ import annotations

import gzip
import json
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segtrain.engine.hooks import Hooks, Watched

Train = Callable[..., int]
PLUGIN = """
import json, time, segtrain
from segtrain.data import DATASETS

@segtrain.register_hook("wall_clock")
class WallClock(segtrain.Hook):
    def __init__(self, *, path: str) -> None:
        self.path, self.seconds = path, []

    def on_start(self, run): self.since = time.monotonic()
    def on_step(self, run, values):
        now = time.monotonic()
        self.seconds.append(now - self.since)
        self.since = now
    def on_end(self, run, result):
        with open(self.path, "w") as file:
            json.dump(self.seconds, file)

Shapes = DATASETS.get("shapes")

@segtrain.register_dataset("slow_shapes")
class SlowShapes(Shapes):
    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)
"""
WORDS = ["trainer.max_steps=9", "trainer.evaluate_every=100", "trainer.log_every=100"]


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "clock.py"
    path.write_text(PLUGIN)
    return path


def profiled(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "profile.json").read_text())
    return found


def test_the_sum_of_the_phases_is_the_time_of_a_step(
    train: Train, tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = f"{{name: wall_clock, path: {tmp_path / 'clock.json'}}}"
    hooks = f"hooks=[{clock},{{name: profile, first_step: 3, steps: 4, trace: false}}]"
    words = [f"plugins=[{Path(__file__).parents[1] / 'tiny.py'},{plugin}]", hooks]
    assert train("run", *WORDS, *words) == 0
    found = profiled(tmp_path / "run")
    assert found["steps"] == [3, 6]
    wall = sorted(json.loads((tmp_path / "clock.json").read_text())[2:6])
    expected = 1000 * (wall[1] + wall[2]) / 2
    assert found["step_ms"] == pytest.approx(expected, rel=0.1, abs=0.5)
    phases = found["phases_ms"]
    assert sum(phases.values()) == pytest.approx(found["step_ms"], abs=0.01)
    assert all(phases[name] > 0 for name in ("data", "forward", "loss", "backward", "step"))
    printed = capsys.readouterr().err
    assert "a step, mean of the middle half of steps 3 to 6" in printed
    assert "backward" in printed
    assert not (tmp_path / "run/trace.json.gz").exists()


def test_a_slow_dataset_is_visible(train: Train, tmp_path: Path, plugin: Path) -> None:
    words = [
        f"plugins=[{Path(__file__).parents[1] / 'tiny.py'},{plugin}]",
        "dataset=slow_shapes",
    ]
    hook = "hooks=[{name: profile, first_step: 2, steps: 5, trace: false}]"
    assert train("run", *WORDS, *words, hook) == 0
    found = profiled(tmp_path / "run")
    assert found["phases_ms"]["data"] > 4 * 10  # a batch has four samples of 10 ms each
    assert found["shares"]["data"] > 0.5


def test_the_trace_has_the_phases(
    train: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = "hooks=[{name: profile, first_step: 1, steps: 2}]"
    assert train("run", *WORDS, hook) == 0
    assert "profiler_st" not in capfd.readouterr().err  # the library is quiet
    with gzip.open(tmp_path / "run/trace.json.gz", "rt") as stream:
        events = json.load(stream)["traceEvents"]
    names = [event.get("name") for event in events]
    for phase, number in {"data": 5, "forward": 5, "loss": 10, "backward": 5, "step": 5}.items():
        assert names.count(phase) == number, phase
    assert any(str(name).startswith("aten::") for name in names)


def test_a_run_that_ends_early_reports_what_it_has(
    train: Train, tmp_path: Path, messages: list[str]
) -> None:
    hook = "hooks=[{name: profile, first_step: 8, steps: 5}]"
    assert train("run", *WORDS, hook) == 0
    assert profiled(tmp_path / "run")["steps"] == [8, 9]
    assert train("short", *WORDS, "hooks=[profile]") == 0
    (text,) = [text for text in messages if text.startswith("profile:")]
    assert text.startswith("profile: no step was timed, because this process took 9 steps")


def test_phases_cost_nothing_without_the_hook() -> None:
    hooks = Hooks(["early_stopping"])
    hooks.start(Watched(Path(), 1))
    seconds = min(timeit.repeat(lambda: hooks.phase("forward"), number=1000, repeat=5)) / 1000
    assert seconds < 2e-6  # a record_function takes 6 microseconds, also when nothing is recorded
