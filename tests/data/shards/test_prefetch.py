import itertools
import threading

from segtrain.data import prefetch_shards
from tests.data.shards.helpers import build, samplers


def test_shards_are_prefetched(shards, server, tmp_path):
    largest = max(path.stat().st_size for path in shards.glob("*.tar"))
    dataset = build(
        f"{server.url}/shards", streams=1, cache_dir=str(tmp_path / "copies"),
        cache_size_gb=2.5 * largest / 1e9,
    )  # fmt: skip
    (sampler,) = samplers(dataset, 1)
    batches = itertools.islice(sampler, 30)
    expected = list(itertools.islice(sampler, 30))
    stream = prefetch_shards(batches, dataset, sampler)
    found = [next(stream)]
    for _ in range(200):
        if len(server.asked) > 1:
            break
        threading.Event().wait(0.02)
    assert len(server.asked) == 2  # the index, and the one shard for which there is room
    assert [*found, *stream] == expected
