import numpy as np
import pytest
from PIL import Image

from segtrain.data import FolderDataset, ListDataset, make_shards, write_mask
from segtrain.errors import DataError
from tests.data.shards.helpers import CLASSES, build, same


def test_invalid_files_are_not_written_to_a_shard(folder, tmp_path):
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


def test_one_mask_per_class(tmp_path):
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
    (tmp_path / "out" / "train-index.jsonl").unlink()  # the names in the shard are enough
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
