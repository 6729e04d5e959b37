import tarfile
from functools import partial

import pytest

from segtrain.data import make_shards
from segtrain.errors import ConfigError
from tests.data.shards.helpers import NUM, PER_SHARD, build, same


def test_files_go_into_shards_byte_for_byte(folder, shards):
    with tarfile.open(shards / "train-000000.tar") as archive:
        names = archive.getnames()
        name = next(name for name in names if name.endswith(".jpg"))
        data = archive.extractfile(name).read()
    assert any(files.image.read_bytes() == data for files in folder.files)
    assert len(names) == 2 * PER_SHARD
    assert name.removesuffix(".jpg") + ".mask.png" in names


@pytest.mark.filterwarnings(
    "ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_webdataset_reads_our_shards(shards):
    webdataset = pytest.importorskip("webdataset")
    samples = list(
        webdataset.WebDataset(str(shards / "train-{000000..000001}.tar"), shardshuffle=False)
    )
    assert len(samples) == 2 * PER_SHARD
    assert all("mask.png" in sample for sample in samples)


def test_the_order_in_shards_is_shuffled_or_kept(folder, tmp_path):
    make_shards(folder, tmp_path / "kept", "train", samples_per_shard=5, seed=None)
    names = [files.name for files in folder.files]
    assert [files.name for files in build(tmp_path / "kept").files] == names
    make_shards(folder, tmp_path / "mixed", "train", samples_per_shard=5)
    mixed = [files.name for files in build(tmp_path / "mixed").files]
    assert mixed != names
    assert sorted(mixed) == sorted(names)


def test_a_shard_ends_before_it_is_too_large(folder, tmp_path):
    report = make_shards(folder, tmp_path / "small", "train", max_bytes=1)
    assert report.num_shards == NUM
    report = make_shards(folder, tmp_path / "large", "train", max_bytes=2000)
    assert 1 < report.num_shards < NUM
    same(list(folder), list(build(tmp_path / "large")))


def test_writing_resumes_after_an_interruption(folder, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 11:
            raise StopError

    output = tmp_path / "out"
    make = partial(make_shards, folder, output, "train", samples_per_shard=PER_SHARD)
    with pytest.raises(StopError):
        make(progress=stop)
    assert sorted(path.name for path in output.glob("*")) == [
        ".train-index.jsonl.part", "train-000000.tar", "train-000001.tar"
    ]  # fmt: skip
    first = (output / "train-000000.tar").stat().st_mtime_ns
    with (output / ".train-index.jsonl.part").open("a") as lines:
        lines.write('{"shard": "train-0000')  # as a power cut leaves it
    report = make()
    assert (report.num_shards, report.num_written, report.num_samples) == (6, 4, NUM)
    assert (output / "train-000000.tar").stat().st_mtime_ns == first
    same(list(folder), list(build(output)))
    assert make().num_written == 0


def test_shards_of_something_else_are_not_overwritten(folder, shards, tmp_path):
    with pytest.raises(ConfigError, match=r"train-index.jsonl is of other samples"):
        make_shards(folder, shards, "train", samples_per_shard=3)
    (shards / "train-index.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"holds train-000001.tar, which is not of this set"):
        make_shards(folder, shards, "train", samples_per_shard=3)
    make_shards(
        folder, shards, "val", samples_per_shard=PER_SHARD
    )  # another prefix in the same folder
