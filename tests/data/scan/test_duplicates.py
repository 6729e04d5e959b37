import shutil

import numpy as np
import pytest

from segtrain.data import FileDataset, LabelContract, find_duplicates

pytestmark = pytest.mark.fault("F36")


def split(files):
    return FileDataset(LabelContract(2), files)


def test_different_images_of_equal_size_are_not_duplicates(make_files):
    files = make_files(*[np.zeros((6, 6))] * 4)
    assert find_duplicates(split(files[:2]), split(files[2:])) == []


def test_the_same_file_in_both_splits(make_files):
    files = make_files(*[np.zeros((6, 6))] * 3)
    (finding,) = find_duplicates(split(files[:2]), split(files[1:]))
    assert finding.kind == "overlap"
    assert finding.is_error
    assert finding.text.startswith(f"{files[1].image} is in both dataset.train and dataset.val")


def test_the_same_file_in_the_test_split(make_files):
    files = make_files(*[np.zeros((6, 6))] * 4)
    train, val, test = split(files[:2]), split([files[0], files[2]]), split([files[0], files[3]])
    (one, other) = find_duplicates(train, val), find_duplicates(train, test=test)
    assert [item.splits for item in (*one, *other)] == [("train", "val"), ("train", "test")]
    assert "both dataset.train and dataset.test; remove" in other[0].text
    (finding,) = find_duplicates(train, val, test)
    assert finding.splits == ("train", "val", "test")
    assert "is in dataset.train, dataset.val and dataset.test; remove" in finding.text


def test_the_same_bytes_and_links(make_files, tmp_path):
    files = make_files(*[np.zeros((6, 6))] * 4)
    shutil.copy(files[0].image, files[2].image)
    link = tmp_path / "images" / "link.png"
    link.symlink_to(files[1].image)
    both = find_duplicates(split(files[:2]), split([files[2], files[3]._replace(image=link)]))
    assert [finding.kind for finding in both] == ["overlap", "overlap"]
    assert all(str(files[index].image) in both[1 - index].text for index in range(2))
    (duplicate,) = find_duplicates(split(files[:3]))
    assert (duplicate.kind, duplicate.is_error) == ("duplicate", False)


def test_files_that_differ_late(make_files):
    files = make_files(*[np.zeros((300, 300))] * 2)
    content = files[0].image.read_bytes()
    assert len(content) > 1 << 16
    files[1].image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert find_duplicates(split(files)) == []
    files[1].image.write_bytes(content)
    assert len(find_duplicates(split(files))) == 1
