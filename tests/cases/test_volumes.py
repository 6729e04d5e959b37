"""Medical volumes: NIfTI files, cut into slices, and DICOM files."""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segtrain.assembly.check import check_config
from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.data import DATASETS, find_duplicates, make_shards, read_mask, scan_dataset
from segtrain.data.io import nifti
from segtrain.data.io.storage import list_slices, open_header, read_bytes, stamp, volume_of
from segtrain.data.loading.memory_cache import CachedDataset
from segtrain.data.scan.content_hash import content_hash
from segtrain.errors import DataError
from tests.cases.helpers import advised, open_folder, problem
from tests.helpers import TINY

SHAPE = (12, 10, 5)  # x, y, z
RANGE = "dataset.value_range=[-1000,1000]"
WORDS = ("dataset.num_classes=2", RANGE)
LAYOUT = ("dataset.train.images=imagesTr", "dataset.train.masks=labelsTr")
# Directions of the axes of a file, and whether each is reversed.
AFFINES = {
    "RAS": np.diag([1.0, 1, 2, 1]),
    "LPS": np.diag([-1.0, -1, 2, 1]),
    "LAI": np.diag([-1.0, 1, -2, 1]),
    "SRP": np.array([[0, 1, 0, 0], [0, 0, -1, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]]),
    "oblique": np.array([[0.9, 0.1, 0, 5], [-0.1, 0, 1.1, 0], [0, 2, 0.2, 0], [0, 0, 0, 1]]),
}


def volume(seed: int, shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 900, shape).astype(dtype)


def save(path: Path, values: np.ndarray, axes: str = "LPS", scaling: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, AFFINES[axes])
    image.header.set_data_dtype(values.dtype)
    if scaling is not None:
        image.header.set_slope_inter(*scaling)
    nibabel.save(image, path)
    return path


def decathlon(
    root: Path, cases: int = 4, image: str = "{}.nii.gz", mask: str = "{}.nii.gz"
) -> Path:
    """Write volumes in the layout of the Medical Segmentation Decathlon, or of nnU-Net."""
    for case in range(cases):
        values = volume(case)
        save(root / "imagesTr" / image.format(f"case_{case:02d}"), values)
        save(root / "labelsTr" / mask.format(f"case_{case:02d}"), (values > 0).astype(np.uint8))
    return root


def slices_of(path: Path) -> list[np.ndarray]:
    """Slices by nibabel alone: canonical axes, left side of the body on the right."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.squeeze(np.asanyarray(image.dataobj))
    return [np.flip(values[:, :, z], (0, 1)).swapaxes(0, 1) for z in range(values.shape[2])]


def read_all(path: Path) -> list[np.ndarray]:
    return [np.load(io.BytesIO(read_bytes(file))) for file in list_slices(path)]


def built(root: Path, split: str, *words: str) -> Any:
    """A split, with the held-back share of the words."""
    config = check_config(compose_config(["dataset=folder", f"dataset.root={root}", *words]))
    return DATASETS.build(config.dataset, split=split)


# ------------------------------------------------- NIfTI: the values and the view of a slice


@pytest.mark.parametrize("axes", AFFINES)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (1, 2)], ids=str)
def test_slices_are_those_of_nibabel(
    tmp_path: Path, axes: str, ending: str, channels: tuple[int, ...]
) -> None:
    path = save(tmp_path / f"a{ending}", volume(0, (*SHAPE, *channels)), axes)
    found, expected = read_all(path), slices_of(path)
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.int16
        np.testing.assert_array_equal(one, other)


def test_the_front_is_at_the_top_and_the_left_side_on_the_right(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.uint8)
    values[0, :, 1] = 1  # the axes are right, anterior, superior, so this is the left side
    values[:, -1, 1] = 2
    found = read_all(save(tmp_path / "a.nii", values, "RAS"))[1]
    assert found.shape == (10, 12)
    assert (found[0] == 2).all()
    assert (found[1:, -1] == 1).all()
    assert (found[1:, :-1] == 0).all()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
def test_types_are_kept_and_floats_have_32_bits(tmp_path: Path, dtype: str) -> None:
    values = volume(0).astype(dtype) if "u" not in dtype else volume(0).clip(0, 200).astype(dtype)
    header = nibabel.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    image = nibabel.Nifti1Image(values, np.eye(4), header)
    image.set_data_dtype(values.dtype)
    nibabel.save(image, tmp_path / "a.nii")
    found = read_all(tmp_path / "a.nii")[2]
    assert found.dtype == (np.float32 if "f" in dtype else np.dtype(dtype[-2:]))
    np.testing.assert_array_equal(found, slices_of(tmp_path / "a.nii")[2])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("scaling", [(1.0, -1024.0), (0.5, 3.0)])
def test_values_are_scaled_to_hounsfield_units(
    tmp_path: Path, ending: str, scaling: tuple[float, float]
) -> None:
    path = tmp_path / f"a{ending}"
    image = nibabel.Nifti1Image(volume(0), np.eye(4))
    nibabel.save(image, path)
    content = bytearray(
        path.read_bytes() if ending == ".nii" else gzip.decompress(path.read_bytes())
    )
    content[112:120] = np.array(scaling, np.float32).tobytes()  # scl_slope and scl_inter
    path.write_bytes(content if ending == ".nii" else gzip.compress(content))
    found = read_all(path)
    assert found[0].dtype == np.float32
    expected = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    np.testing.assert_allclose(found[3], np.flip(expected[:, :, 3], (0, 1)).T, rtol=1e-6)
    raw = volume(0)[:, :, 3] * scaling[0] + scaling[1]
    np.testing.assert_allclose(found[3], np.flip(raw, (0, 1)).T, rtol=1e-6)


def test_a_mask_that_nibabel_has_scaled_holds_whole_numbers(tmp_path: Path) -> None:
    decathlon(tmp_path, 1)
    path = tmp_path / "labelsTr/case_00.nii.gz"
    image = nibabel.Nifti1Image((volume(0) > 0).astype(np.float64), AFFINES["LPS"])
    image.set_data_dtype(np.uint8)
    nibabel.save(image, path)
    assert nibabel.load(path).get_fdata().max() != 1  # 255 times the slope
    (target, *_) = (sample.target for sample in open_folder(tmp_path, *WORDS, *LAYOUT))
    np.testing.assert_array_equal(target, volume(0)[:, :, 0].T > 0)


def test_names_order_volumes_of_more_than_1000_slices(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 1001), np.uint8))
    names = [file.name for file in list_slices(path)]
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("0000.npy", "1000.npy")


def test_the_header_alone_has_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii.gz", volume(0, (*SHAPE, 2)))
    monkeypatch.setattr(nifti.Volume, "_load", None)  # any decoding would fail
    (*_, last) = list_slices(path)
    assert volume_of(last) == path
    assert stamp(last)[0] == len(open_header(last).read()) + 12 * 10 * 2 * 2
    assert np.lib.format.read_magic(open_header(last)) == (1, 0)
    with pytest.raises(FileNotFoundError, match=r"holds no 005\.npy"):
        open_header(path / "005.npy")
    with pytest.raises(FileNotFoundError, match=r"holds no 5\.npy"):
        read_bytes(path / "5.npy")


# ------------------------------------------------- NIfTI: samples


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}.nii.gz", "{}.nii.gz"),
        ("{}.nii", "{}.nii.gz"),
        ("{}_0000.nii.gz", "{}.nii.gz"),
        ("{}_ct.nii.gz", "{}_seg.nii.gz"),
        ("{}/t1.nii.gz", "{}/t1_seg.nii.gz"),
    ],
)
def test_volumes_pair_and_slices_with_slices(tmp_path: Path, image: str, mask: str) -> None:
    dataset = open_folder(decathlon(tmp_path, 3, image, mask), *WORDS, *LAYOUT)
    assert len(dataset) == 3 * SHAPE[2]
    assert len({sample.name for sample in dataset.files}) == len(dataset)
    for number, sample in enumerate(dataset):
        case = volume(number // SHAPE[2])[:, :, number % SHAPE[2]].T  # the axes are left, posterior
        np.testing.assert_array_equal(sample.target, case > 0)
        np.testing.assert_allclose(sample.image[..., 0], (case + 1000) / 2000, atol=1e-6)


@pytest.mark.parametrize("glob", ["imagesTr/case_0[12].nii.gz", "**/imagesTr/case_0[12].*"])
def test_a_glob_chooses_volumes(tmp_path: Path, glob: str) -> None:
    decathlon(tmp_path)
    words = [f"dataset.train.images='{glob}'", "dataset.train.masks=labelsTr"]
    dataset = open_folder(tmp_path, *WORDS, *words, "dataset.unpaired=skip")
    assert {sample.image.parent.name for sample in dataset.files} == {
        "case_01.nii.gz",
        "case_02.nii.gz",
    }


def test_listing_reads_headers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decathlon(tmp_path)
    monkeypatch.setattr(nifti.Volume, "_load", None)  # any decoding would fail
    dataset = open_folder(tmp_path, *WORDS, *LAYOUT)
    assert dataset.reader.size(dataset.files[0].image) == (10, 12)


def test_lists_and_names_hold_volumes(tmp_path: Path) -> None:
    decathlon(tmp_path)
    lines = [f"imagesTr/case_0{n}.nii.gz\tlabelsTr/case_0{n}.nii.gz" for n in (2, 0)]
    lines += ["imagesTr/case_01.nii.gz/003.npy\tlabelsTr/case_01.nii.gz/003.npy"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    spec = {"name": "list", "root": str(tmp_path), "num_classes": 2, "value_range": (-1000, 1000)}
    dataset: Any = DATASETS.build(spec, split="train", train={"list": "list.txt"})
    names = [sample.name for sample in dataset.files]
    np.testing.assert_array_equal(dataset[10].target, volume(1)[:, :, 3].T > 0)
    assert names[::5] == [
        "imagesTr/case_02/000",
        "imagesTr/case_00/000",
        "imagesTr/case_01.nii.gz/003",
    ]
    chosen = open_folder(tmp_path, *WORDS, *LAYOUT, "dataset.train.names=[case_03]")
    assert [sample.name for sample in chosen.files] == [f"case_03/00{n}" for n in range(5)]


def test_a_valid_volume_counts_slice_by_slice(tmp_path: Path) -> None:
    decathlon(tmp_path, 2)
    for case in range(2):
        save(tmp_path / f"fov/case_0{case}.nii", (volume(case) > -500).astype(np.uint8))
    dataset = open_folder(tmp_path, *WORDS, *LAYOUT, "dataset.train.valid=fov")
    target, values = dataset[7].target, volume(1)[:, :, 2].T
    np.testing.assert_array_equal(target == 255, values <= -500)


def test_the_slices_of_a_volume_stay_in_one_part(tmp_path: Path) -> None:
    decathlon(tmp_path, 8)
    for cut in ("dataset.val_share=0.4", "dataset.folds=3 dataset.fold=1 dataset.val_share=0"):
        given = [*WORDS, *LAYOUT, *cut.split()]
        parts = [built(tmp_path, split, *given) for split in ("train", "val")]
        cases = [{sample.image.parent for sample in part.files} for part in parts]
        assert all(cases)
        assert not cases[0] & cases[1]
        assert [len(part) for part in parts] == [SHAPE[2] * len(part) for part in cases]


def test_a_scan_counts_slices_and_remembers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_folder(decathlon(tmp_path), *WORDS, *LAYOUT)
    report = scan_dataset(dataset, decode_images=True)
    counts = [[(part <= 0).sum(), (part > 0).sum()] for n in range(4) for part in volume(n).T]
    assert report.image_pixels.tolist() == np.array(counts).tolist()
    assert not [finding for finding in report.findings if finding.is_error]
    monkeypatch.setattr(nifti.Volume, "read", None)  # any reading would fail
    again = scan_dataset(dataset, decode_images=True)
    np.testing.assert_array_equal(again.mean_std, report.mean_std)


def test_equal_volumes_in_two_splits_are_found_and_equal_slices_are_not(tmp_path: Path) -> None:
    empty = np.zeros(SHAPE, np.int16)
    for case in range(4):
        empty[0, 0, -1] = case  # the other slices are equal in all volumes
        save(tmp_path / f"imagesTr/{case}.nii", empty)
        save(tmp_path / f"labelsTr/{case}.nii", np.zeros(SHAPE, np.uint8))
    words = [*WORDS, *LAYOUT, "dataset.folds=2", "dataset.fold=0", "dataset.val_share=0"]
    parts = [built(tmp_path, split, *words) for split in ("train", "val")]
    assert find_duplicates(*parts) == []
    for part in parts:
        parent = part.files[0].image.parent
        empty[0, 0, -1] = 9
        save(parent, empty)
    (finding,) = find_duplicates(*parts)
    assert finding.kind == "overlap"
    assert all(part.files[0].image.parent.as_posix() in finding.text for part in parts)
    assert all(".npy" not in str(finding) for part in parts)


def test_the_hash_of_the_data_is_that_of_the_volumes(tmp_path: Path) -> None:
    one, two = (open_folder(decathlon(tmp_path / name), *WORDS, *LAYOUT) for name in "ab")
    assert content_hash(one) == content_hash(two)
    save(tmp_path / "b/imagesTr/case_00.nii.gz", volume(9))
    assert content_hash(one) != content_hash(two)


@pytest.mark.parametrize("kind", ["compressed", "decoded"])
def test_slices_fit_in_memory(tmp_path: Path, kind: Any) -> None:
    dataset = open_folder(decathlon(tmp_path), *WORDS, *LAYOUT)
    expected = list(dataset)
    cached = CachedDataset(dataset, kind)
    cached.fill()
    assert cached.num_bytes == cached.expected_bytes
    for folder in ("imagesTr", "labelsTr"):
        for path in (tmp_path / folder).iterdir():
            path.unlink()
    for sample, other in zip(expected, cached, strict=True):
        np.testing.assert_array_equal(sample.image, other.image)
        np.testing.assert_array_equal(sample.target, other.target)


def test_slices_fit_in_shards(tmp_path: Path) -> None:
    dataset = open_folder(decathlon(tmp_path), *WORDS, *LAYOUT)
    make_shards(dataset, tmp_path / "shards", "train", samples_per_shard=7, seed=None)
    spec = {"name": "webdataset", "root": str(tmp_path / "shards"), "value_range": (-1000, 1000)}
    shards: Any = DATASETS.build(
        {**spec, "num_classes": 2, "train": {"shards": "train-index.jsonl"}}, split="train"
    )
    assert len(shards) == len(dataset)
    for one, other in zip(dataset, shards, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.target, other.target)


def test_the_last_volumes_stay_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_folder(decathlon(tmp_path), *WORDS, *LAYOUT)
    decoded: list[Path] = []
    load = nifti.Volume._load
    monkeypatch.setattr(nifti.Volume, "_load", lambda self: decoded.append(self.path) or load(self))
    monkeypatch.setattr(nifti, "_MAX_BYTES", 2 * np.prod(SHAPE) * 3)  # two images and two masks
    nifti._recent.cache_clear()
    for index in (0, 5, 1, 6, 2, 7):
        dataset[index]
    assert len(decoded) == 4
    dataset[10]
    dataset[8]
    assert len(decoded) == 6
    dataset[0]  # was used least recently
    assert len(decoded) == 8
    nifti._recent.cache_clear()


# ------------------------------------------------- NIfTI: what cannot be read


def test_another_number_of_slices(tmp_path: Path) -> None:
    decathlon(tmp_path)
    mask = save(tmp_path / "labelsTr/case_02.nii.gz", np.zeros((12, 10, 4), np.uint8))
    message = problem(tmp_path, *WORDS, *LAYOUT)
    assert message == (
        f"{mask} has 4 slices, but its image {tmp_path}/imagesTr/case_02.nii.gz has 5 slices; a"
        " volume and its mask need the same number, so replace one of them or remove both"
    )
    left = open_folder(tmp_path, *WORDS, *LAYOUT, "dataset.max_bad=0.3")
    assert left.left_out == [message]
    assert len(left) == 15


def test_a_volume_and_a_picture(tmp_path: Path) -> None:
    decathlon(tmp_path, 1)
    (tmp_path / "labelsTr/case_00.nii.gz").unlink()
    np.save(tmp_path / "labelsTr/case_00.npy", np.zeros((10, 12), np.uint8))
    message = problem(tmp_path, *WORDS, *LAYOUT)
    assert message is not None
    assert "labelsTr/case_00.npy has no slices, as it is one image, but its image" in message


def test_slices_of_another_size(tmp_path: Path) -> None:
    decathlon(tmp_path)
    save(tmp_path / "labelsTr/case_02.nii.gz", np.zeros((12, 9, 5), np.uint8))
    message = problem(tmp_path, *WORDS, *LAYOUT)
    assert message is not None
    assert "labelsTr/case_02.nii.gz/000.npy: the mask is 9 x 12 (height x width)" in message


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.zeros((12, 10), np.int16), "has 2 (12 x 10); write its pixels as PNG or .npy"),
        (np.zeros((4, 4, 4, 2, 3), np.int16), "has 5 (4 x 4 x 4 x 2 x 3); write one volume per"),
        (np.zeros((12, 10, 0), np.int16), "the volume is empty (12 x 10 x 0); write it again, or"),
        (np.zeros(SHAPE, np.complex64), "the volume holds complex64 values, but integers or real"),
        (np.zeros(SHAPE, [(c, "u1") for c in "RGB"]), "the volume holds colours, but integers or"),
    ],
)
def test_what_is_not_a_volume(tmp_path: Path, values: np.ndarray, sentence: str) -> None:
    decathlon(tmp_path)
    path = save(tmp_path / "imagesTr/case_01.nii.gz", values)
    message = problem(tmp_path, *WORDS, *LAYOUT)
    assert message is not None
    assert message.startswith(f"{path}: ")
    assert sentence in message
    assert "\n" not in message


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_truncated_volumes(tmp_path: Path, ending: str, kept: float, folder: str) -> None:
    decathlon(tmp_path, 4, f"{{}}{ending}", f"{{}}{ending}")
    path = tmp_path / folder / f"case_02{ending}"
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * kept)])
    with pytest.raises(DataError) as caught:
        for _ in open_folder(tmp_path, *WORDS, *LAYOUT):
            pass
    assert str(caught.value).startswith(str(path))
    assert "the volume is damaged: " in str(caught.value)
    assert "\n" not in str(caught.value)
    allowed = open_folder(tmp_path, *WORDS, *LAYOUT, "dataset.max_bad=0.3")
    found = [finding.text for finding in scan_dataset(allowed, decode_images=True).findings]
    assert found
    assert all("the volume is damaged: " in text for text in found)


def test_a_damaged_volume_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decathlon(tmp_path)
    path = save(tmp_path / "labelsTr/case_02.nii.gz", volume(0))  # random, so its header is whole
    path.write_bytes(path.read_bytes()[:-30])
    tried: list[Path] = []
    load = nifti.Volume._load
    monkeypatch.setattr(nifti.Volume, "_load", lambda self: tried.append(self.path) or load(self))
    report = scan_dataset(open_folder(tmp_path, *WORDS, *LAYOUT))
    assert [finding.kind for finding in report.findings] == ["unreadable"] * 5
    assert tried.count(path) == 1


def test_a_compressed_volume_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti, "_MAX_BYTES", 2**20)
    for ending in (".nii.gz", ".nii"):
        path = save(tmp_path / f"large{ending}", np.zeros((128, 128, 65), np.uint8))
        if ending == ".nii":
            assert len(read_all(path)) == 65
            continue
        with pytest.raises(DataError, match=r"at most 1 are decompressed .* use gunzip on the"):
            list_slices(path)


def test_a_volume_in_an_archive(tmp_path: Path) -> None:
    decathlon(tmp_path, 1)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in tmp_path.glob("*Tr/*"):
            archive.write(path, path.relative_to(tmp_path))
    message = problem(tmp_path / "set.zip", *WORDS, *LAYOUT)
    assert message is not None
    assert message.endswith(f"a volume in an archive is not supported; unpack {tmp_path}/set.zip")


def test_volumes_without_nibabel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decathlon(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    message = problem(tmp_path, *WORDS, *LAYOUT)
    assert message is not None
    assert message.endswith('needs the package nibabel: pip install "segtrain[nifti]"')


def test_the_channels_of_nnunet_have_a_line_to_paste(tmp_path: Path) -> None:
    decathlon(tmp_path, 4, "{}_0000.nii.gz")
    for case in range(4):
        save(tmp_path / f"imagesTr/case_0{case}_0001.nii.gz", volume(case + 9))
    message = problem(tmp_path, *WORDS, *LAYOUT)
    assert message is not None
    word = message.partition("set '")[2].partition("'")[0]
    assert word == f"dataset.train.images={tmp_path}/imagesTr/**/*_0000.*"
    assert len(open_folder(tmp_path, *WORDS, LAYOUT[1], word)) == 20


def test_names_that_need_expressions_have_a_line_to_paste(tmp_path: Path) -> None:
    decathlon(tmp_path, 4, "volume-{}.nii", "segmentation-{}.nii.gz")
    words = advised(problem(tmp_path, *WORDS, *LAYOUT))
    assert len(open_folder(tmp_path, *WORDS, *LAYOUT, *words)) == 20


# ------------------------------------------------- NIfTI: training


def test_training_evaluation_and_inspection_on_slices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decathlon(tmp_path, 6, "{}_0000.nii.gz")
    data = ["dataset=folder", f"dataset.root={tmp_path}", *WORDS, *LAYOUT, "dataset.val_share=0.4"]
    words = [*data, f"plugins=[{TINY}]", "model=tiny", "trainer.max_steps=2", "run_dir=run"]
    words += ["trainer.batch_size=2", "trainer.device=cpu", "loader.num_workers=1"]
    assert run_command("train", [*words, "augmentation.crop_size=[8,8]"]) == 0
    given = ["checkpoint=run/checkpoints/last.pt", "output=scores.json", "device=cpu"]
    assert run_command("evaluate", given) == 0
    assert Path("scores.json").is_file()
    predict = ["checkpoint=run/checkpoints/last.pt", "device=cpu"]
    assert run_command("predict", [*predict, f"input={tmp_path}/imagesTr", "output=all"]) == 0
    volume_file = tmp_path / "imagesTr/case_03_0000.nii.gz"
    assert run_command("predict", [*predict, f"input={volume_file}", "output=one"]) == 0
    names = {path.name for path in Path("all/ids").iterdir()}
    assert names == {f"case_0{n}_0000_00{z}.png" for n in range(6) for z in range(SHAPE[2])}
    assert len(list(Path("one/ids").iterdir())) == SHAPE[2]
    for path in Path("one/ids").iterdir():
        found = read_mask(path)
        assert found.shape == (10, 12)
        np.testing.assert_array_equal(found, read_mask(Path("all/ids") / path.name))
    assert run_command("inspect", [*data, "output=report"]) == 0
    assert "augmentation.mean=" in capsys.readouterr().out
