"""Wrong variables of a launcher."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist

from segtrain.cli.main import run_command
from segtrain.engine import distributed
from segtrain.engine.distributed import _own_store
from tests.faults.runs import Training
from tests.helpers import SMALL, TINY, differences, state


@pytest.mark.fault("F24")
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc is not a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0 must be at least 1"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE=2, but MASTER_ADDR is not set"),
        (
            {"WORLD_SIZE": "2", "RANK": "5", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
            "RANK=5 must be from 0 to 1, since WORLD_SIZE=2",
        ),
    ],
)
def test_wrong_variables_are_refused_before_any_rendezvous(
    variables: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    last_line: Callable[[], str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_command("train", SMALL) == 2
    assert message in last_line()


@pytest.mark.fault("F24")
def test_processes_that_start_again_do_not_find_old_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = dist.HashStore()  # torchrun keeps its store for all restarts
    monkeypatch.setattr(dist, "rendezvous", lambda _: iter([(kept, 0, 2)]))
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    monkeypatch.setattr(distributed, "_groups", itertools.count())
    assert _own_store() == {}
    store = _own_store()["store"]  # a second run of the same processes
    assert not store.check(["address"])
    store.set("address", "0")
    monkeypatch.setattr(distributed, "_groups", itertools.count())
    for count in ("1", "2"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        store = _own_store()["store"]
        assert not store.check(["address"])
        store.set("address", count)


@pytest.mark.slow
@pytest.mark.fault("F24")
def test_an_elastic_restart_continues_from_the_checkpoint(tmp_path: Path) -> None:
    """A run whose second process is killed once ends as one that was not disturbed."""
    words = [f"plugins=[{TINY},{Path(__file__).with_name('slow.py')}]", "model=slow"]
    words += ["trainer.max_steps=10", "trainer.evaluate_every=10", "trainer.checkpoint_every=2"]
    words += ["dataset.num_val=2", "resume=auto"]
    for name, environment in (("whole", {}), ("killed", {"KILL_ONCE": str(tmp_path / "once")})):
        with Training(tmp_path / name, *words, processes=2, restarts=2, **environment) as run:
            code, error = run.end(120)
            assert code == 0, error[-3000:]
            assert run.no_orphans()
    assert (tmp_path / "once").exists()
    assert "resuming from" in (tmp_path / "killed/train.log").read_text()
    assert differences(state(tmp_path / "whole"), state(tmp_path / "killed")) == []
