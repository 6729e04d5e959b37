import numpy as np
import pytest

from segtrain.data import check_report, find_duplicates, scan_dataset
from segtrain.data.shards.dataset import ShardDataset
from segtrain.errors import ConfigError, DataError
from tests.data.shards.helpers import NUM, PER_SHARD, build, same


def test_shards_hold_the_same_samples(folder, shards):
    dataset = build(shards)
    same(list(folder), list(dataset))
    assert len(dataset.shards) == -(-NUM // PER_SHARD)
    assert [len(shard.keys) for shard in dataset.shards[:-1]] == [PER_SHARD] * 5


def test_a_shard_that_is_truncated_or_deleted_while_it_is_read(shards):
    dataset = build(shards)
    path = shards / "train-000000.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:1100])
    with pytest.raises(DataError, match=r"train-000000.tar/\w+/x_\d+.* cannot be read .*truncated"):
        [dataset[index] for index in range(PER_SHARD)]
    path.unlink()
    with pytest.raises(DataError, match=r"train-000000.tar/\S+: the shard does not exist any more"):
        dataset[0]


def test_a_damaged_sample_is_named(shards):
    dataset = build(shards)
    shard = dataset.shards[0]
    row = next(row for row in range(PER_SHARD) if shard.file(row, 0).endswith("png"))
    place = shard.member(row, 0)
    path = shards / "train-000000.tar"
    whole = bytearray(path.read_bytes())
    whole[place.offset + 60 : place.offset + 100] = bytes(40)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=rf"000000.tar/{shard.file(row, 0)}: the image file cannot"):
        dataset[row]


def test_the_contract_holds_in_shards(shards):
    dataset = build(shards, num_classes=2)
    with pytest.raises(
        DataError, match=r"train-00000\d.tar/.*x_\d+.mask.png: the mask holds value 2"
    ):
        list(dataset)
    with pytest.raises(
        DataError, match=r"train-00000\d.tar/.*x_\d+.mask.png: the mask holds value 2"
    ):
        check_report(scan_dataset(dataset))


def test_a_scan_does_not_read_shards_with_an_index(folder, shards, counted):
    dataset = build(shards)
    for path in shards.glob("*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    report = scan_dataset(dataset)
    assert not counted
    expected = scan_dataset(folder)
    assert report.class_pixels.tolist() == expected.class_pixels.tolist()
    assert report.ignored_pixels == expected.ignored_pixels == NUM
    assert not report.findings


def test_a_scan_of_shards_without_an_index(folder, shards):
    (shards / "train-index.jsonl").unlink()
    dataset = build(shards, "train-*.tar")
    report, expected = scan_dataset(dataset), scan_dataset(folder)
    assert report.class_pixels.tolist() == expected.class_pixels.tolist()
    assert not find_duplicates(dataset)
    assert len(find_duplicates(dataset, build(shards, "train-*.tar"))) == NUM


def test_samples_can_be_left_out(shards):
    dataset = build(shards, max_bad=0.5)
    fewer = dataset.without({0, 5, 20}, ["a", "b", "c"])
    kept = [index for index in range(NUM) if index not in (0, 5, 20)]
    assert [files.name for files in fewer.files] == [dataset.files[index].name for index in kept]
    np.testing.assert_array_equal(fewer[4].image, dataset[6].image)
    assert sorted(fewer.epoch_order(0, 0, 3)) == list(range(len(kept)))
    assert len(dataset) == NUM


def test_a_share_of_shards_can_be_held_back(shards):
    whole = {files.name for files in build(shards).files}
    places = {"shards": "train-index.jsonl"}
    train, val = (
        build(shards, split=split, val_share=0.5, train=places) for split in ("train", "val")
    )
    names = [{files.name for files in split.files} for split in (train, val)]
    assert names[0] | names[1] == whole
    assert not names[0] & names[1]
    for split in (train, val):
        order = split.epoch_order(0, 0, 2)
        assert sorted(order.tolist()) == list(range(len(split)))
        assert [split[int(index)].name for index in order] == [
            split.files[int(index)].name for index in order
        ]


def test_wrong_parameters(shards):
    with pytest.raises(ConfigError, match=r"train\.shards is not set; give an index"):
        ShardDataset(num_classes=2, root=str(shards))
    with pytest.raises(ConfigError, match=r"unknown key dataset\.train\.shard.*'shards'"):
        ShardDataset(num_classes=2, root=str(shards), train={"shard": "x"})
    with pytest.raises(ConfigError, match="streams must be at least 1"):
        build(shards, streams=0)
    with pytest.raises(ConfigError, match=r"dataset\.folds=5 needs a dataset of files, but this"):
        build(shards, folds=5, fold=0)
    with pytest.raises(ConfigError, match=r"dataset\.fold=0 needs dataset\.folds"):
        build(shards, fold=0)
    with pytest.raises(ConfigError, match="suffixes separated by semicolons"):
        build(shards, image="jpg;;png")
