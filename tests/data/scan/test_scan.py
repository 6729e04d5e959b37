import os

import numpy as np
import pytest

from segtrain.data import (
    FileDataset,
    LabelContract,
    check_report,
    scan_dataset,
    write_mask,
)
from segtrain.errors import DataError


def check(dataset):
    check_report(scan_dataset(dataset))


def test_counts_and_cache(make_files, counted):
    files = make_files([[0, 1], [1, 255]], [[0, 0]])
    dataset = FileDataset(LabelContract(3), files)
    seen = []
    report = scan_dataset(dataset, lambda done, total: seen.append((done, total)))
    assert report.class_pixels.tolist() == [3, 2, 0]
    assert report.class_pixels.dtype == np.int64
    assert (report.ignored_pixels, report.num_files, len(counted)) == (1, 2, 2)
    assert seen == [(1, 2), (2, 2)]
    again = scan_dataset(dataset)
    assert len(counted) == 2
    assert again.class_pixels.tolist() == [3, 2, 0]


def test_the_cache_holds_for_every_contract(make_files, counted):
    files = make_files([[0, 4]])
    scan_dataset(FileDataset(LabelContract(5), files))
    mapped = scan_dataset(FileDataset(LabelContract(2, label_map={0: 255, 4: 1}), files))
    assert (len(counted), mapped.ignored_pixels) == (1, 1)
    assert mapped.class_pixels.tolist() == [0, 1]
    with pytest.raises(DataError, match="value 4"):
        check(FileDataset(LabelContract(2), files))


def test_a_changed_mask_is_read_again(make_files, counted):
    files = make_files([[0, 1]])
    dataset = FileDataset(LabelContract(2), files)
    scan_dataset(dataset)
    write_mask(files[0].mask, np.array([[1, 1]]))
    os.utime(files[0].mask, ns=(1, 1))
    report = scan_dataset(dataset)
    assert (len(counted), report.class_pixels.tolist()) == (2, [0, 2])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1, "entries": 3}', '{"version": 0}']
)
def test_a_damaged_cache_is_ignored(make_files, cache, counted, content):
    dataset = FileDataset(LabelContract(2), make_files([[0, 1]]))
    scan_dataset(dataset)
    (file,) = cache.glob("scan-*.json")
    file.write_text(content)
    for expected in (2, 2):  # counted again by the first scan only
        scan_dataset(dataset)
        assert len(counted) == expected


def test_a_cache_that_cannot_be_written_is_not_an_error(make_files, tmp_path, monkeypatch, counted):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "file"))
    dataset = FileDataset(LabelContract(2), make_files([[0, 1]]))
    for expected in (1, 2):
        assert scan_dataset(dataset).class_pixels.tolist() == [1, 1]
        assert len(counted) == expected


@pytest.mark.fault("F28")
def test_one_error_for_all_files(make_files):
    files = make_files([[0, 1]], [[7, 7]], [[0, 11]], [[0, 1]], [[0, 1]])
    files[3].mask.write_bytes(files[3].mask.read_bytes()[:-40])
    with pytest.raises(DataError) as caught:
        check(FileDataset(LabelContract(4), files))
    text = str(caught.value)
    assert text.startswith(f"{files[1].mask}: ")
    assert "value 7 (2 pixels)" in text
    assert "'dataset.label_map={0:0,1:1,7:2,11:3}'" in text  # from the values of all masks
    assert "2 more of the 5 masks" in text
    assert str(files[2].mask) in text
    assert str(files[3].mask) in text


def test_sizes_are_compared_without_decoding_images(make_files):
    files = make_files([[0, 1]], size=(5, 5))
    with pytest.raises(DataError, match=r"1 x 2.*5 x 5"):
        check(FileDataset(LabelContract(2), files))


@pytest.mark.fault("F28")
def test_truncated_images_are_found_at_once(make_files):
    files = make_files(np.zeros((32, 32)))
    files[0].image.write_bytes(files[0].image.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"images/00\.png.*cannot be read"):
        check(FileDataset(LabelContract(2), files))


@pytest.mark.fault("F28")
def test_damage_inside_an_image_is_found_on_request(make_files):
    files = make_files(np.zeros((32, 32)))
    content = files[0].image.read_bytes()
    middle = len(content) // 2
    files[0].image.write_bytes(content[:middle] + bytes(200) + content[middle + 200 :])
    dataset = FileDataset(LabelContract(2), files)
    check(dataset)
    with pytest.raises(DataError, match=r"images/00\.png.*cannot be read"):
        check_report(scan_dataset(dataset, decode_images=True))


@pytest.mark.fault("F32")
def test_binary_masks_read_as_ignored(make_files):
    files = make_files([[0, 255]], [[0, 0]])
    with pytest.raises(DataError, match=r"255 \(1 pixels\).*'dataset\.label_map=\{0:0,255:1\}'"):
        check(FileDataset(LabelContract(2), files))
    fixed = LabelContract(2, label_map={0: 0, 255: 1})
    assert scan_dataset(FileDataset(fixed, files)).class_pixels.tolist() == [3, 1]


@pytest.mark.fault("F37")
def test_nothing_but_ignored_pixels(make_files):
    with pytest.raises(DataError, match="nothing to learn"):
        check(FileDataset(LabelContract(3), make_files([[255, 255]])))


@pytest.mark.fault("F35")
def test_no_files():
    with pytest.raises(DataError, match="no files"):
        scan_dataset(FileDataset(LabelContract(2), []))
