"""Files that would hang a run or fill its memory are refused at once, by name."""

from __future__ import annotations

import base64
import json
import os
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.data.shards.index import _unpacked
from segtrain.data.shards.locations import list_locations
from segtrain.errors import ConfigError
from segtrain.foreign import LARGEST_TEXT, parse_yaml
from tests.helpers import SMALL, TINY

Last = Callable[[], str]
SECONDS = 2.0
FOLDER = [
    *(f"plugins=[{TINY}]", "model=tiny", "trainer.max_steps=1", "trainer.device=cpu"),
    *("loader.num_workers=0", "dataset.num_classes=2", "trainer.batch_size=2", "dataset=folder"),
    *("augmentation.crop_size=[16,16]", "dataset.allow_overlap=true", "run_dir=run"),
    *("dataset.train.images=i", "dataset.train.masks=m", "dataset.val=null"),
    *("dataset.val_share=0.3",),
]


@pytest.fixture(autouse=True)
def _quick_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test ends in two seconds or so, and adds less than a gigabyte."""
    monkeypatch.chdir(tmp_path)
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - begun < 10 * SECONDS  # the machine may be busy
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


def fifo(name: str) -> str:
    os.mkfifo(name)
    return name


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
)


@pytest.mark.fault("F43")
@pytest.mark.parametrize(
    "key", ["loss.class_weights", "model.weights", "resume", "dataset.root", "dataset.train.list"]
)
@pytest.mark.parametrize("kind", ["/dev/zero", "fifo"])
def test_devices_and_pipes_are_no_files(key: str, kind: str, last_line: Last) -> None:
    path = fifo("pipe") if kind == "fifo" else kind
    words = [*FOLDER, f"{key}={path}"]
    if key == "dataset.train.list":
        words = [*SMALL, "dataset=list", "dataset.num_classes=2", f"{key}={path}"]
        words = [word for word in words if "num_train" not in word and "num_val" not in word]
        words = [word for word in words if "dataset.size" not in word]
    elif key != "dataset.root":
        words = [*SMALL, f"{key}={path}"]
    assert run_command("train", words) in (2, 3, 4)
    line = last_line()
    assert path in line
    assert "batch_size" not in line


@pytest.mark.fault("F43")
def test_a_settings_file_without_end(last_line: Last) -> None:
    with Path("weights.json").open("wb") as stream:
        stream.truncate(LARGEST_TEXT + 2)
    assert run_command("train", [*SMALL, "loss.class_weights=weights.json"]) == 2
    assert "weights.json" in last_line()
    Path("weights.yaml").write_text(LAUGHS)
    assert run_command("train", [*SMALL, "loss.class_weights=weights.yaml"]) == 2


@pytest.mark.fault("F43")
def test_nested_aliases(last_line: Last) -> None:
    with pytest.raises(ValueError, match="its aliases repeat more than 1,000,000 values"):
        parse_yaml(LAUGHS)
    Path("own/experiment").mkdir(parents=True)
    Path("own/experiment/laughs.yaml").write_text(LAUGHS)
    words = [*SMALL, "experiment=laughs", "--config-dir", "own"]
    assert run_command("train", words) == 2
    assert "own/experiment/laughs.yaml is not valid YAML: its aliases repeat" in last_line()
    Path("data").mkdir()
    Path("data/data.yaml").write_text(LAUGHS)
    words = [word for word in FOLDER if not word.startswith("dataset")]
    assert run_command("train", [*words, "dataset=yolo", "dataset.root=data"]) == 3
    assert "data/data.yaml cannot be read: its aliases repeat" in last_line()


def pictures(root: Path) -> None:
    for folder in ("i", "m"):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (24, 24), (index, 0, 0)).save(root / f"i/{index}.png")
        Image.fromarray(np.arange(576, dtype=np.uint8).reshape(24, 24) % 2).save(
            root / f"m/{index}.png"
        )


@pytest.mark.fault("F43")
def test_a_member_of_an_archive_that_is_too_large(last_line: Last) -> None:
    pictures(Path("source"))
    with zipfile.ZipFile("set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(Path("source").rglob("*.png")):
            archive.write(path, path.relative_to("source"))
    content = bytearray(Path("set.zip").read_bytes())
    name = b"i/2.png"  # its header says 3.9 GB, locally and in the directory
    size = struct.pack("<I", 3_900_000_000)
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = -1
        while True:
            start = content.find(mark, start + 1)
            length = 46 if mark == b"PK\x01\x02" else 30
            if start < 0:
                break
            if content[start + length : start + length + len(name)] == name:
                content[start + at : start + at + 4] = size
    Path("set.zip").write_bytes(bytes(content))
    assert run_command("train", [*FOLDER, "dataset.root=set.zip"]) == 3
    assert "its member i/2.png has 3.9 GB, more than the 1.1 GB" in last_line()


@pytest.mark.fault("F43")
def test_facts_of_a_shard_that_unpack_to_gigabytes() -> None:
    packed = zlib.compress(b"[" + b" " * (300 * 2**20), 1)
    with pytest.raises(ValueError, match="too large"):
        _unpacked(base64.b64decode(base64.b64encode(packed)))
    assert _unpacked(zlib.compress(json.dumps([1, 2]).encode())) == [1, 2]


@pytest.mark.fault("F43")
@pytest.mark.parametrize("entry", ["a-{000000..999999999}.tar", "{0..999}{0..999}{0..9}.tar"])
def test_a_range_of_too_many_shards(entry: str) -> None:
    pytest.importorskip("webdataset")
    with pytest.raises(ConfigError, match="names more than 1,000,000 shards"):
        list_locations("", entry, "train")


def bomb(path: Path, side: int = 20_000) -> None:
    """A PNG of side x side pixels in some hundred kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)  # one bit per pixel
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.fault("F41")
@pytest.mark.parametrize("command", ["train", "inspect"])
def test_an_image_of_400_megapixels_is_never_decoded_whole(command: str, last_line: Last) -> None:
    pictures(Path("data"))
    words = [*FOLDER, "dataset.root=data"]
    bomb(Path("data/i/big.png"))
    bomb(Path("data/m/big.png"))
    if command == "inspect":
        words = [word for word in words if word.startswith("dataset")] + ["output=report"]
    assert run_command(command, words) == 3
    line = last_line()
    assert "big.png" in line
    assert "batch_size" not in line


@pytest.mark.fault("F43")
def test_what_is_no_file_in_a_folder_is_named(last_line: Last) -> None:
    pictures(Path("data"))
    Path("data/i/loop").symlink_to(Path("data/i").resolve())
    os.mkfifo("data/i/pipe.png")
    Path("data/i/gone.png").symlink_to("nothing.png")
    Path("data/i/folder.png").mkdir()
    assert run_command("train", [*FOLDER, "dataset.root=data"]) == 3
    line = last_line()
    assert "pipe.png" in line or "gone.png" in line
