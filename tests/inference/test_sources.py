"""What `input` may be, and what the files of a prediction are named after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segtrain.errors import DataError
from segtrain.inference.sources import Video, find_sources


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def stems(given: str) -> dict[str, str]:
    return {source.stem: source.path.as_posix() for source in find_sources(given)}


def message(given: str) -> str:
    with pytest.raises(DataError) as caught:
        find_sources(given)
    return str(caught.value)


def test_a_folder_keeps_its_structure() -> None:
    touch("in/b.png", "in/a/b/x.JPG", "in/a/v.1.tif", "in/.hidden.png", "in/.cache/y.png")
    assert stems("in") == {
        "a/b/x": "in/a/b/x.JPG",
        "a/v.1": "in/a/v.1.tif",
        "b": "in/b.png",
    }
    assert stems("in/a/b/x.JPG") == {"x": "in/a/b/x.JPG"}


def test_a_glob_is_searched_below_its_first_folders() -> None:
    touch("in/a/1.png", "in/a/2.jpg", "in/b/c/1.png", "in/0.png")
    assert [*stems("in/**/*.png")] == ["0", "a/1", "b/c/1"]
    assert [*stems("in/*/*.png")] == ["a/1"]
    assert [*stems("in/a/[12].*")] == ["1", "2"]
    assert "the glob matches no image; supported endings are .avi" in message("in/*.tif")
    touch("in/[1].png")
    assert [*stems("in/[1].png")] == ["[1]"]


def test_a_list_keeps_its_order() -> None:
    touch("lists/a/1.png", "lists/2.png", "other/3.png")
    Path("lists/near.txt").write_text("\ufeff2.png\n\na/1.png\nabsent.png\n", encoding="utf-8")
    assert [*stems("lists/near.txt")] == ["2", "a/1", "absent"]
    Path("lists/far.txt").write_text("a/1.png\n../other/3.png\n")
    assert [*stems("lists/far.txt")] == ["lists/a/1", "other/3"]
    Path("lists/none.txt").write_text("\n")
    assert "the list is empty; write one path per line" in message("lists/none.txt")
    Path("lists/odd.txt").write_text("notes.doc\n")
    assert "lists/notes.doc has none of the supported endings" in message("lists/odd.txt")
    Path("lists/odd.txt").write_bytes(b"\xff\xfe\xfa.png")
    assert "the list is not a text file in UTF-8" in message("lists/odd.txt")


def test_what_was_written_is_not_read_again() -> None:
    touch("in/a.png", "in/ids/a.png", "in/out/ids/a.png", "in/ids.png")
    found = find_sources("in", [Path("in/ids"), Path("in/out/ids")])
    assert [source.stem for source in found] == ["a", "ids"]


def test_two_inputs_of_one_name() -> None:
    touch("in/a.png", "in/a.jpg", "in/b/a.png")
    assert "in/a.jpg and in/a.png would be written to the same file; rename one" in message("in")
    touch("clips/a.mp4", "clips/a_000001.png", "clips/a_1.png")
    assert "clips/a_000001.png and a frame of a video would be written" in message("clips")


def test_what_is_no_input() -> None:
    assert message("absent").startswith("input=absent: this file or folder does not exist; give")
    touch("in/notes.md")
    assert "the folder has no image, but 1 .md; supported endings are" in message("in")


def test_frames_of_a_video(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter("a.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for level in (10, 90, 200):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2] = level  # red
        writer.write(frame)
    writer.release()
    with Video(Path("a.avi")) as video:
        frames = list(video)
        assert (video.num_frames, video.rate) == (3, 10)
    for frame, level in zip(frames, (10, 90, 200), strict=True):
        assert frame.shape == (48, 64, 3)
        assert np.abs(frame.mean((0, 1)) - [level, 0, 0]).max() < 4
    Path("b.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.mp4: the video cannot be read; it is damaged, or"):
        Video(Path("b.mp4"))
    with pytest.raises(DataError, match=r"c\.mp4: the video does not exist"):
        Video(Path("c.mp4"))
