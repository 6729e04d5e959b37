"""Training from an object store whose connection fails: no package of a store is needed."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.data import FolderDataset, make_shards
from segtrain.data.io import remote
from segtrain.engine.checkpoint import load_checkpoint
from tests.helpers import TINY, torchrun

FAKE_STORE = Path(__file__).with_name("fake_store.py")
NUM, CLASSES, STEPS = 24, 3, 10


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The shards of a small dataset, train and val."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for split, num in (("train", NUM), ("val", 8)):
        for number in range(num):
            for kind, shape, most in (("images", (16, 16, 3), 256), ("masks", (16, 16), CLASSES)):
                path = folder / kind / split / f"{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, most, shape, dtype=np.uint8)).save(path)
    places = {
        split: {"images": f"images/{split}", "masks": f"masks/{split}"}
        for split in ("train", "val")
    }
    for split in places:
        dataset = FolderDataset(
            root=str(folder), num_classes=CLASSES, class_names=None, split=split, **places
        )
        make_shards(dataset, folder / "shards", split, samples_per_shard=4)
    return folder / "shards"


@pytest.fixture
def store(shards, tmp_path, monkeypatch):
    """A store that holds the shards; call it to give it a fault."""
    folder = tmp_path / "store"
    folder.mkdir()
    for path in shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("FAKE_STORE", str(folder))
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0))  # other processes: see the plugin

    def give(name, files, first=0, last=10**9):
        fault = {"name": name, "files": files, "first": first, "last": last}
        (folder / "opened").unlink(missing_ok=True)
        (folder / "fault").write_text(json.dumps(fault))

    give.folder = folder
    return give


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    """The log messages of this process and its workers."""
    handler = logging.FileHandler(tmp_path / "log")
    monkeypatch.setattr(logging.getLogger("segtrain"), "handlers", [handler])
    yield tmp_path / "log"
    handler.close()


def words(tmp_path, name, *more, evaluate_every=100, root="gs://bucket"):
    return [
        "dataset=webdataset", f"dataset.root={root}", f"dataset.num_classes={CLASSES}",
        "dataset.train.shards=train-index.jsonl", "dataset.val.shards=val-index.jsonl",
        "dataset.allow_overlap=true", "dataset.streams=2",
        f"dataset.cache_dir={tmp_path / name}-copies", f"plugins=[{TINY},{FAKE_STORE}]",
        "model=tiny", "trainer.batch_size=2", f"trainer.max_steps={STEPS}", "trainer.log_every=1",
        f"trainer.evaluate_every={evaluate_every}", "augmentation.crop_size=[16,16]",
        "trainer.device=cpu", "loader.num_workers=0", f"run_dir={tmp_path / name}", *more,
    ]  # fmt: skip


def train(tmp_path, name, *more, **options):
    return run_command("train", words(tmp_path, name, *more, **options))


def losses(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def saved_step(run_dir):
    return load_checkpoint(run_dir / "checkpoints" / "last.pt")["step"]


def error_of(capfd):
    text = capfd.readouterr().err
    assert "Traceback" not in text
    (error,) = [line for line in text.splitlines() if line.startswith("error: ")]
    return error


@pytest.mark.fault("F45")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_connection_lost_in_mid_run(store, log, tmp_path, capfd, workers):
    workers = f"loader.num_workers={workers}"
    assert train(tmp_path, "whole") == 0
    store("lost", "train-0", first=5)
    assert train(tmp_path, "run", workers) == 3
    error = error_of(capfd)
    assert "gs://bucket/train-00000" in error
    assert "cannot be fetched after 3 attempts: Could not connect to the endpoint URL" in error
    lines = [line for line in log.read_text().splitlines() if "attempt" in line]
    assert lines[0].startswith("gs://bucket/train-00000")
    assert "attempt 1 of 3 failed (Could not connect" in lines[0]
    assert lines[0].endswith("the next one starts in 0 s")
    assert "secret" not in error + log.read_text()
    step = saved_step(tmp_path / "run")
    assert 0 < step < STEPS
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["exit_code"], status["step"]) == (3, step)
    (store.folder / "fault").unlink()
    assert train(tmp_path, "run", workers, "resume=auto") == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.fault("F45")
@pytest.mark.parametrize("fault", ["lost", "busy"])
def test_a_connection_that_comes_back(store, log, tmp_path, fault):
    store(fault, "train-0", first=3, last=5)
    assert train(tmp_path, "run", "dataset.cache_size_gb=null") == 0
    assert log.read_text().count("attempt ") == 2
    assert len(losses(tmp_path / "run")) == STEPS


@pytest.mark.fault("F45")
def test_a_connection_lost_in_validation(store, tmp_path, capfd):
    store("lost", "val-0", first=1)  # the trial before training reads a shard
    assert train(tmp_path, "run", evaluate_every=4) == 3
    assert "tar cannot be fetched after 3 attempts: Could not" in error_of(capfd)
    assert saved_step(tmp_path / "run") == 4
    (store.folder / "fault").unlink()
    assert train(tmp_path, "run", "resume=auto", evaluate_every=4) == 0


@pytest.mark.fault("F45")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_stalls(store, log, tmp_path, capfd, monkeypatch, workers):
    monkeypatch.setattr(remote, "_TIMEOUT", 0.3)
    store("stalled", "train-0", first=5)
    start = time.monotonic()
    assert train(tmp_path, "run", f"loader.num_workers={workers}") == 3
    assert time.monotonic() - start < 50  # the store would be silent for 60 seconds
    assert "cannot be fetched after 3 attempts: no data for 0.3 s" in error_of(capfd)
    assert "attempt 2 of 3 failed (no data for 0.3 s)" in log.read_text()
    assert saved_step(tmp_path / "run") > 0


@pytest.mark.fault("F45")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("lost", "after 3 attempts: Could not connect to the endpoint URL"),
        ("no credentials", "Unable to locate credentials; set GOOGLE_APPLICATION_CREDENTIALS"),
        ("no bucket", "(NoSuchBucket) when calling the GetObject operation; check the name 'bu"),
        ("denied", "Access Denied; check the name and your access rights"),
    ],
)
def test_a_store_that_fails_at_start_up(store, tmp_path, capfd, fault, message):
    store(fault, "train-index")
    assert train(tmp_path, "run") == 3
    assert message in error_of(capfd)


@pytest.mark.fault("F45")
@pytest.mark.slow
def test_one_of_two_processes_loses_the_connection(store, tmp_path):
    store("lost", "train-0", first=5)
    done = torchrun(tmp_path / "run", *words(tmp_path, "run")[:-1])
    assert done.returncode != 0
    assert "cannot be fetched after 3 attempts" in done.stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["exit_code"] == 3
    assert saved_step(tmp_path / "run") > 0


def test_processes_that_wait_for_a_shard_report_the_failure_of_another(
    store, tmp_path, monkeypatch
):
    from segtrain.data.shards import cache as cache_module
    from segtrain.data.shards.cache import ShardCache
    from segtrain.errors import DataError

    cache = ShardCache(tmp_path / "copies", None)
    tries = []

    def fetch(url, start):
        tries.append(url)
        raise DataError("the store is gone")

    monkeypatch.setattr(cache_module, "fetch", fetch)
    for expected in (1, 2):  # a process that asks later tries again
        with pytest.raises(DataError, match="the store is gone"):
            cache.path("gs://bucket/train-000000.tar")
        assert len(tries) == expected
    failure = next((tmp_path / "copies" / "locks").glob("*.failed"))
    monkeypatch.setattr(cache_module.time, "time_ns", lambda: failure.stat().st_mtime_ns - 1)
    with pytest.raises(DataError, match="the store is gone"):
        cache.path("gs://bucket/train-000000.tar")
    assert len(tries) == 2
