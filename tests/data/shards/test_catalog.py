import tarfile

import pytest

from segtrain.data.shards import catalog
from segtrain.errors import DataError
from tests.data.shards.helpers import build, foreign, write_tar


def test_shards_without_an_index(tmp_path):
    for number in range(3):
        foreign(tmp_path / f"s-{number:02d}.tar", [f"k{number}", f"d/k{number}"])
    dataset = build(tmp_path, "s-{00..02}.tar")
    assert [files.name for files in dataset.files] == ["k0", "d/k0", "k1", "d/k1", "k2", "d/k2"]
    assert dataset[3].image.shape == (6, 7, 3)
    assert str(dataset.files[3].mask) == str(tmp_path / "s-01.tar" / "d" / "k1.mask.png")
    assert len(build(tmp_path, "s-*.tar")) == 6
    assert len(build(tmp_path, ["s-00.tar", "s-02.tar"])) == 4
    assert len(build("/nowhere", f"{tmp_path}/s-00.tar::{tmp_path}/s-01.tar")) == 4


def test_shards_without_an_index_are_scanned_once(tmp_path, monkeypatch):
    foreign(tmp_path / "s-0.tar", ["a"])
    build(tmp_path, "s-0.tar")
    calls = []
    monkeypatch.setattr(catalog, "read_members", calls.append)
    build(tmp_path, "s-0.tar")
    assert not calls
    foreign(tmp_path / "s-0.tar", ["a", "b"])
    monkeypatch.undo()
    assert len(build(tmp_path, "s-0.tar")) == 2


def test_shards_without_samples(tmp_path):
    write_tar(tmp_path / "s.tar", {"a.txt": b"x"})
    with pytest.raises(DataError, match=r"no sample in 1 shards; set dataset.image"):
        build(tmp_path, "s.tar")


@pytest.mark.parametrize("length", [700, 1024, 5 * 512, -512 * 20, -1])
def test_a_truncated_shard_is_named(shards, length):
    path = shards / "train-000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    size = len(whole[:length])
    with pytest.raises(
        DataError, match=rf"train-000001.tar has {size} bytes, but its index has {len(whole)}"
    ):
        build(shards)


def test_compressed_shards_are_refused(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"s.tar is compressed \(gzip\), .* unpack it"):
        build(tmp_path, "s.tar")
