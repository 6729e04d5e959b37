"""An evaluation over shards: each machine reads whole shards, and each image is scored once."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segtrain.cli.main import run_command
from segtrain.data import EvalTransform, build_eval_loader, iterate
from segtrain.data.loading.memory_cache import CachedDataset
from segtrain.data.shards.order import evaluation_part
from tests.data.shards.helpers import NUM, build
from tests.helpers import TINY, in_two_processes

ONE_MACHINE_EACH = """
import os

if "RANK" in os.environ:
    os.environ["GROUP_RANK"] = os.environ["RANK"]
"""


@pytest.mark.parametrize("nodes", [[0], [0, 0], [0, 1], [0, 0, 1, 1], [0, 1, 2], [1, 0, 1]])
@pytest.mark.parametrize("sizes", [[4, 4, 4, 4, 4, 1], [5, 0, 2, 9], [3, 3, 3]])
def test_a_machine_gets_whole_shards(nodes: list[int], sizes: list[int]) -> None:
    starts = np.cumsum([0, *sizes])
    parts = [evaluation_part(starts, rank, nodes) for rank in range(len(nodes))]
    assert sorted(index for part in parts for index in part) == list(range(starts[-1]))
    users = defaultdict(set)
    for rank, part in enumerate(parts):
        for index in part:
            users[int(np.searchsorted(starts, index, side="right"))].add(nodes[rank])
    assert all(len(machines) == 1 for machines in users.values())
    assert all(list(part) == sorted(part) for part in parts)


def test_fewer_shards_than_machines_are_divided_by_samples() -> None:
    parts = [list(evaluation_part([0, 5], rank, [0, 1])) for rank in range(2)]
    assert parts == [[0, 2, 4], [1, 3]]


@pytest.mark.fault("F39")
@pytest.mark.parametrize("max_images", [None, 10])
@pytest.mark.parametrize("cached", [False, True])
def test_the_loaders_of_all_processes_read_each_sample_once(
    shards: Path, max_images: int | None, cached: bool
) -> None:
    dataset = build(shards)
    read: Any = CachedDataset(dataset, "decoded") if cached else dataset
    transform = EvalTransform((0.5,) * 3, (0.5,) * 3, dataset.labels)
    nodes, seen, shards_of = [0, 0, 1], [], defaultdict(set)
    for rank, node in enumerate(nodes):
        loader = build_eval_loader(
            read, transform, max_images=max_images, world_size=3, rank=rank, nodes=nodes
        )
        found = [i for groups in iterate(loader) for g in groups for i in g["index"].tolist()]
        seen += found
        shards_of[node] |= {dataset.shard_of(index) for index in found}
    assert sorted(seen) == list(range(max_images or NUM))
    assert not shards_of[0] & shards_of[1]


@pytest.mark.fault("F39")
@pytest.mark.slow
def test_two_machines_give_the_scores_of_one_process(command: Path, tmp_path: Path) -> None:
    words = [
        "dataset=ours_shards", "dataset.allow_overlap=true", f"plugins=[{TINY}]", "model=tiny",
        "trainer.batch_size=2", "trainer.max_steps=6", "augmentation.crop_size=[8,8]",
        "loader.num_workers=0", "trainer.device=cpu", f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    assert run_command("train", ["--config-dir", str(command), *words]) == 0
    nodes = tmp_path / "nodes.py"
    nodes.write_text(ONE_MACHINE_EACH)
    words = [f"checkpoint={tmp_path / 'run'}", "split=train", "device=cpu", "loader.num_workers=0"]
    outputs = [tmp_path / "one.json", tmp_path / "two.json"]
    assert run_command("evaluate", [f"plugins=[{TINY}]", *words, f"output={outputs[0]}"]) == 0
    done = in_two_processes("evaluate", f"plugins=[{TINY},{nodes}]", *words, f"output={outputs[1]}")
    assert done.returncode == 0, done.stderr
    one, two = (json.loads(path.read_text()) for path in outputs)
    assert one == two
    arrays = [np.load(path.with_suffix(".npz")) for path in outputs]
    assert len(arrays[0]["names"]) == NUM
    assert all((arrays[0][key] == arrays[1][key]).all() for key in arrays[0])
