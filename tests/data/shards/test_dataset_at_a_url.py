import pytest

from segtrain.data import find_duplicates, scan_dataset
from segtrain.data.io import remote
from segtrain.errors import ConfigError, DataError
from tests.data.shards.helpers import NUM, build, same


def test_shards_behind_a_url(folder, shards, server, tmp_path):
    url = f"{server.url}/shards"
    dataset = build(url, cache_dir=str(tmp_path / "copies"))
    assert server.asked == ["/shards/train-index.jsonl"]
    assert scan_dataset(dataset).class_pixels.tolist() == scan_dataset(folder).class_pixels.tolist()
    assert not find_duplicates(dataset)
    assert len(server.asked) == 1  # the index is enough to check the data
    same(list(folder), list(dataset))
    list(dataset)
    assert len(server.asked) == 1 + 6  # each shard once
    server.asked.clear()
    same(
        list(folder),
        list(build(url, "train-{000000..000005}.tar", cache_dir=str(tmp_path / "copies"))),
    )
    assert server.asked == ["/shards/train-index.jsonl"]
    with pytest.raises(DataError, match=r"127.*/train-00000\d.tar/.*: the mask holds value 2"):
        list(build(url, num_classes=2, cache_dir=str(tmp_path / "copies")))
    assert len(build(f"{url}/", "./", cache_dir=str(tmp_path / "copies"))) == NUM


def test_remote_shards_without_an_index_are_fetched_to_scan_them(folder, shards, server):
    (shards / "train-index.jsonl").unlink()
    dataset = build(f"{server.url}/shards", "train-{000000..000005}.tar")
    same(list(folder), list(dataset))
    fetched = len(server.asked)
    assert fetched == 1 + 6
    dataset = build(f"{server.url}/shards", "train-{000000..000005}.tar", exif="ignore")
    assert len(server.asked) == fetched + 1
    assert scan_dataset(dataset).class_pixels.tolist() == scan_dataset(folder).class_pixels.tolist()
    with pytest.raises(ConfigError, match="a server does not list its files"):
        build(f"{server.url}/shards", "train-*.tar")


def test_requests_are_repeated_after_a_failure(shards, server):
    server.answers += [503, "cut", 500]
    dataset = build(f"{server.url}/shards")
    server.answers += ["cut", 429]
    assert dataset[0].image.shape[2] == 3


def test_a_request_that_keeps_failing(shards, server):
    server.answers += [503] * 4
    with pytest.raises(DataError, match=r"cannot be fetched after 4 attempts: .* 503.*; check the"):
        build(f"{server.url}/shards")
    server.answers += [403]
    with pytest.raises(DataError, match=r"cannot be fetched: the server answers 403"):
        build(f"{server.url}/shards")
    with pytest.raises(DataError, match=r"cannot be fetched: the server answers 404.*the name"):
        build(f"{server.url}/shards", "other-index.jsonl")
    dataset = build(f"{server.url}/shards")
    server.answers += ["cut"] * 4
    with pytest.raises(DataError, match=r"train-0.*.tar cannot be fetched after 4 attempts"):
        dataset[0]
    path = shards / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"train-0.*.tar has 5000 bytes, but its index has \d+"):
        dataset[0]


def test_no_server(no_pause):
    with pytest.raises(DataError, match=r"cannot be fetched after 4 attempts: .*refused"):
        build("http://127.0.0.1:9/shards")


def test_a_password_is_not_shown(no_pause):
    with pytest.raises(DataError) as caught:
        build("http://someone:secret@127.0.0.1:9/shards", "train-index.jsonl?signature=secret2")
    assert "secret" not in str(caught.value)


def test_stores_are_read_through_fsspec(folder, shards, monkeypatch, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for path in shards.iterdir():
        store.pipe(f"/bucket/{path.name}", path.read_bytes())
    monkeypatch.setattr(remote, "STORES", ("memory",))
    same(list(folder), list(build("memory://bucket", cache_dir=str(tmp_path / "copies"))))
    with pytest.raises(DataError, match=r"bucket/nope-index.jsonl cannot be fetched"):
        build("memory://bucket", "nope-index.jsonl")
    store.rm("/bucket", recursive=True)
