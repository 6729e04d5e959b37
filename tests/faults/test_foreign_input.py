"""Configs, lists, archives and names that come from someone else."""

from __future__ import annotations

import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from tests.helpers import SMALL, TINY

Train = Callable[..., int]
FOLDER = [
    *(f"plugins=[{TINY}]", "model=tiny", "trainer.max_steps=1", "trainer.device=cpu"),
    *("loader.num_workers=0", "dataset.num_classes=2", "trainer.batch_size=2"),
    *("augmentation.crop_size=[16,16]", "dataset.allow_overlap=true", "run_dir=run"),
]
SECRET = "s3cr3t-value"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", SECRET)
    return tmp_path


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every file that is opened; the hook stays, and does nothing afterwards."""
    found: list[str] = []
    active = [True]

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if active[0] and event == "open" and isinstance(given[0], (str, bytes, os.PathLike)):
            found.append(os.fsdecode(given[0]))

    sys.addaudithook(hook)
    yield found
    active[0] = False


def png(path: Path, value: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 24), value, np.uint8)).convert("RGB").save(path)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(576, dtype=np.uint8).reshape(24, 24) % 2).save(path)


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------ resolvers and names


@pytest.mark.fault("F56", "F60")
@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:TOKEN}",
        "a${oc.env:TOKEN,b}",
        "${oc.decode:${oc.env:TOKEN}}",
        "${oc.${seed}:TOKEN}",
        "${oc.create:{a:1}}",
        "${hydra:runtime.cwd}",
        "${now:%Y}",
    ],
)
def test_resolvers_are_refused(value: str, folder: Path, last_line: Callable[[], str]) -> None:
    for words in ([f"name='{value}'"], [f"dataset.title='{value}'"]):
        assert run_command("train", [*SMALL, *words, "trainer.max_steps=1"]) == 2
        assert SECRET not in last_line()
    assert SECRET.encode() not in written(folder)


@pytest.mark.fault("F56", "F60")
def test_resolvers_in_files_are_refused(folder: Path, last_line: Callable[[], str]) -> None:
    (folder / "own/experiment").mkdir(parents=True)
    text = "# @package _global_\nname: x${oc.env:TOKEN}\n"
    (folder / "own/experiment/evil.yaml").write_text(text)
    words = [*SMALL, "experiment=evil", "--config-dir", str(folder / "own")]
    assert run_command("train", words) == 2
    assert "name=x${oc.env:TOKEN}: resolvers such as oc.env are not allowed" in last_line()


@pytest.mark.fault("F60")
def test_other_keys_can_be_referred_to(folder: Path) -> None:
    words = [*SMALL, "name='run_${seed}'", "seed=3", "trainer.max_steps=1"]
    assert run_command("train", words) == 0
    assert list((folder / "outputs/run_3").iterdir())


@pytest.mark.fault("F57")
@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/../../../x", "~/x", "a\tb", " "])
@pytest.mark.parametrize("key", ["name", "dataset.title"])
def test_names_that_leave_outputs_are_refused(
    key: str, name: str, folder: Path, last_line: Callable[[], str]
) -> None:
    words = [*SMALL, f"{key}='{name}'", "trainer.max_steps=1"]
    if key == "dataset.title":
        words = [*FOLDER[:-1], "dataset=folder", "dataset.root=data", f"{key}='{name}'"]
    assert run_command("train", words) == 2
    line = last_line()
    assert key in line
    assert "is not a name in outputs" in line
    assert not any(folder.iterdir())
    assert run_command("train", [*words, "-m", "seed=0,1"]) == 2


# ------------------------------------------------------------------ lists and archives


def dataset(root: Path) -> None:
    for index in range(4):
        png(root / f"i/{index}.png", index)
        mask(root / f"m/{index}.png")


@pytest.mark.fault("F57")
@pytest.mark.parametrize("entry", ["link.png", "linked/0.png"])
def test_links_in_a_list_that_leave_the_root_are_refused(
    entry: str, folder: Path, opened: list[str], last_line: Callable[[], str]
) -> None:
    dataset(folder / "data")
    png(folder / "outside/0.png")
    (folder / "data/link.png").symlink_to(folder / "outside/0.png")
    (folder / "data/linked").symlink_to(folder / "outside")
    (folder / "data/inside.png").symlink_to(folder / "data/i/0.png")
    rows = [f"i/{n}.png\tm/{n}.png" for n in range(3)]
    words = [*FOLDER, "dataset=list", f"dataset.root={folder / 'data'}", "dataset.val_share=0.3"]
    words += ["dataset.train.list=train.tsv", "dataset.val=null"]
    (folder / "data/train.tsv").write_text("\n".join([*rows, "inside.png\tm/0.png"]) + "\n")
    assert run_command("train", words) == 0
    (folder / "data/train.tsv").write_text("\n".join([*rows, f"{entry}\tm/3.png"]) + "\n")
    opened.clear()
    assert run_command("train", [*words[:-1], "dataset.val=null", "run_dir=other"]) == 3
    assert f"train.tsv, line 4: '{entry}' leads outside dataset.root" in last_line()
    assert not [path for path in opened if "outside" in path]
    words += ["dataset.allow_outside_root=true", "run_dir=third"]
    assert run_command("train", words) == 0


def archive(path: Path, bad: str, link: str | None) -> None:
    names = {f"i/{n}.png": png for n in range(4)} | {f"m/{n}.png": mask for n in range(4)}
    source = path.parent / "source"
    for name, make in names.items():
        make(source / name)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as target:
            for name in names:
                target.write(source / name, name)
            info = zipfile.ZipInfo(bad)
            if link is not None:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            target.writestr(info, link or "x")
        return
    with tarfile.open(path, "w") as target:
        for name in names:
            target.add(source / name, name)
        entry = tarfile.TarInfo(bad)
        if link is not None:
            entry.type, entry.linkname = tarfile.SYMTYPE, link
        target.addfile(entry)


@pytest.mark.fault("F58")
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("bad", "link", "said"),
    [
        ("/outside/0.png", None, "'/outside/0.png' leads out of the archive"),
        ("../outside/0.png", None, "'../outside/0.png' leads out of the archive"),
        ("i/9.png", "/outside/0.png", "'i/9.png' is a link, which may lead anywhere"),
        ("i/9.png", "../../outside/0.png", "'i/9.png' is a link, which may lead anywhere"),
    ],
)
def test_members_that_leave_their_archive_are_refused(
    kind: str,
    bad: str,
    link: str | None,
    said: str,
    folder: Path,
    opened: list[str],
    last_line: Callable[[], str],
) -> None:
    path = folder / f"set.{kind}"
    archive(path, bad, link)
    opened.clear()
    words = [*FOLDER, "dataset=folder", f"dataset.root={path}", "dataset.train.images=i"]
    words += ["dataset.train.masks=m", "dataset.val=null", "dataset.val_share=0.3"]
    assert run_command("train", words) == 3
    line = last_line()
    assert f"{path}: its member {said}" in line
    assert not [found for found in opened if "outside" in found]


# ------------------------------------------------------------------ the terminal


EVIL = "a\x1b[31m[bold]b"


@pytest.mark.fault("F59")
def test_names_do_not_control_the_terminal(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = folder / "data"
    for index in range(4):
        png(root / f"i/{EVIL}{index}.png", index)
        mask(root / f"m/{EVIL}{index}.png")
    (root / f"i/{EVIL}9.png").write_bytes(b"")
    mask(root / f"m/{EVIL}9.png")
    words = [*FOLDER, "dataset=folder", f"dataset.root={root}", "dataset.train.images=i"]
    words += ["dataset.train.masks=m", "dataset.val=null", "dataset.val_share=0.3"]
    assert run_command("train", words) == 3
    words += ["dataset.max_bad=0.5", "dataset.class_names=['[red]x','y\x07']"]
    code = run_command("train", words)
    assert code == 0
    code = run_command("evaluate", ["checkpoint=run", "device=cpu"])
    assert code == 0
    output = capfd.readouterr()
    for text in (output.out, output.err):
        assert "\x1b[31m" not in text
        assert "\x07" not in text
    assert "[red]x" in output.err
    assert "\x1b" not in (folder / "run/train.log").read_text()
