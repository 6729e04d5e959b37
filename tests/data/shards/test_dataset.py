import http.server
import io
import itertools
import json
import multiprocessing
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.data import (
    DATASETS,
    FolderDataset,
    ListDataset,
    StepSampler,
    check_report,
    fetch_ahead,
    find_duplicates,
    make_shards,
    scan_dataset,
    write_mask,
)
from segtrain.data.io import remote
from segtrain.data.io.tar import Member, read_members
from segtrain.data.shards import locations as shard_places
from segtrain.data.shards.cache import ShardCache
from segtrain.data.shards.dataset import ShardDataset
from segtrain.data.shards.index import Kinds, find_samples
from segtrain.data.shards.order import shard_order
from segtrain.errors import ConfigError, DataError
from tests.helpers import TINY

NUM, PER_SHARD = 21, 4
CLASSES = 3


@pytest.fixture
def folder(tmp_path):
    """A dataset of files of several formats, in two folders."""
    rng = np.random.default_rng(0)
    for number in range(NUM):
        place = tmp_path / "files" / "images" / ("a", "b.c")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 10 + number % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"x_{number:03d}.{('png', 'jpg')[number % 2]}")
        mask = tmp_path / "files" / "masks" / place.name / f"x_{number:03d}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        ids = rng.integers(0, CLASSES, pixels.shape[:2]).astype(np.uint8)
        ids[0, 0] = 255
        write_mask(mask, ids)
    places = {"images": "images", "masks": "masks"}
    return FolderDataset(
        root=str(tmp_path / "files"), num_classes=CLASSES, train=places, val=places
    )


@pytest.fixture
def shards(folder, tmp_path):
    make_shards(folder, tmp_path / "shards", "train", samples_per_shard=PER_SHARD)
    return tmp_path / "shards"


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def server(tmp_path, no_pause):
    """Serves `tmp_path`; `answers` holds status codes to give before that, `asked` the paths."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.server.answers:
                answer = self.server.answers.pop(0)
                if answer == "cut":
                    self.send_response(200)
                    size = Path(self.translate_path(self.path)).stat().st_size
                    self.send_header("Content-Length", str(size))
                    self.end_headers()
                    self.wfile.write(b"only this")
                    return
                self.send_error(answer)
                return
            super().do_GET()

        def log_message(self, *arguments):
            pass

    handler = partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        found.answers, found.asked = [], []
        found.url = f"http://127.0.0.1:{found.server_port}"
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def build(root, shards="train-index.jsonl", split="train", **options):
    spec = {"name": "webdataset", "root": str(root), "num_classes": CLASSES, **options}
    return DATASETS.build({**spec, split: {"shards": shards}}, split=split)


def same(one, other):
    by_name = {sample.name: sample for sample in one}
    assert len(one) == len(other) == len(by_name)
    for sample in other:
        np.testing.assert_array_equal(sample.image, by_name[sample.name].image)
        np.testing.assert_array_equal(sample.target, by_name[sample.name].target)


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def foreign(path, keys, mask="mask.png"):
    """A shard as other programs write them, with members that mean nothing here."""
    rng = np.random.default_rng(1)
    members = {}
    for key in keys:
        members[f"{key}.json"] = b"{}"
        members[f"{key}.jpg"] = png(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        members[f"{key}.{mask}"] = png(rng.integers(0, CLASSES, (6, 7), dtype=np.uint8))
    write_tar(path, members)


# ---------------------------------------------------------------------- writing and reading


def test_shards_hold_the_same_samples(folder, shards):
    dataset = build(shards)
    same(list(folder), list(dataset))
    assert len(dataset.shards) == -(-NUM // PER_SHARD)
    assert [len(shard.keys) for shard in dataset.shards[:-1]] == [PER_SHARD] * 5


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


def test_writing_goes_on_where_it_was_broken_off(folder, tmp_path):
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
    make_shards(folder, shards, "val", samples_per_shard=PER_SHARD)  # beside it, in peace


def test_what_is_wrong_gets_into_no_shard(folder, tmp_path):
    mask = folder.files[3].mask
    write_mask(mask, np.full((8, 10), 7, np.uint8))
    with pytest.raises(DataError, match=r"x_\d+.png: the mask holds value 7"):
        make_shards(folder, tmp_path / "out", "train")
    mask.write_bytes(mask.read_bytes()[:40])
    with pytest.raises(DataError, match=rf"{mask.name}: the mask file cannot be read"):
        make_shards(folder, tmp_path / "out", "train")
    assert not list((tmp_path / "out").glob("*.tar"))


def test_keys_that_would_be_the_same_are_refused(folder, tmp_path):
    image, mask = folder.files[0].image, folder.files[0].mask
    for name in ("x.y", "x_y"):
        (tmp_path / f"{name}.png").write_bytes(image.read_bytes())
        (tmp_path / f"{name}-m.png").write_bytes(mask.read_bytes())
    lines = "".join(f"{name}.png\t{name}-m.png\n" for name in ("x.y", "x_y"))
    (tmp_path / "all.tsv").write_text(lines)
    dataset = ListDataset(root=str(tmp_path), num_classes=CLASSES, train={"list": "all.tsv"})
    with pytest.raises(DataError, match=r"'x.y' and 'x_y' would both be 'x_y'"):
        make_shards(dataset, tmp_path / "out", "train")


def test_masks_of_classes_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    for place in ("images", "car", "dog"):
        (tmp_path / place).mkdir()
        for number in range(3):
            if (place, number) != ("dog", 1):
                shape = (5, 6, 3) if place == "images" else (5, 6)
                high = 256 if place == "images" else 2
                array = rng.integers(0, high, shape, dtype=np.uint8)
                Image.fromarray(array).save(tmp_path / place / f"{number}.png")
    options = {"num_classes": 2, "class_names": ["car", "dog"], "multi_label": True}
    places = {"images": "images", "masks": {"car": "car", "dog": "dog"}}
    files = FolderDataset(root=str(tmp_path), train=places, **options)
    make_shards(files, tmp_path / "out", "train")
    dataset = build(tmp_path / "out", **options)
    same(list(files), list(dataset))
    (tmp_path / "out" / "train-index.jsonl").unlink()  # and from the names in the shard
    same(list(files), list(build(tmp_path / "out", "train-000000.tar", **options)))


def test_raw_values_of_masks_that_need_another_file(folder, tmp_path):
    class Shifted(FolderDataset):
        def read_mask(self, index):
            return super().read_mask(index).astype(np.int32) + 70_000 * (index == 0)

    places = {"images": "images", "masks": "masks"}
    label_map = {value: value for value in (*range(CLASSES), 255)}
    label_map |= {value + 70_000: class_id for value, class_id in list(label_map.items())}
    options = {"num_classes": CLASSES, "label_map": label_map}
    shifted = Shifted(root=str(tmp_path / "files"), train=places, **options)
    make_shards(shifted, tmp_path / "out", "train")
    same(list(folder), list(build(tmp_path / "out", label_map=label_map)))
    suffixes = {suffix for sample in build(tmp_path / "out", label_map=label_map).shards[0].suffixes
                for suffix in sample[1:]}  # fmt: skip
    assert suffixes == {"mask.png", "mask.npy"}


# ---------------------------------------------------------------------- shards of other programs


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


def test_shards_are_looked_through_once(tmp_path, monkeypatch):
    foreign(tmp_path / "s-0.tar", ["a"])
    build(tmp_path, "s-0.tar")
    calls = []
    monkeypatch.setattr(shard_places, "read_members", calls.append)
    build(tmp_path, "s-0.tar")
    assert not calls
    foreign(tmp_path / "s-0.tar", ["a", "b"])
    monkeypatch.undo()
    assert len(build(tmp_path, "s-0.tar")) == 2


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a.jpg", "a.png"], r"'a' has an image and no mask, only a.jpg, a.png; a mask is a.mask"),
        (["a.mask.png"], r"'a' has a mask and no image"),
        (["a.jpg", "a.mask.png", "a.mask.tif"], r"'a' has several masks, mask.png, mask.tif; say"),
    ],
)
def test_a_sample_that_is_not_whole(tmp_path, names, sentence):
    write_tar(tmp_path / "s.tar", dict.fromkeys(names, b"x"))
    with pytest.raises(DataError, match=r"s.tar: sample " + sentence):
        build(tmp_path, "s.tar")
    foreign(tmp_path / "t.tar", ["b"])
    dataset = build(tmp_path, ["s.tar", "t.tar"], max_bad=0.5)
    assert len(dataset) == 1
    assert len(dataset.left_out) == 1


def test_masks_of_another_name(tmp_path):
    foreign(tmp_path / "s.tar", ["a"], mask="label_ids.png")
    with pytest.raises(DataError, match=r"or say with dataset.mask what it is called"):
        build(tmp_path, "s.tar")
    assert len(build(tmp_path, "s.tar", mask="label_ids.png")) == 1


def test_the_first_pattern_that_matches_wins():
    members = dict.fromkeys(["k.png", "k.jpg", "k.seg.png", "k.mask.png"], Member(0, 1))
    found, problems = find_samples(members, Kinds(["jpg", "png"], ["seg.*", "mask.*"]), "s")
    assert [sample.suffixes for sample in found] == [("jpg", "seg.png")]
    assert not problems


def test_shards_without_samples(tmp_path):
    write_tar(tmp_path / "s.tar", {"a.txt": b"x"})
    with pytest.raises(DataError, match=r"no sample in 1 shards; say with dataset.image"):
        build(tmp_path, "s.tar")


# ---------------------------------------------------------------------- what is wrong with shards


@pytest.mark.parametrize("length", [700, 1024, 5 * 512, -512 * 20, -1])
def test_a_truncated_shard_is_named(shards, length):
    path = shards / "train-000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    size = len(whole[:length])
    with pytest.raises(DataError, match=rf"train-000001.tar has {size} bytes, not {len(whole)}"):
        build(shards)


def test_a_truncated_shard_without_index(tmp_path):
    foreign(tmp_path / "s.tar", "abcdef")
    whole = (tmp_path / "s.tar").read_bytes()
    ends = sum(b"ustar" in whole[at : at + 512] for at in range(0, len(whole), 512))
    assert ends == 18
    for length in range(0, len(whole) - 10_000, 512 * 3 - 1):
        (tmp_path / "s.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"s\.tar (is truncated|cannot be read)"):
            read_members(tmp_path / "s.tar")
    for at in (1024, 3072):  # a damaged header in the middle
        (tmp_path / "s.tar").write_bytes(whole[:at] + b"?" * 20 + whole[at + 20 :])
        with pytest.raises(DataError, match=r"s\.tar (is truncated or damaged|cannot be)"):
            read_members(tmp_path / "s.tar")


def test_a_shard_that_is_cut_or_gone_while_it_is_read(shards):
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


def test_other_mistakes_in_the_config(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.shards is not set; give an index"):
        ShardDataset(num_classes=2, root=str(shards))
    with pytest.raises(ConfigError, match=r"unknown key dataset\.train\.shard.*'shards'"):
        ShardDataset(num_classes=2, root=str(shards), train={"shard": "x"})
    with pytest.raises(DataError, match=r"train\.shards: .*nope-0.tar does not exist"):
        build(shards, "nope-{0..3}.tar")
    with pytest.raises(DataError, match=r"nope\*.tar does not exist"):
        build(shards, "nope*.tar")
    with pytest.raises(ConfigError, match=r"names .*train-000000.tar twice"):
        build(shards, ["train-000000.tar", "train-0*.tar"])
    with pytest.raises(ConfigError, match="streams must be at least 1"):
        build(shards, streams=0)
    with pytest.raises(ConfigError, match="suffixes between semicolons"):
        build(shards, image="jpg;;png")
    for text in ("", "{}", "[]", '{"segtrain_shards": 1}\n{"shard": "../x.tar"}'):
        (tmp_path / "bad-index.jsonl").write_text(text)
        with pytest.raises(DataError, match=r"bad-index.jsonl, line [12]: it is no index"):
            build(tmp_path, "bad-index.jsonl")
    (tmp_path / "bad-index.jsonl").write_text('{"segtrain_shards": 99}')
    with pytest.raises(DataError, match=r"of version 99, and this segtrain reads version 1"):
        build(tmp_path, "bad-index.jsonl")


def test_compressed_shards_are_refused(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"s.tar is compressed \(gzip\), .* unpack it"):
        build(tmp_path, "s.tar")


@pytest.mark.parametrize("url", ["pipe:touch {}", "pipe:cat x.tar; touch {}", "file:///{}", "ftp://h/{}",
                                 "gopen:x", "http:x"])  # fmt: skip
def test_urls_that_would_do_more_than_fetch_are_refused(shards, tmp_path, url):
    mark = tmp_path / "mark"
    for options in ({"shards": url.format(mark)}, {"root": url.format(mark)}):
        with pytest.raises(ConfigError, match=r"would run a shell command|is no URL that is read"):
            build(**{"root": shards, **options})
    assert not mark.exists()


def test_without_the_extra(shards, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(shard_places, "_PACKAGES", ("a_package_that_nobody_has",))
    with pytest.raises(ConfigError, match=r'pip install "segtrain\[webdataset\]"'):
        build(shards)
    with pytest.raises(ConfigError, match=r'pip install "segtrain\[webdataset\]"'):
        make_shards(folder, tmp_path / "out", "train")


# ---------------------------------------------------------------------- the contract and the doctor


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


def test_a_scan_needs_no_look_at_shards_with_an_index(folder, shards, counted):
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


def test_folders_may_be_in_a_tar(folder, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "files", arcname=".")
    places = {"images": "images", "masks": "masks/**/*.png"}
    inside = FolderDataset(root=str(tmp_path / "all.tar"), num_classes=CLASSES, train=places)
    for one, other in zip(folder, inside, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.target, other.target)
    assert scan_dataset(inside).class_pixels.tolist() == scan_dataset(folder).class_pixels.tolist()


# ---------------------------------------------------------------------- the order of an epoch


def test_an_epoch_has_every_sample_once_in_an_order_of_its_own(shards):
    dataset = build(shards, streams=2)
    orders = [dataset.epoch_order(0, epoch, 3) for epoch in range(2)]
    assert all(sorted(order) == list(range(NUM)) for order in orders)
    assert orders[0].tolist() != orders[1].tolist()
    again = build(shards, streams=2)
    assert again.epoch_order(0, 1, 3).tolist() == orders[1].tolist()
    assert again.epoch_order(1, 1, 3).tolist() != orders[1].tolist()


def samplers(dataset, world_size, batch_size=2, **options):
    order = partial(dataset.epoch_order, 0, group=batch_size * world_size)
    return [
        StepSampler(
            len(dataset), batch_size, world_size=world_size, rank=rank, order=order, **options
        )
        for rank in range(world_size)
    ]


def test_the_order_goes_on_from_a_step(shards):
    dataset = build(shards)
    (whole,) = samplers(dataset, 1)
    (later,) = samplers(dataset, 1, start_step=7)
    stream = list(itertools.islice(whole, 20))
    assert list(itertools.islice(later, 13)) == stream[7:]


def test_a_step_is_the_same_samples_for_any_number_of_processes(shards):
    dataset = build(shards, streams=4)
    steps = []
    for world_size, batch_size in ((1, 4), (2, 2), (4, 1)):
        ranks = samplers(dataset, world_size, batch_size)
        keys = [[key for rank in ranks for key in rank.keys(step, 0)] for step in range(9)]
        steps.append([sorted(step) for step in keys])
    assert steps[0] == steps[1] == steps[2]


def test_a_process_needs_few_shards_at_a_time():
    starts = np.arange(0, 101) * 50
    order = shard_order(starts, 16, seed=0, epoch=0, group=32)
    shard = np.searchsorted(starts, order, side="right") - 1
    steps = shard[: len(shard) // 32 * 32].reshape(-1, 4, 8)  # step, process, sample
    for process in range(4):
        for start in range(0, len(steps) - 10, 10):
            # Four streams at a time; each may go from one shard to the next in between.
            assert len(set(steps[start : start + 10, process].ravel())) <= 8
    met = [set(steps[:, process].ravel()) for process in range(4)]
    assert max(map(len, met)) <= 100 / 4 + 5


def test_an_order_of_more_streams_than_samples():
    assert sorted(shard_order([0, 2, 2, 3], 16, seed=0, epoch=0)) == [0, 1, 2]


# ---------------------------------------------------------------------- behind a URL


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


def test_remote_shards_without_an_index_are_fetched_to_index_them(folder, shards, server):
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
    except Exception as error:  # noqa: BLE001  the parent tells it
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
    assert peak <= 1.5 * largest + largest  # a look at several files is not a look at one moment


def test_a_server_that_fails_is_asked_again(shards, server):
    server.answers += [503, "cut", 500]
    dataset = build(f"{server.url}/shards")
    server.answers += ["cut", 429]
    assert dataset[0].image.shape[2] == 3


def test_a_server_that_goes_on_failing(shards, server):
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
    with pytest.raises(DataError, match=r"train-0.*.tar has 5000 bytes, not \d+ as its index says"):
        dataset[0]


def test_no_server(no_pause):
    with pytest.raises(DataError, match=r"cannot be fetched after 4 attempts: .*refused"):
        build("http://127.0.0.1:9/shards")


def test_a_remote_shard_that_is_damaged(shards, server, tmp_path):
    path = shards / "train-000000.tar"
    whole = bytearray(path.read_bytes())
    whole[600] ^= 1
    path.write_bytes(whole)
    dataset = build(f"{server.url}/shards", cache_dir=str(tmp_path / "copies"))
    with pytest.raises(DataError, match=r"train-000000.tar is damaged: its SHA-256 is"):
        dataset[0]
    assert not list((tmp_path / "copies").glob("*.tar*"))


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


def test_shards_are_fetched_ahead(shards, server, tmp_path):
    largest = max(path.stat().st_size for path in shards.glob("*.tar"))
    dataset = build(
        f"{server.url}/shards", streams=1, cache_dir=str(tmp_path / "copies"),
        cache_size_gb=2.5 * largest / 1e9,
    )  # fmt: skip
    (sampler,) = samplers(dataset, 1)
    batches = itertools.islice(sampler, 30)
    expected = list(itertools.islice(sampler, 30))
    stream = fetch_ahead(batches, dataset, sampler)
    found = [next(stream)]
    for _ in range(200):
        if len(server.asked) > 1:
            break
        threading.Event().wait(0.02)
    assert len(server.asked) == 2  # the index, and the one shard for which there is room
    assert [*found, *stream] == expected


def test_a_cache_smaller_than_a_shard(tmp_path, shards, server):
    cache = ShardCache(tmp_path / "copies", 100)
    with pytest.raises(ConfigError, match=r"is less than one shard"):
        cache.path(f"{server.url}/shards/train-000000.tar")


# ---------------------------------------------------------------------- the command, and training


@pytest.fixture
def command(folder, tmp_path):
    """Write both splits of the folder with the command; gives the directory."""
    output = tmp_path / "written"
    for split in ("train", "val"):
        words = [
            "dataset=folder", "dataset.title=ours", f"dataset.root={tmp_path / 'files'}",
            "dataset.num_classes=3", "'dataset.label_map={0:1,1:0,2:2}'".strip("'"),
            "dataset.train={images:images,masks:masks}", "dataset.val={images:images,masks:masks}",
            f"output={output}", f"split={split}", "samples_per_shard=4",
        ]  # fmt: skip
        assert run_command("shards", words) == 0
    return output


def test_the_command_writes_a_config_to_train_with(folder, command):
    assert sorted(path.name for path in (command / "dataset").iterdir()) == ["ours_shards.yaml"]
    composed = compose_config(["dataset=ours_shards"], "train", command)["dataset"]
    dataset = DATASETS.build(composed, split="val")
    assert dataset.title == "ours"
    sample = dataset[0]
    other = next(other for other in folder if other.name == sample.name)
    np.testing.assert_array_equal(sample.image, other.image)
    swapped = np.array([1, 0, 2, *[255] * 253], np.uint8)[other.target]
    np.testing.assert_array_equal(sample.target, swapped)


def test_a_run_from_shards_is_the_same_from_a_url_and_when_it_is_resumed(
    command, server, tmp_path, capsys
):
    words = [
        "dataset=ours_shards", "dataset.allow_overlap=true", "dataset.streams=2",
        f"plugins=[{TINY}]", "model=tiny", "trainer.batch_size=2", "trainer.max_steps=6",
        "trainer.log_every=1", "trainer.evaluate_every=100", "augmentation.crop_size=[8,8]",
        "evaluation.batch_size=1", "loader.num_workers=0", "trainer.device=cpu",
    ]  # fmt: skip

    def losses(name, *more):
        arguments = ["--config-dir", str(command), *words, f"run_dir={tmp_path / name}", *more]
        assert run_command("train", arguments) == 0, capsys.readouterr().err
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]

    whole = losses("disk")
    remote = f"dataset.root={server.url}/written"
    assert len(losses("url", remote, "trainer.stop_after=3")) == 3
    assert losses("url", remote, "resume=auto", "loader.num_workers=2") == whole


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert run_command("shards", ["dataset=shapes", f"output={tmp_path}"]) == 2
    assert "dataset 'shapes' has no files to write to shards" in capsys.readouterr().err
    assert run_command("shards", ["dataset=shapes", "output=x", "samples_per_shard=0"]) == 2
    assert "samples_per_shard must be above 0, got 0" in capsys.readouterr().err
