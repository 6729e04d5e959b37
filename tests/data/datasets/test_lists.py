import json

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATASETS
from segtrain.errors import ConfigError, DataError

TEMPLATES = {"images": "i/{}.png", "masks": "m/{}.png"}


def write(root, *names):
    for name in names:
        for kind in ("i", "m"):
            file = root / kind / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 3)).save(file)


def build(root, list_name, content, **keys):
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (root / list_name).write_bytes(data)
    places = keys.pop("places", {})
    spec = {"name": "list", "root": str(root), "num_classes": 2, **keys}
    return DATASETS.build({**spec, "train": {"list": list_name, **places}}, split="train")


def pairs(dataset):
    root = dataset.root
    return [
        (files.image.relative_to(root).as_posix(), files.mask.relative_to(root).as_posix())
        for files in dataset.files
    ]


LINE = [("i/a.png", "m/a.png"), ("i/b.png", "m/b.png")]


@pytest.mark.fault("F42")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.lst", "i/a.png\tm/a.png\ni/b.png\tm/b.png\n"),
        ("t.lst", "\ufeffi/a.png\tm/a.png \r\n\r\ni/b.png\t m/b.png\r\n"),
        ("t.txt", "i/a.png m/a.png\ni/b.png   m/b.png"),
        ("t.tsv", "image\tmask\ni/a.png\tm/a.png\ni/b.png\tm/b.png\n"),
        ("t.csv", 'image,mask\n"i/a.png",m/a.png\ni/b.png,m/b.png\n'),
        ("t.csv", "i/a.png,m/a.png\r\ni/b.png,m/b.png\r\n"),
        (
            "t.jsonl",
            '{"image": "i/a.png", "mask": "m/a.png"}\n{"mask":"m/b.png","image":"i/b.png"}',
        ),
    ],
)
def test_every_kind_of_list(tmp_path, name, content):
    write(tmp_path, "a", "b")
    dataset = build(tmp_path, name, content)
    assert pairs(dataset) == LINE
    assert dataset[1].name == "i/b"
    np.testing.assert_array_equal(dataset[0].target, 0)


@pytest.mark.parametrize("content", ["a\nb\n", "a 1 1 1\nb 2 1 1", "a\t1\nb\t2"])
def test_templates_take_the_first_column(tmp_path, content):
    write(tmp_path, "a", "b")
    dataset = build(tmp_path, "t.txt", content, places=TEMPLATES)
    assert pairs(dataset) == LINE
    assert [files.name for files in dataset.files] == ["a", "b"]


def test_directories_before_the_paths(tmp_path):
    write(tmp_path, "a", "b")
    places = {"images": "i", "masks": "m"}
    assert pairs(build(tmp_path, "t.lst", "a.png\ta.png\nb.png\tb.png", places=places)) == LINE


def test_several_lists(tmp_path):
    write(tmp_path, "a", "b")
    (tmp_path / "1.txt").write_text("a\n")
    (tmp_path / "2.txt").write_text("b\n")
    assert pairs(build(tmp_path, ["1.txt", "2.txt"], None, places=TEMPLATES)) == LINE


@pytest.mark.fault("F42")
@pytest.mark.parametrize("name", ["two words", "übung 'ü' \"q\"", "x" * 200, "図/1 2"])
@pytest.mark.parametrize("suffix", ["txt", "tsv", "jsonl", "csv"])
def test_unusual_names(tmp_path, name, suffix):
    write(tmp_path, name)
    image, mask = f"i/{name}.png", f"m/{name}.png"
    content = {
        "txt": f"{image} {mask}\n",
        "tsv": f"{image}\t{mask}\n",
        "jsonl": json.dumps({"image": image, "mask": mask}),
        "csv": ",".join('"' + path.replace('"', '""') + '"' for path in (image, mask)),
    }[suffix]
    assert pairs(build(tmp_path, f"t.{suffix}", content)) == [(image, mask)]
    if suffix == "txt":
        assert pairs(build(tmp_path, "t.txt", f"{name}\n", places=TEMPLATES)) == [(image, mask)]


@pytest.mark.fault("F42", "F57")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.lst", "i/a.png\tm/a.png\ni/b.png\n", r"t\.lst, line 2: 1 column instead of.*one tab"),
        (
            "t.lst",
            "i/a.png\tm/a.png\n\ni/c.png\tm/b.png",
            r"line 3: the image file .*i/c\.png does not",
        ),
        ("t.tsv", "i/a.png\tm/a.png\tx", r"t\.tsv, line 1: the valid file .*x does not exist"),
        ("t.tsv", "i/a.png\tm/a.png\tx\ty", r"t\.tsv, line 1: 4 columns"),
        ("t.csv", 'i/a.png,m/a.png\n"i/b.png,m/b.png', r"t\.csv, line 2: it is not valid CSV"),
        (
            "t.jsonl",
            '{"image": "i/a.png", "mask": "m/a.png"}\nnonsense',
            r"line 2: 'nonsense' is not valid JSON",
        ),
        (
            "t.jsonl",
            '{"mask": "m/a.png"}',
            r'line 1: an object with "image" and "mask" is needed, but the line holds mask',
        ),
        ("t.lst", "i/a.png\tm/a.png\ni/a.png\tm/b.png", r"line 2: 'i/a' is named twice"),
        ("t.lst", b"i/a.png\tm/a.png\ni/\xff.png\tm/b.png", r"t\.lst, line 2: it is not UTF-8"),
        ("t.lst", "\n\n", r"names no sample"),
        ("t.lst", "../x.png\tm/a.png", r"line 1: '\.\./x\.png' leads outside dataset\.root"),
        ("t.lst", "/etc/passwd\tm/a.png", r"leads outside"),
        ("t.lst", "file:///etc/passwd\tm/a.png", r"leads outside"),
        ("t.lst", "i/a.png\0\tm/a.png", r"leads outside"),
    ],
)
def test_a_bad_line_is_named(tmp_path, name, content, message):
    write(tmp_path, "a", "b")
    with pytest.raises(DataError, match=message):
        build(tmp_path, name, content)


def test_paths_outside_root_can_be_allowed(tmp_path):
    write(tmp_path / "elsewhere", "a")
    (tmp_path / "root").mkdir()
    content = f"../elsewhere/i/a.png\t{tmp_path}/elsewhere/m/a.png"
    dataset = build(tmp_path / "root", "t.lst", content, allow_outside_root=True)
    assert len(dataset) == 1
    assert dataset[0].image.shape == (3, 4, 3)


def test_keys(tmp_path):
    write(tmp_path, "a")
    with pytest.raises(DataError, match=r"dataset\.train\.list: .*absent\.txt cannot be read"):
        build(tmp_path, "absent.txt", None)
    with pytest.raises(ConfigError, match="did you mean 'images'"):
        build(tmp_path, "t.txt", "a", places={"image": "i/{}.png"})
    with pytest.raises(ConfigError, match="both be templates"):
        build(tmp_path, "t.txt", "a", places={"images": "i/{}.png", "masks": "m"})
    with pytest.raises(ConfigError, match=r"dataset\.val\.list is not set"):
        DATASETS.build({"name": "list", "root": str(tmp_path), "num_classes": 2}, split="val")


def test_names_choose_lines(tmp_path):
    write(tmp_path, "a", "b", "7")
    (tmp_path / "m" / "b.png").unlink()
    dataset = build(tmp_path, "t.txt", "a\nb\n7", places={**TEMPLATES, "names": [7, "a"]})
    assert [files.name for files in dataset.files] == ["a", "7"]
    content = "i/a.png m/a.png\ni/b.png m/b.png\n"
    dataset = build(tmp_path, "t.txt", content, places={"names": ["i/a"]})
    assert [files.name for files in dataset.files] == ["i/a"]
    with pytest.raises(DataError, match=r"no sample has the name 'i/aa'; did you mean 'i/a'\?"):
        build(tmp_path, "t.txt", content, places={"names": ["i/aa"]})


@pytest.mark.fault("F34")
def test_missing_files_may_be_left_out(tmp_path):
    write(tmp_path, "a", "b", "c")
    (tmp_path / "m" / "b.png").unlink()
    with pytest.raises(DataError, match=r"line 2: the mask file .*m/b\.png does not exist"):
        build(tmp_path, "t.txt", "a\nb\nc", places=TEMPLATES)
    with pytest.raises(DataError, match=r"1 of 3 samples .* more than dataset\.max_bad=0\.1"):
        build(tmp_path, "t.txt", "a\nb\nc", places=TEMPLATES, max_bad=0.1)
    dataset = build(tmp_path, "t.txt", "a\nb\nc", places=TEMPLATES, max_bad=0.5)
    assert [files.name for files in dataset.files] == ["a", "c"]
    assert len(dataset.left_out) == 1


def test_a_line_without_its_valid_file(tmp_path):
    write(tmp_path, "a")
    with pytest.raises(
        DataError, match=r"line 1: it has no third column, but dataset\.train\.valid"
    ):
        build(tmp_path, "t.tsv", "i/a.png\tm/a.png", places={"valid": "v"})
