"""The files that an inspection writes, and the line that it prints."""

from __future__ import annotations

import json
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.inspection import Examination, examine
from segtrain.inspection.report import report_dict
from segtrain.pages.html import escaped
from tests.inspection.conftest import SHAPE, Run, write_sample

VOID = ("meta", "img", "line", "circle", "br")


class Checker(HTMLParser):
    """Checks that every element is closed, and collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [str(values[key]) for key in ("src", "href") if key in values]
        if tag not in VOID or (tag == "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    checker.close()
    assert checker.open == []
    return checker


def test_the_page_needs_no_other_file(root: Path, run: Run, tmp_path: Path) -> None:
    write_sample(root, "train", "train1", shape=(48, 40))
    assert run("inspect")[0] == 0
    page = parsed(tmp_path / "report/report.html")
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert page.tags.count("img") == 3 * 6
    assert page.tags.count("svg") == 1
    for text in ("Ready for training", "2 sizes", "sky", "48 x 40", "augmentation.mean="):
        assert text in page.text


def test_the_page_shows_the_test_split(root: Path, run: Run, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind / "test").mkdir()
    write_sample(root, "test", "one")
    assert run("inspect", "dataset.test={images:images/test,masks:masks/test}")[0] == 0
    page = parsed(tmp_path / "report/report.html")
    for text in ("train images", "val images", "test images"):
        assert page.text.count(text) == 2  # a figure at the top, and a column of the classes
    content = json.loads((tmp_path / "report/report.json").read_text())
    assert content["splits"]["test"]["images"] == 1
    assert content["classes"][0]["test"]["share"] == 0.25


def test_the_page_states_what_does_not_count(root: Path, run: Run, tmp_path: Path) -> None:
    (root / "valid").mkdir()
    for path in (root / "images/train").iterdir():
        counts = np.zeros(SHAPE, np.uint8)
        counts[: SHAPE[0] // 4] = 255
        Image.fromarray(counts).save(root / "valid" / f"{path.stem}.png")
        ids = np.full(SHAPE, 9)  # outside the contract, where it does not count
        ids[: SHAPE[0] // 4] = np.arange(SHAPE[1]) % 4
        write_sample(root, "train", path.stem, ids)
    assert run("inspect", "dataset.train.valid=valid")[0] == 0
    page = parsed(tmp_path / "report/report.html")
    assert "75 %of train pixels do not count" in page.text.replace("\n", "")
    assert "do not count, by the valid files: 75 % of train, 0 % of val. They are" in page.text
    content = json.loads((tmp_path / "report/report.json").read_text())
    pixels = SHAPE[0] * SHAPE[1]
    assert content["splits"]["train"]["invalid_pixels"] == 6 * pixels * 3 // 4
    assert content["splits"]["train"]["ignored_pixels"] == 6 * pixels * 3 // 4
    assert content["splits"]["val"]["invalid_pixels"] == 0
    assert [entry["train"]["share"] for entry in content["classes"]] == [0.25] * 4


def test_names_from_the_data_are_text(root: Path, run: Run, tmp_path: Path) -> None:
    name = '<script>alert(\'"&")<b>\x1b[31m'
    write_sample(root, "train", name)
    write_sample(root, "train", f"bad{name}", np.full(SHAPE, 9))
    code, _ = run("inspect", "dataset.class_names=['<i>sky</i>',b,c,d]")
    assert code == 3
    text = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "<script" not in text
    assert "<i>sky" not in text
    assert escaped(name) in text
    page = parsed(tmp_path / "report/report.html")
    assert "<i>sky</i>" in page.text
    found = json.loads((tmp_path / "report/report.json").read_text())["findings"]
    assert found[0]["file"] == str(root / "masks/train" / f"bad{name}.png")


def test_names_that_are_not_utf8(root: Path, run: Run, tmp_path: Path) -> None:
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    try:
        write_sample(root, "train", name, np.full(SHAPE, 9))
    except (OSError, UnicodeError):
        pytest.skip("this file system allows UTF-8 names only")
    assert run("inspect")[0] == 3
    assert "\\udcff\\udcfe" in (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report/report.json").read_text())["counts"] == {"values": 1}


def spec_of(root: Path) -> dict[str, object]:
    places = {
        split: {"images": f"images/{split}", "masks": f"masks/{split}"}
        for split in ("train", "val")
    }
    return {"name": "folder", "title": "mine", "root": str(root), "num_classes": 4, **places}


@pytest.fixture
def examination(root: Path) -> Examination:
    return examine(spec_of(root))


def test_the_keys_of_the_json(examination: Examination) -> None:
    found = report_dict(examination)
    assert list(found) == [
        *("segtrain", "dataset", "verdict", "refusal", "findings", "counts", "splits", "classes"),
        *("normalisation", "class_weights"),
    ]
    assert (found["dataset"], found["verdict"], found["refusal"]) == ("mine", "fine", None)
    pixels = SHAPE[0] * SHAPE[1]
    assert found["splits"]["val"] == {
        "images": 3,
        "left_out": 0,
        "ignored_pixels": 0,
        "invalid_pixels": 0,
        "sizes": [{"height": SHAPE[0], "width": SHAPE[1], "images": 3}],
    }
    first = found["classes"][0]
    assert (first["id"], first["name"], len(first["colour"])) == (0, "class_0", 3)
    assert first["train"] == {"pixels": 6 * pixels // 4, "share": 0.25, "images": 6}
    assert found["class_weights"]["inverse_log"] == {f"class_{index}": 1.0 for index in range(4)}
    assert found["normalisation"].keys() == {"mean", "std"}
    assert json.loads(json.dumps(found)) == found


def test_training_accepts_what_was_written(
    root: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample(root, "train", "train1", np.zeros(SHAPE))
    given = ["dataset=folder", f"dataset.root={root}", "dataset.num_classes=4"]
    words = [*given, f"output={tmp_path / 'report'}", "class_weights=median_frequency"]
    assert run_command("inspect", words) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith("augmentation.mean=[")
    weights = tmp_path / "report/class_weights.json"
    assert json.loads(weights.read_text())["method"] == "median_frequency"
    default = ["dataset.class_names=null", f"loss.class_weights={weights}"]
    assert run("train", *default, *shlex.split(line))[0] == 0


def test_the_same_report_twice(root: Path, run: Run, tmp_path: Path) -> None:
    texts = []
    for _ in range(2):
        assert run("inspect", "--augment")[0] == 0
        files = sorted((tmp_path / "report").iterdir())
        texts.append({path.name: path.read_bytes() for path in files})
    assert texts[0] == texts[1]
    assert set(texts[0]) == {
        "augmented.html", "class_weights.json", "report.html", "report.json"
    }  # fmt: skip


def test_the_sheet_shows_what_training_would_see(root: Path, run: Run, tmp_path: Path) -> None:
    words = ("augment=true", "num_augmented=2", "num_epochs=3", "augmentation.crop_size=[16,40]")
    assert run("inspect", *words)[0] == 0
    page = parsed(tmp_path / "report/augmented.html")
    assert page.tags.count("img") == 2 * (1 + 3)
    assert "augmentation.crop_size=[16,40]" in page.text
    assert "epoch 2" in page.text
    first = (tmp_path / "report/augmented.html").read_bytes()
    assert run("inspect", *words, "seed=1")[0] == 0
    assert (tmp_path / "report/augmented.html").read_bytes() != first


def test_the_default_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["dataset=folder", f"dataset.root={root}", "dataset.num_classes=4", "dataset.title=a/b"]
    assert run_command("inspect", words) == 0
    assert (tmp_path / "outputs/inspect/a_b/report.html").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["dataset=foldr"], 2, "did you mean 'folder'?"),
        (["loss=focal"], 2, "loss=focal: this command does not take loss"),
        (["decod=true"], 2, "did you mean 'decode'?"),
        (["augmentation=strng"], 2, "unknown augmentation 'strng'"),
        (["augmentation.flp=1"], 2, "did you mean 'flip'?"),
        (["class_weights=median"], 2, "class_weights"),
        (["num_examples=-1"], 2, "num_examples must be at least 0"),
        (["dataset.train.images=nowhere"], 3, "nowhere"),
    ],
)
def test_mistakes(root: Path, run: Run, words: list[str], code: int, message: str) -> None:
    found, line = run("inspect", *words)
    assert (found, line.startswith("error: ")) == (code, True)
    assert message in line


def test_a_dataset_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("inspect", []) == 2
    assert "dataset" in capsys.readouterr().err


def test_multi_label_data_of_four_channels(root: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for path in (root / "images" / split).iterdir():
            path.unlink()
            pixels = np.random.default_rng(len(path.name)).integers(0, 256, (*SHAPE, 4), np.uint8)
            pixels[0, 0] = sum(path.name.encode()) % 256
            np.save(path.with_suffix(".npy"), pixels)
        for path in (root / "masks" / split).iterdir():
            path.unlink()
            np.save(path.with_suffix(".npy"), np.eye(3, dtype=np.uint8)[np.ones(SHAPE, int)])
    words = [
        *("dataset=folder", f"dataset.root={root}", "dataset.num_classes=3", "--augment"),
        "augmentation.saturation=0",
        *("dataset.multi_label=true", "dataset.channels=4", f"output={tmp_path / 'report'}"),
    ]
    assert run_command("inspect", words) == 0
    found = json.loads((tmp_path / "report/report.json").read_text())
    assert len(found["normalisation"]["mean"]) == 4
    assert [entry["train"]["share"] for entry in found["classes"]] == [0.0, 1.0, 0.0]
    assert parsed(tmp_path / "report/augmented.html").tags.count("img") == 6 * 6
