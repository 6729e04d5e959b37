"""What several test files share: paths, a small run, runs of two processes, comparisons."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from segtrain.engine.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
TINY = Path(__file__).with_name("tiny.py")  # a plugin
SMALL = [
    f"plugins=[{TINY}]",
    "model=tiny",
    "dataset.size=[48,48]",
    "dataset.num_train=32",
    "dataset.num_val=6",
    "trainer.batch_size=4",
    "trainer.log_every=1",
    "trainer.log_images=0",
    "trainer.device=cpu",
    "loader.num_workers=0",
    "evaluation.batch_size=2",
]
THREE_STEPS = [
    *(f"plugins=[{TINY}]", "model=tiny", "dataset.size=[48,48]", "dataset.num_train=16"),
    *("dataset.num_val=4", "trainer.batch_size=4", "trainer.max_steps=3", "trainer.device=cpu"),
    *("trainer.log_every=1", "loader.num_workers=0"),
]


def load_benchmark(name: str) -> ModuleType:
    """The module ``benchmarks/NAME.py``, which is no part of a package."""
    if name in sys.modules:  # its classes may be registered
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def torchrun(run_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Train with two processes; a hang is a failure, and leaves no process behind."""
    return in_two_processes("train", *words, f"run_dir={run_dir}")


def in_two_processes(tool: str | Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``tools/TOOL.py``, or a script, with two processes, likewise."""
    script = tool if isinstance(tool, Path) else ROOT / "tools" / f"{tool}.py"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
        *("--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"),
        *(str(script), *words),
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, error = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"two processes hung: {process.communicate()[1]}")
    return subprocess.CompletedProcess(command, process.returncode, output, error)


def outcome(run_dir: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The weights of model and criterion, and the lines of the log."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    state = load_checkpoint(run_dir / "checkpoints" / "last.pt")
    learned = {f"criterion.{name}": value for name, value in state["criterion"][0].items()}
    assert all(rank.keys() == state["criterion"][0].keys() for rank in state["criterion"])
    return {**state["model"], **learned}, lines


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two nested states are not equal, to the last bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [
            found for key in one for found in differences(one[key], other[key], f"{where}/{key}")
        ]
    if isinstance(one, (list, tuple)) and type(one) is type(other) and len(one) == len(other):
        return [
            found
            for index, pair in enumerate(zip(one, other, strict=True))
            for found in differences(*pair, f"{where}/{index}")
        ]
    return [] if one == other else [where]


def state(path: Path) -> dict[str, Any]:
    loaded = load_checkpoint(path / "checkpoints" / "last.pt")
    for key in ("seconds", "config"):  # the clock, and the words that differ on purpose
        del loaded[key]
    return loaded
