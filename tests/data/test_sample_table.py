"""The table of a list: the same samples as objects, stored for the next start."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATASETS, check_report, content_hash, find_duplicates, scan_dataset
from segtrain.data.datasets import list_store, list_table
from segtrain.data.datasets.list_store import files_are_checked
from segtrain.data.sample_table import SampleTable, TableBuilder
from segtrain.data.scan import scan as scan_module
from segtrain.errors import ConfigError, DataError

NAMES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def short_lists_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_store, "_LEAST_ROWS", 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        for kind in ("i", "m"):
            (tmp_path / kind).mkdir(exist_ok=True)
            pixels = np.full((4, 5), number % 2, np.uint8)
            pixels[0, 0], pixels[1, 1] = number % 3 % 2, number // 2
            Image.fromarray(pixels if kind == "m" else 50 * pixels + number).save(
                tmp_path / kind / f"{name}.png"
            )
    return tmp_path


def write_list(root: Path, names: str, file: str = "t.txt") -> None:
    (root / file).write_text("".join(f"i/{name}.png m/{name}.png\n" for name in names))


def build(root: Path, split: str = "train", **keys: Any) -> Any:
    section = keys.pop("section", {"list": "t.txt"})
    spec = {"name": "list", "root": str(root), "num_classes": 2, split: section, **keys}
    return DATASETS.build(spec, split=split)


def names(dataset: Any) -> str:
    return "".join(Path(files.name).name for files in dataset.files)


def test_a_table_has_the_samples_of_its_rows(tmp_path: Path) -> None:
    builder = TableBuilder(tmp_path)
    builder.add("ü", "i/ü.png", "/elsewhere/ü.png")
    builder.add("b", "i/b.png", "m/b.png", "v/b.png")
    table = builder.build()
    assert table[0].image == tmp_path / "i/ü.png"
    assert table[0].mask == Path("/elsewhere/ü.png")
    assert table[0].valid is None
    assert table[-1].valid == tmp_path / "v/b.png"
    assert [files.name for files in table] == list(table.names()) == ["ü", "b"]
    assert pickle.loads(pickle.dumps(table.chosen([1])))[0] == table[1]
    assert table[0:2] == [table[0], table[1]]
    with pytest.raises(IndexError):
        _ = table[2]


def test_stamps_follow_the_rows(root: Path) -> None:
    write_list(root, "abcd")
    table = build(root).files
    expected = [[(path := root / "i" / f"{n}.png").stat().st_size, path.stat().st_mtime_ns]
                for n in "abcd"]  # fmt: skip
    assert table.stamps.values[:, 0].tolist() == expected
    assert table.chosen([3, 1]).stamps.values[:, 0].tolist() == [expected[3], expected[1]]
    assert table.chosen([1, 0, 2, 3]).digest != table.digest


def test_a_stored_table_is_used_until_the_list_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(root, "abc")
    first = build(root)
    reads: list[Any] = []
    read = list_table.read_list
    monkeypatch.setattr(list_table, "read_list", lambda *given: reads.append(given) or read(*given))
    again = build(root)
    assert not reads
    assert isinstance(again.files, SampleTable)
    assert list(again.files) == list(first.files)
    write_list(root, "abd")
    os.utime(root / "t.txt", ns=(1, 1))
    assert names(build(root)) == "abd"
    assert reads


@pytest.mark.fault("F42")
def test_a_file_that_disappears_is_found_in_a_stored_table(root: Path) -> None:
    write_list(root, "abc")
    build(root)
    (root / "m/b.png").unlink()
    with pytest.raises(DataError, match=r"t\.txt, line 2: the mask file .*m/b\.png does not"):
        build(root)
    dataset = build(root, max_bad=0.5)
    assert names(dataset) == "ac"
    assert len(dataset.left_out) == 1


@pytest.mark.fault("F42")
def test_a_link_that_leads_outside_later_is_found_in_a_stored_table(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_list(root, "abc")
    build(root)
    outside = tmp_path_factory.mktemp("outside") / "b.png"
    (root / "i/b.png").rename(outside)
    (root / "i/b.png").symlink_to(outside)
    with pytest.raises(DataError, match=r"t\.txt, line 2: 'i/b\.png' leads outside dataset\.root"):
        build(root)
    assert names(build(root, allow_outside_root=True)) == "abc"
    (root / "i/b.png").unlink()
    outside.rename(root / "i/b.png")
    (root / "i").rename(outside.parent / "i")
    (root / "i").symlink_to(outside.parent / "i")
    list_table._real.cache_clear()
    with pytest.raises(DataError, match=r"line 1: 'i/a\.png' leads outside dataset\.root"):
        build(root)


@pytest.mark.fault("F8")
@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"\xff" * 8, None])
def test_a_damaged_table_counts_as_missing(root: Path, content: bytes | None) -> None:
    write_list(root, "abc")
    build(root)
    scan_dataset(build(root))
    folder = Path(os.environ["SEGTRAIN_CACHE"])
    stored = [*folder.glob("list-*.table"), *folder.glob("scan-of-list-*.npz")]
    assert len(stored) == 2
    for file in stored:
        file.write_bytes(file.read_bytes()[:-5] if content is None else content)
    assert names(build(root)) == "abc"
    assert scan_dataset(build(root)).num_files == 3


def test_other_processes_do_not_look_for_the_files(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(root, "abc")
    build(root)

    def stamp(path: bytes) -> None:
        raise AssertionError(path)

    monkeypatch.setattr("segtrain.data.sample_table._stamp", stamp)
    with files_are_checked():
        assert names(build(root)) == "abc"
    with pytest.raises(ConfigError, match="AssertionError"):
        build(root)


def test_names_and_folds_choose_rows(root: Path) -> None:
    write_list(root, "abcd")
    assert names(build(root, section={"list": "t.txt", "names": ["i/c", "i/a"]})) == "ac"
    assert names(build(root, section={"list": "t.txt", "names": ["i/d"]})) == "d"
    parts = [names(build(root, folds=2, fold=fold)) for fold in (0, 1)]
    assert sorted("".join(parts)) == list("abcd")


# ---------------------------------------------------------------- samples that are repeated


def test_a_repeated_sample_is_drawn_more_often_and_scored_once(root: Path) -> None:
    write_list(root, "abab")
    train = build(root)
    assert names(train) == "abab"
    assert train.notes == [
        "dataset.train: 2 of 4 samples are repetitions; they are drawn as often as they are listed"
    ]
    train.score_once()  # as evaluate does
    assert names(train) == "ab"
    val = build(root, "val")
    assert names(val) == "ab"
    assert val.notes == ["dataset.val: 2 of 4 samples are repetitions; each sample is scored once"]
    report = scan_dataset(build(root))
    check_report(report)
    assert report.class_pixels.tolist() == (2 * scan_dataset(val).class_pixels).tolist()


def test_a_repeated_sample_is_in_one_fold_and_one_part(root: Path) -> None:
    write_list(root, "abcabd")
    for fold in (0, 1):
        train = build(root, folds=2, fold=fold)
        val = DATASETS.build(
            {"name": "list", "root": str(root), "num_classes": 2, "train": {"list": "t.txt"},
             "folds": 2, "fold": fold}, split="val")  # fmt: skip
        assert not set(names(train)) & set(names(val))
        assert len(set(names(val))) == len(val)


@pytest.mark.fault("F36")
def test_a_repeated_sample_is_no_duplicate_but_may_be_in_two_splits(root: Path) -> None:
    write_list(root, "aab")
    write_list(root, "ccd", "v.txt")
    train, val = build(root), build(root, "val", section={"list": "v.txt"})
    for _ in range(2):  # found, and remembered
        assert find_duplicates(train, val) == []
    write_list(root, "ca", "v.txt")
    val = build(root, "val", section={"list": "v.txt"})
    for _ in range(2):
        (finding,) = find_duplicates(train, val)
        assert finding.kind == "overlap"
        assert finding.text.count("a.png") == 1
    (root / "i/b.png").write_bytes((root / "i/a.png").read_bytes())
    (finding,) = find_duplicates(build(root))
    assert finding.kind == "duplicate"
    assert "a.png and" in finding.text


def test_repetitions_change_the_hash_of_the_data(root: Path) -> None:
    write_list(root, "ab")
    once = content_hash(build(root))
    write_list(root, "ba")
    assert content_hash(build(root)) == once
    write_list(root, "aab")
    assert content_hash(build(root)) != once


def test_one_name_for_two_samples_is_refused(root: Path) -> None:
    (root / "t.txt").write_text("i/a.png m/a.png\ni/b.png m/b.png\ni/a.png m/b.png\n")
    with pytest.raises(DataError, match=r"line 3: 'i/a' is named twice, with other files in .*1;"):
        build(root)


# ---------------------------------------------------------------- remembered results


def test_a_report_is_remembered_until_a_file_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(root, "abc")
    first = scan_dataset(build(root))
    scanned: list[int] = []
    scan = scan_module._scan_sample
    monkeypatch.setattr(
        scan_module, "_scan_sample", lambda *given: scanned.append(given[1]) or scan(*given)
    )
    again = scan_dataset(build(root))
    assert not scanned
    write_list(root, "ab", "fewer.txt")  # does not replace the report
    scan_dataset(build(root, section={"list": "fewer.txt"}))
    scanned.clear()
    scan_dataset(build(root))
    assert not scanned
    for key in ("image_pixels", "sizes", "invalid_pixels", "mean_std"):
        one, two = getattr(first, key), getattr(again, key)
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
    assert (first.ignored_pixels, first.findings, first.values) == (
        again.ignored_pixels,
        again.findings,
        again.values,
    )
    Image.new("L", (5, 4), 7).save(root / "m/b.png")
    with pytest.raises(DataError, match=r"m/b\.png: the mask holds value 7"):
        check_report(scan_dataset(build(root)))
    assert scanned


@pytest.mark.fault("F26")
def test_an_error_is_not_remembered(root: Path) -> None:
    write_list(root, "abc")
    scan_dataset(build(root))
    Image.new("L", (5, 4), 7).save(root / "m/b.png")
    for _ in range(2):
        with pytest.raises(DataError, match="holds value 7"):
            check_report(scan_dataset(build(root)))
    other = build(root, label_map={0: 0, 1: 1, 7: 1})
    check_report(scan_dataset(other))


def test_another_contract_or_rule_has_another_report(root: Path) -> None:
    write_list(root, "abc")
    one = scan_dataset(build(root)).class_pixels
    mapped = scan_dataset(build(root, label_map={0: 1, 1: 0})).class_pixels
    assert mapped.tolist() == one[::-1].tolist()
    assert np.isfinite(scan_dataset(build(root), decode_images=True).mean_std).all()


def test_a_dataset_that_reads_otherwise_is_not_remembered(root: Path) -> None:
    write_list(root, "abc")
    scan_dataset(build(root))
    dataset = build(root)

    class Inverted(type(dataset)):  # type: ignore[misc]
        def read_mask(self, index: int) -> Any:
            return 1 - super().read_mask(index)

        def mask_kind(self, index: int) -> str:
            return f"inverted {super().mask_kind(index)}"

    dataset.__class__ = Inverted
    plain = scan_dataset(build(root)).class_pixels
    assert scan_dataset(dataset).class_pixels.tolist() == plain[::-1].tolist()
