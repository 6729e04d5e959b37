import pytest

from segtrain.data.io.tar import Member
from segtrain.data.shards.samples import MemberPatterns, find_samples
from segtrain.errors import DataError
from tests.data.shards.helpers import build, foreign, write_tar


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "a.png"], r"'a' has an image and no mask, only a.jpg, a.png; the mask must be"),
        (["a.mask.png"], r"'a' has a mask and no image"),
        (["a.jpg", "a.mask.png", "a.mask.tif"], r"'a' has several masks, mask.png, mask.tif; set"),
    ],
)
def test_an_incomplete_sample_is_reported(tmp_path, names, message):
    write_tar(tmp_path / "s.tar", dict.fromkeys(names, b"x"))
    with pytest.raises(DataError, match=r"s.tar: sample " + message):
        build(tmp_path, "s.tar")
    foreign(tmp_path / "t.tar", ["b"])
    dataset = build(tmp_path, ["s.tar", "t.tar"], max_bad=0.5)
    assert len(dataset) == 1
    assert len(dataset.left_out) == 1


def test_masks_with_another_suffix(tmp_path):
    foreign(tmp_path / "s.tar", ["a"], mask="label_ids.png")
    with pytest.raises(DataError, match=r"or set dataset.mask to its suffix"):
        build(tmp_path, "s.tar")
    assert len(build(tmp_path, "s.tar", mask="label_ids.png")) == 1


def test_the_first_pattern_that_matches_wins():
    members = dict.fromkeys(["k.png", "k.jpg", "k.seg.png", "k.mask.png"], Member(0, 1))
    found, problems = find_samples(
        members, MemberPatterns(["jpg", "png"], ["seg.*", "mask.*"]), "s"
    )
    assert [sample.suffixes for sample in found] == [("jpg", "seg.png")]
    assert not problems
