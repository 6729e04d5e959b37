"""Hooks see a run, may stop it, and change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segtrain.engine.hooks import EarlyStopping, Hook, Hooks, Watched, score_of
from segtrain.errors import ConfigError
from tests.helpers import TINY, differences, state

Train = Callable[..., int]
PLUGIN = """
import json, segtrain

@segtrain.register_hook("calls")
class Calls(segtrain.Hook):
    def __init__(self, *, path: str, stop_at: int = 0) -> None:
        self.path, self.stop_at, self.steps = path, stop_at, 0

    def write(self, *words):
        with open(self.path, "a") as file:
            file.write(json.dumps(words) + "\\n")

    def on_start(self, run): self.write("start", run.step, run.total_steps)
    def on_step(self, run, values):
        self.steps += 1
        self.write("step", run.step, values and sorted(values)[:2])
        if run.step == self.stop_at:
            run.stop("enough")
    def on_evaluation(self, run, result): self.write("evaluation", run.step, sorted(result)[:2])
    def on_checkpoint(self, run, path): self.write("checkpoint", run.step, path.name)
    def on_end(self, run, result): self.write("end", run.step, result and result["step"])
    def state_dict(self): return {"steps": self.steps}
    def load_state_dict(self, state): self.steps = state["steps"]
"""


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A name can be registered once, so all tests share the file."""
    path = tmp_path_factory.mktemp("plugin") / "calls.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[list[Any]]]:
    """What the hook wrote."""

    def read() -> list[list[Any]]:
        return [json.loads(line) for line in (tmp_path / "calls.txt").read_text().splitlines()]

    return read


@pytest.fixture
def words(tmp_path: Path, plugin: Path) -> Callable[..., list[str]]:
    """The words that use the hook."""

    def choose(extra: str = "") -> list[str]:
        hook = f"{{name: calls, path: {tmp_path / 'calls.txt'}{extra}}}"
        return [f"plugins=[{TINY},{plugin}]", f"hooks=[{hook}]"]

    return choose


RUN = ["trainer.max_steps=4", "trainer.evaluate_every=2", "trainer.log_every=2"]


def test_a_hook_is_called_and_changes_nothing(
    train: Train,
    tmp_path: Path,
    calls: Callable[[], list[list[Any]]],
    words: Callable[..., list[str]],
) -> None:
    assert train("plain", *RUN) == 0
    assert train("watched", *RUN, *words()) == 0
    found = calls()
    assert [call[:2] for call in found] == [
        ["start", 0], ["step", 1], ["step", 2], ["evaluation", 2], ["checkpoint", 2],
        ["step", 3], ["step", 4], ["evaluation", 4], ["checkpoint", 4], ["end", 4],
    ]  # fmt: skip
    assert [call[2] is None for call in found if call[0] == "step"] == [True, False, True, False]
    states = [state(tmp_path / name) for name in ("plain", "watched")]
    hooks = [one.pop("hooks") for one in states]
    assert hooks == [[], [{"hook": "Calls", "state": {"steps": 4}}]]
    assert differences(*states) == []


def test_a_hook_may_stop_the_run_and_resumes_with_its_state(
    train: Train,
    tmp_path: Path,
    calls: Callable[[], list[list[Any]]],
    words: Callable[..., list[str]],
) -> None:
    assert train("run", *RUN, *words(), "trainer.stop_after=1") == 0
    assert calls()[-1] == ["end", 1, None]
    assert train("run", *RUN, *words(", stop_at: 3"), "resume=auto") == 0
    assert ["start", 1, 4] in calls()
    assert calls()[-1] == ["end", 3, 3]
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["step"], results["stopped_by"], results["state"]) == (3, "enough", "finished")
    assert state(tmp_path / "run")["hooks"][0]["state"] == {"steps": 3}


def test_a_hook_is_told_what_ends_a_run_and_hides_no_error(messages: list[str]) -> None:
    ended: list[tuple[BaseException | None, Any]] = []

    class Notes(Hook):
        def on_end(self, run: Watched, result: Any) -> None:
            ended.append((run.error, result))
            raise OSError("full")

    hooks = Hooks([])
    hooks.hooks = [Notes(), Notes()]
    hooks.start(Watched(Path(), 100))
    error = ValueError("no")
    with pytest.raises(ValueError, match="no"), hooks:
        raise error
    assert ended == [(error, None)] * 2
    assert messages == ["the end of the hook Notes failed: OSError: full"] * 2

    with pytest.raises(OSError, match="full"), hooks:
        hooks.end(3, {"mIoU": 0.5})  # an error of the hook itself, which is not called again
    assert len(ended) == 3


def test_wrong_hooks_are_refused(train: Train, last_line: Callable[[], str]) -> None:
    for given, said in (
        ("early_stoping", "hooks[0]: unknown hook 'early_stoping'; did you mean 'early_stopping'?"),
        ("{name: early_stopping, patienc: 3}", "hooks[0].patienc: hook 'early_stopping' has no"),
        ("{name: early_stopping, patience: 0}", "hooks[0].patience must be at least 1"),
    ):
        assert train("run", f"hooks=[{given}]") == 2
        assert said in last_line()


def watch(hook: EarlyStopping, values: list[float], key: str = "mIoU") -> int | None:
    """The number of evaluations after which the hook stops the run."""
    run = Watched(Path(), 100)
    for number, value in enumerate(values, start=1):
        hook.on_evaluation(run, {key: value})
        if run.stopped_by is not None:
            return number
    return None


NAN = float("nan")


@pytest.mark.parametrize(
    ("keywords", "values", "expected"),
    [
        ({"patience": 2}, [0.1, 0.2, 0.2, 0.1], 4),
        ({"patience": 2}, [0.1, 0.2, 0.1, 0.3, 0.1, 0.2], 6),
        ({"patience": 1, "min_delta": 0.05}, [0.1, 0.14], 2),
        ({"patience": 1, "score": "val_loss"}, [3.0, 2.0, 1.0, 1.5], 4),
        ({"patience": 2}, [NAN, 0.1, NAN, 0.2, NAN, NAN], 6),
        ({"patience": 3}, [0.1, 0.2, 0.3], None),
    ],
)
def test_early_stopping(keywords: Any, values: list[float], expected: int | None) -> None:
    assert watch(EarlyStopping(**keywords), values, keywords.get("score", "mIoU")) == expected


def test_early_stopping_of_a_metric_of_a_class() -> None:
    result = {"mIoU": 0.5, "scores": {"dice": {"mean": 0.4, "per_class": {"road": 0.7}}}}
    assert score_of(result, "dice") == 0.4
    assert score_of(result, "dice[road]") == 0.7
    with pytest.raises(ConfigError, match="has no such score"):
        score_of(result, "dice[sky]")


def test_early_stopping_ends_a_run_and_stays_ended(train: Train, tmp_path: Path) -> None:
    hook = "hooks=[{name: early_stopping, score: val_loss, patience: 2, min_delta: 100}]"
    run = ["trainer.max_steps=20", "trainer.evaluate_every=1", hook]
    assert train("run", *run) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["step"] == 3
    assert results["stopped_by"].startswith("early_stopping: val_loss was not better than")
    assert train("run", *run, "resume=auto") == 0
    assert json.loads((tmp_path / "run/results.json").read_text())["step"] == 3
