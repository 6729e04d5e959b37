import os

import numpy as np
import pytest

from segtrain.data import FileDataset, LabelContract, scan_dataset, write_mask
from segtrain.errors import DataError


def test_counts_and_cache(make_pairs):
    pairs = make_pairs([[0, 1], [1, 255]], [[0, 0]])
    dataset = FileDataset(LabelContract(3), pairs)
    seen = []
    report = scan_dataset(dataset, lambda done, total: seen.append((done, total)))
    assert report.class_pixels.tolist() == [3, 2, 0]
    assert report.class_pixels.dtype == np.int64
    assert (report.ignored_pixels, report.num_files, report.num_decoded) == (1, 2, 2)
    assert seen == [(1, 2), (2, 2)]
    again = scan_dataset(dataset)
    assert again.num_decoded == 0
    assert again.class_pixels.tolist() == [3, 2, 0]


def test_the_cache_knows_files_and_not_contracts(make_pairs):
    pairs = make_pairs([[0, 4]])
    scan_dataset(FileDataset(LabelContract(5), pairs))
    mapped = scan_dataset(FileDataset(LabelContract(2, label_map={0: 255, 4: 1}), pairs))
    assert (mapped.num_decoded, mapped.ignored_pixels) == (0, 1)
    assert mapped.class_pixels.tolist() == [0, 1]
    with pytest.raises(DataError, match="value 4"):
        scan_dataset(FileDataset(LabelContract(2), pairs))


def test_a_changed_mask_is_read_again(make_pairs):
    pairs = make_pairs([[0, 1]])
    dataset = FileDataset(LabelContract(2), pairs)
    scan_dataset(dataset)
    write_mask(pairs[0][1], np.array([[1, 1]]))
    os.utime(pairs[0][1], ns=(1, 1))
    report = scan_dataset(dataset)
    assert (report.num_decoded, report.class_pixels.tolist()) == (1, [0, 2])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1, "entries": 3}', '{"version": 0}']
)
def test_a_damaged_cache_is_ignored(make_pairs, cache, content):
    dataset = FileDataset(LabelContract(2), make_pairs([[0, 1]]))
    scan_dataset(dataset)
    (file,) = cache.glob("scan-*.json")
    file.write_text(content)
    assert scan_dataset(dataset).num_decoded == 1
    assert scan_dataset(dataset).num_decoded == 0


def test_a_cache_that_cannot_be_written_is_no_error(make_pairs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "file"))
    assert scan_dataset(FileDataset(LabelContract(2), make_pairs([[0, 1]]))).num_decoded == 1


def test_one_error_for_all_files(make_pairs):
    pairs = make_pairs([[0, 1]], [[7, 7]], [[0, 11]], [[0, 1]], [[0, 1]])
    pairs[3][1].write_bytes(pairs[3][1].read_bytes()[:-40])
    with pytest.raises(DataError) as caught:
        scan_dataset(FileDataset(LabelContract(4), pairs))
    text = str(caught.value)
    assert text.startswith(f"{pairs[1][1]}: ")
    assert "value 7 (2 pixels)" in text
    assert "'dataset.label_map={0:0,1:1,7:2,11:3}'" in text  # from the values of all masks
    assert "2 more of the 5 masks" in text
    assert str(pairs[2][1]) in text
    assert str(pairs[3][1]) in text


def test_sizes_are_compared_without_decoding_images(make_pairs):
    pairs = make_pairs([[0, 1]], size=(5, 5))
    with pytest.raises(DataError, match=r"1 x 2.*5 x 5"):
        scan_dataset(FileDataset(LabelContract(2), pairs))


def test_truncated_images_are_found_on_request(make_pairs):
    pairs = make_pairs(np.zeros((32, 32)))
    pairs[0][0].write_bytes(pairs[0][0].read_bytes()[:-200])
    dataset = FileDataset(LabelContract(2), pairs)
    scan_dataset(dataset)
    with pytest.raises(DataError, match=r"images/00\.png.*cannot be read"):
        scan_dataset(dataset, decode_images=True)


def test_binary_masks_read_as_ignored(make_pairs):
    pairs = make_pairs([[0, 255]], [[0, 0]])
    with pytest.raises(DataError, match=r"255 \(1 pixels\).*'dataset\.label_map=\{0:0,255:1\}'"):
        scan_dataset(FileDataset(LabelContract(2), pairs))
    fixed = LabelContract(2, label_map={0: 0, 255: 1})
    assert scan_dataset(FileDataset(fixed, pairs)).class_pixels.tolist() == [3, 1]


def test_nothing_but_ignored_pixels(make_pairs):
    with pytest.raises(DataError, match="nothing to learn"):
        scan_dataset(FileDataset(LabelContract(3), make_pairs([[255, 255]])))


def test_no_files():
    with pytest.raises(DataError, match="no files"):
        scan_dataset(FileDataset(LabelContract(2), []))
