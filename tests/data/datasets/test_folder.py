from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATASETS, FolderDataset
from segtrain.errors import ConfigError, DataError

FOLDERS = {"images": "i", "masks": "m"}


def fill(root, images, masks):
    for folder, names in (("i", images), ("m", masks)):
        for name in names:
            file = Path(root, folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 3)).save(file)


def names_of(root, train=FOLDERS):
    dataset = FolderDataset(num_classes=2, root=str(root), train=train)
    return {name: mask.name for _, (mask,), name, _ in dataset.files}


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        (["b.jpg", "a.png"], ["a.png", "b.png"], {"a": "a.png", "b": "b.png"}),
        (["c/x.jpg", "d/x.jpg"], ["c/x.png", "d/x.png"], {"c/x": "x.png", "d/x": "x.png"}),
        (
            ["x_leftImg8bit.png", "y_leftImg8bit.png"],
            ["x_gtFine_labelIds.png", "y_gtFine_labelIds.png"],
            {"x": "x_gtFine_labelIds.png", "y": "y_gtFine_labelIds.png"},
        ),
        (["x.jpg"], ["x_mask.png"], {"x": "x_mask.png"}),
        (["x1.jpg", "x10.jpg"], ["x1_label.png", "x10_label.png"],
         {"x1": "x1_label.png", "x10": "x10_label.png"}),
        (["f1_cam.jpg", "f2_cam.jpg"], ["f1_hand_made.png", "f2_hand_made.png"],
         {"f1": "f1_hand_made.png", "f2": "f2_hand_made.png"}),
    ],
)  # fmt: skip
def test_pairs_by_name(tmp_path, images, masks, pairs):
    fill(tmp_path, images, masks)
    assert names_of(tmp_path) == pairs
    assert list(names_of(tmp_path)) == sorted(pairs)


def test_globs_and_absolute_paths(tmp_path):
    fill(tmp_path, ["a/x.jpg", "b/y.jpg"], ["a/x.png", "b/y.png", "b/y.txt.bmp"])
    places = {"images": str(tmp_path / "i/*/*.jpg"), "masks": "m/**/*.png"}
    assert names_of(tmp_path, places) == {"a/x": "x.png", "b/y": "y.png"}


def test_order_never_decides(tmp_path):
    fill(tmp_path, ["p.jpg", "q.jpg"], ["r.png", "s.png"])
    with pytest.raises(DataError) as caught:
        names_of(tmp_path)
    text = str(caught.value)
    assert "dataset.train" in text
    assert all(
        str(tmp_path / part) in text for part in ("i/p.jpg", "i/q.jpg", "m/r.png", "m/s.png")
    )
    assert "2 image files have no mask" in text
    assert "2 mask files have no image" in text


@pytest.mark.fault("F34")
def test_unmatched_files_are_listed_up_to_twenty(tmp_path):
    fill(tmp_path, [f"{n:03d}.jpg" for n in range(30)], ["000.png", "extra.png"])
    with pytest.raises(DataError) as caught:
        names_of(tmp_path)
    text = str(caught.value)
    assert "29 image files have no mask" in text
    assert "020.jpg" in text
    assert "021.jpg" not in text
    assert "extra.png" in text


@pytest.mark.fault("F34")
def test_case_and_duplicates_are_reported(tmp_path):
    fill(tmp_path / "case", ["A.jpg"], ["a.png"])
    with pytest.raises(DataError, match=r"A\.jpg"):
        names_of(tmp_path / "case")
    fill(tmp_path / "twice", ["a.jpg", "a.png"], ["a.png"])
    with pytest.raises(DataError, match=r"2 files have a name without extension.*a\.jpg.*a\.png"):
        names_of(tmp_path / "twice")


@pytest.mark.fault("F35")
def test_a_location_without_images_is_reported(tmp_path):
    fill(tmp_path, ["a.jpg"], ["a.png"])
    with pytest.raises(DataError, match=r"dataset\.train\.masks=nowhere.*dataset\.root"):
        names_of(tmp_path, {"images": "i", "masks": "nowhere"})
    with pytest.raises(DataError, match=r"dataset\.train\.images=i/\*\.bmp"):
        names_of(tmp_path, {"images": "i/*.bmp", "masks": "m"})


def test_a_split_that_is_not_configured(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.val\.images"):
        FolderDataset(num_classes=2, root=str(tmp_path), train=FOLDERS, split="val")
    with pytest.raises(ConfigError, match="did you mean 'images'"):
        names_of(tmp_path, {"image": "i", "masks": "m"})
    for test in (None, {}):
        with pytest.raises(
            ConfigError, match=r"^dataset\.test is not set, so there is no test split"
        ):
            FolderDataset(num_classes=2, root=str(tmp_path), train=FOLDERS, split="test", test=test)
    with pytest.raises(ConfigError, match="split must be 'train', 'val' or 'test', got 'tset'"):
        FolderDataset(num_classes=2, root=str(tmp_path), train=FOLDERS, split="tset", val_share=0.5)


def test_the_test_split_is_no_part_of_the_training_samples(tmp_path):
    fill(tmp_path, [f"{n}.png" for n in range(20)], [f"{n}.png" for n in range(20)])
    fill(tmp_path / "t", ["x.png", "y.png"], ["x.png", "y.png"])
    places = {"train": FOLDERS, "test": {"images": "t/i", "masks": "t/m"}}
    for val_share in (0.0, 0.5):
        dataset = FolderDataset(
            num_classes=2, root=str(tmp_path), split="test", val_share=val_share, **places
        )
        assert [files.name for files in dataset.files] == ["x", "y"]


def test_a_sample_from_the_registry(tmp_path):
    fill(tmp_path, ["a.jpg"], ["a.png"])
    spec = {"name": "folder", "root": str(tmp_path), "train": FOLDERS, "num_classes": 2}
    dataset = DATASETS.build(spec, split="train")
    image, target, name = dataset[0]
    assert (image.shape, image.dtype) == ((3, 4, 3), np.uint8)
    assert (target.shape, target.dtype) == ((3, 4), np.uint8)
    assert (name, len(dataset), dataset.num_classes) == ("a", 1, 2)


def test_a_share_is_held_back_by_name(tmp_path):
    names = [f"{number}.png" for number in range(200)]
    fill(tmp_path, names, names)

    def names_of_split(split, share=0.2, **keys):
        spec = {"name": "folder", "root": str(tmp_path), "num_classes": 2, "train": FOLDERS, **keys}
        dataset = DATASETS.build({**spec, "val_share": share}, split=split)
        return {files.name for files in dataset.files}

    train, val = names_of_split("train"), names_of_split("val")
    assert len(train | val) == 200
    assert not train & val
    assert 25 <= len(val) <= 55
    assert val < names_of_split("val", 0.4)  # a larger share adds to a smaller one
    fill(tmp_path, ["new.png"], ["new.png"])
    assert val <= names_of_split("val")  # and so does a new sample
    with pytest.raises(DataError, match=r"val_share=1 leaves no sample of 201 for the train split"):
        names_of_split("train", 1)
    with pytest.raises(ConfigError, match=r"dataset\.val_share must be a share"):
        names_of_split("train", 2)


def test_files_without_a_partner_are_a_share_of_both_parts(tmp_path):
    names = [f"{number}.png" for number in range(20)]
    fill(tmp_path, names, [name for name in names if name != "7.png"])

    def part(split, max_bad):
        return FolderDataset(num_classes=2, root=str(tmp_path), split=split, train=FOLDERS,
                             val_share=0.2, max_bad=max_bad)  # fmt: skip

    train, val = (part(split, 0.05) for split in ("train", "val"))
    assert len(train) + len(val) == 19
    assert (len(train.left_out), len(val.left_out)) == (1, 0)
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"1 of 20 samples have missing or unreadable files"):
            part(split, 0.04)


def test_the_message_for_a_missing_validation_split_suggests_val_share(tmp_path):
    fill(tmp_path, ["a.png"], ["a.png"])
    with pytest.raises(DataError, match=r"dataset\.val\.images.*set dataset\.val_share=0\.2"):
        FolderDataset(num_classes=2, root=str(tmp_path), split="val", train=FOLDERS,
                      val={"images": "nowhere", "masks": "m"})  # fmt: skip


def test_pairing_by_regular_expressions(tmp_path):
    fill(tmp_path, ["s1_frame_007_left.png", "s2_frame_007_left.png", "notes_8.png"],
         ["label-s1-7.png", "label-s2-7.png"])  # fmt: skip
    pairing = {"images": r"(s\d)_frame_0*(\d+)", "masks": r"label-(s\d)-(\d+)\.png$"}
    dataset = FolderDataset(num_classes=2, root=str(tmp_path), train=FOLDERS, pairing=pairing)
    assert [(files.name, files.mask.name) for files in dataset.files] == [
        ("s1/7", "label-s1-7.png"),
        ("s2/7", "label-s2-7.png"),
    ]
    for wrong, message in (
        ({"images": "("}, r"pairing\.masks is missing|not a regular expression"),
        ({"images": "x(", "masks": "y"}, r"dataset\.pairing\.images='x\(' is not a regular"),
        ({"image": "x", "masks": "y"}, r"did you mean 'images'"),
    ):
        with pytest.raises(ConfigError, match=message):
            FolderDataset(num_classes=2, root=str(tmp_path), train=FOLDERS, pairing=wrong)
    with pytest.raises(DataError, match=r"dataset\.pairing\.masks='zz' matches none of 2 files"):
        FolderDataset(num_classes=2, root=str(tmp_path), train=FOLDERS,
                      pairing={"images": "x|n", "masks": "zz"})  # fmt: skip


def chosen(root, names, **keys):
    dataset = FolderDataset(
        num_classes=2, root=str(root), train={**FOLDERS, "names": names}, **keys
    )
    return [files.name for files in dataset.files]


def test_names_choose_samples(tmp_path):
    files = ["21.png", "22.png", "sub/01.png", "01.png"]
    fill(tmp_path, files, files)
    assert chosen(tmp_path, [22, "01"]) == ["01", "22"]
    assert chosen(tmp_path, ["sub/01", 22, 22]) == ["22", "sub/01"]
    (tmp_path / "n.txt").write_text("\ufeff22 \r\n\n 21\n", encoding="utf-8")
    assert chosen(tmp_path, "n.txt") == chosen(tmp_path, str(tmp_path / "n.txt")) == ["21", "22"]
    shares = [
        len(chosen(tmp_path, [21, 22, "01"], val_share=0.5, split=s)) for s in ("train", "val")
    ]
    assert sum(shares) == 3


def test_names_that_no_sample_has(tmp_path):
    fill(tmp_path, ["01.png", "21.png", "22.png"], ["01.png", "21.png", "22.png"])
    for names, message in (
        (["21", "222", "x"], r"dataset\.train\.names: no sample has the name '222'; did you mean"
         r" '22'\? \(2 of 3 names do not exist; the samples are called 01, 21, 22\)"),
        ([1], r"name 1; did you mean '01'\? YAML drops leading zeros, so put it in quotes \(1 of"),
        ([], r"dataset\.train\.names names no sample"),
        ("n.txt", r"names=n\.txt: .*n\.txt cannot be read .*; give a list of names, or a text"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            chosen(tmp_path, names)
        with pytest.raises(DataError, match=message):
            chosen(tmp_path, names, max_bad=0.9)
    for names in ([1.5], [True]):
        with pytest.raises(ConfigError, match=rf"{names[0]} is neither a text nor a whole number"):
            chosen(tmp_path, names)
    spec = {"name": "folder", "root": str(tmp_path), "num_classes": 2}
    with pytest.raises(ConfigError, match=r"dataset\.train\.images must be a list of \(a text\)"):
        DATASETS.build({**spec, "train": {"images": [1], "masks": "m"}})


def test_files_of_other_samples_need_no_partner(tmp_path):
    fill(tmp_path, ["a.png", "b.png", "c.png"], ["a.png", "b.png", "d.png"])
    assert chosen(tmp_path, ["a", "b"]) == ["a", "b"]
    with pytest.raises(DataError, match=r"1 image files have no mask \(.*c\.png\); rename"):
        chosen(tmp_path, ["a", "c"])
    assert chosen(tmp_path, ["a", "c"], max_bad=0.5) == ["a"]


def test_names_are_what_files_pair_by(tmp_path):
    fill(tmp_path, ["21_training.tif", "22_training.tif"], ["21_manual1.gif", "22_manual1.gif"])
    assert chosen(tmp_path, [22]) == ["22"]  # without the endings that the files share
    pairing = {"images": r"(\d)(\d)_tr", "masks": r"(\d)(\d)_ma"}
    assert chosen(tmp_path, ["2/1"], pairing=pairing) == ["2/1"]


def test_names_with_a_mask_for_each_class(tmp_path):
    fill(tmp_path, ["a.png", "b.png", "c.png", "d.png"], [])
    for name, files in (("car", ["a.png", "d.png"]), ("dog", ["a.png", "b.png"])):
        fill(tmp_path / name, [], files)
    section = {"images": "i", "masks": {"car": "car/m", "dog": "dog/m"}, "names": ["a", "b", "c"]}
    dataset = FolderDataset(num_classes=2, root=str(tmp_path), multi_label=True, max_bad=0.5,
                            class_names=["car", "dog"], train=section)  # fmt: skip
    assert [files.name for files in dataset.files] == ["a", "b"]
    assert dataset.left_out == ["c: the image has no mask of any class"]


def test_one_of_several_sets_of_masks(tmp_path):
    fill(tmp_path, ["a.png"], [])
    for name in ("good", "bad"):
        fill(tmp_path / name, [], ["a.png"])
    sets = {"images": "i", "masks": {"good": "good/m", "bad": "bad/m"}}

    def build(train=sets, **keys):
        return FolderDataset(num_classes=2, root=str(tmp_path), train=train, **keys)

    assert build(labels="bad").files[0].mask == tmp_path / "bad/m/a.png"
    for keys, message in (
        ({}, r"dataset\.train\.masks is a mapping; .* set dataset\.labels to one of good, bad$"),
        (
            {"labels": "god"},
            r"dataset\.labels: no set 'god'; did you mean 'good'\? Known: bad, good",
        ),
        (
            {"labels": "good", "train": FOLDERS},
            r"labels=good .* dataset\.train\.masks is not a map",
        ),
        ({"labels": "good", "multi_label": True}, r"labels=good .* dataset\.multi_label=true"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(**keys)


def test_lists_of_locations_pair_entry_by_entry(tmp_path):
    for city in ("Urban", "Rural"):
        fill(tmp_path / city, ["1.png"], ["1.png"])
    places = {"images": ["Urban/i", "Rural/i"], "masks": ["Urban/m", "Rural/m"]}
    dataset = FolderDataset(num_classes=2, root=str(tmp_path), train=places)
    assert [(f.image.parts[-3], f.mask.parts[-3]) for f in dataset.files] == [
        ("Urban", "Urban"),
        ("Rural", "Rural"),
    ]


def test_lists_of_unequal_length_pair_by_name(tmp_path):
    for place in ("a", "b"):
        fill(tmp_path / place, [f"{place}.png"], [])
    fill(tmp_path, [], ["a.png", "b.png"])
    places = {"images": ["a/i", "b/i"], "masks": "m"}
    dataset = FolderDataset(num_classes=2, root=str(tmp_path), train=places)
    assert [files.name for files in dataset.files] == ["a", "b"]


@pytest.mark.fault("F34")
def test_a_missing_root_is_reported_first(tmp_path):
    with pytest.raises(
        DataError, match=r"dataset\.root=.*nowhere is neither a directory nor a zip or tar"
    ):
        names_of(tmp_path / "nowhere")
    fill(tmp_path / "top", ["a.png"], ["a.png"])
    with pytest.raises(DataError, match=r"relative to dataset\.root=.*, which holds top"):
        names_of(tmp_path)
