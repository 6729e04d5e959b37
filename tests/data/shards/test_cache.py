import multiprocessing

import pytest

from segtrain.data.shards.cache import ShardCache
from segtrain.errors import ConfigError, DataError
from tests.data.shards.helpers import NUM, build


def test_the_cache_keeps_its_bound(folder, shards, server, tmp_path):
    copies = tmp_path / "copies"
    largest = max(path.stat().st_size for path in shards.glob("*.tar"))
    dataset = build(
        f"{server.url}/shards", streams=2, cache_dir=str(copies), cache_size_gb=2.5 * largest / 1e9
    )
    peak = 0
    for index in range(NUM):
        dataset[index]
        peak = max(peak, sum(path.stat().st_size for path in copies.glob("*.tar*")))
    assert largest < peak <= 2.5 * largest
    used = [path.name[:12] for path in copies.glob("*.tar")]
    assert "train-000005" in used
    assert "train-000000" not in used
    with pytest.raises(ConfigError, match=r"is less than the 3 shards of up to .*set it to \d"):
        build(
            f"{server.url}/shards", streams=3, cache_dir=str(copies),
            cache_size_gb=2.5 * largest / 1e9,
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"loader.sampling=rare_class takes samples from all"):
        dataset.check_random_access("loader.sampling=rare_class")


def read_all(dataset, start, queue):
    try:
        names = [dataset[(start + index) % NUM].name for index in range(2 * NUM)]
        queue.put(sorted(names))
    except Exception as error:  # noqa: BLE001  the parent reports it
        queue.put(error)


def test_processes_share_a_small_cache(shards, server, tmp_path):
    copies = tmp_path / "copies"
    largest = max(path.stat().st_size for path in shards.glob("*.tar"))
    dataset = build(
        f"{server.url}/shards", streams=1, cache_dir=str(copies), cache_size_gb=1.5 * largest / 1e9
    )
    (copies / "locks").mkdir(parents=True)
    (copies / "left-over.tar.part").write_bytes(bytes(int(1.4 * largest)))  # of a killed process
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [
        context.Process(target=read_all, args=(dataset, 7 * number, queue)) for number in range(3)
    ]
    for child in children:
        child.start()
    peak = 0
    while any(child.is_alive() for child in children):
        sizes = []
        for path in copies.glob("*.tar*"):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue
        peak = max(peak, sum(sizes))
        if len(children) == queue.qsize():
            break
    names = [queue.get(timeout=20) for _ in children]
    for child in children:
        child.join()
    assert all(found == sorted([files.name for files in dataset.files] * 2) for found in names)
    assert peak <= 1.5 * largest + largest  # the files are not measured at one moment


def test_a_remote_shard_that_is_damaged(shards, server, tmp_path):
    path = shards / "train-000000.tar"
    whole = bytearray(path.read_bytes())
    whole[600] ^= 1
    path.write_bytes(whole)
    dataset = build(f"{server.url}/shards", cache_dir=str(tmp_path / "copies"))
    with pytest.raises(DataError, match=r"train-000000.tar is damaged: its SHA-256 is"):
        dataset[0]
    assert not list((tmp_path / "copies").glob("*.tar*"))


def test_a_cache_smaller_than_a_shard(tmp_path, shards, server):
    cache = ShardCache(tmp_path / "copies", 100)
    with pytest.raises(ConfigError, match=r"is less than one shard"):
        cache.path(f"{server.url}/shards/train-000000.tar")
