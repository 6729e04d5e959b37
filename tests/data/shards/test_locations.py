import pytest

from segtrain.data import make_shards
from segtrain.data.shards import locations
from segtrain.errors import ConfigError, DataError
from tests.data.shards.helpers import build


def test_locations_that_are_not_valid(shards):
    with pytest.raises(DataError, match=r"train\.shards: .*nope-0.tar does not exist"):
        build(shards, "nope-{0..3}.tar")
    with pytest.raises(DataError, match=r"nope\*.tar does not exist"):
        build(shards, "nope*.tar")
    with pytest.raises(ConfigError, match=r"names .*train-000000.tar twice"):
        build(shards, ["train-000000.tar", "train-0*.tar"])


@pytest.mark.parametrize("url", ["pipe:touch {}", "pipe:cat x.tar; touch {}", "file:///{}", "ftp://h/{}",
                                 "gopen:x", "http:x"])  # fmt: skip
def test_urls_that_would_do_more_than_fetch_are_refused(shards, tmp_path, url):
    mark = tmp_path / "mark"
    for options in ({"shards": url.format(mark)}, {"root": url.format(mark)}):
        with pytest.raises(
            ConfigError, match=r"would run a shell command|is not a URL that is read"
        ):
            build(**{"root": shards, **options})
    assert not mark.exists()


def test_without_the_extra(shards, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(locations, "_PACKAGES", ("a_package_that_nobody_has",))
    with pytest.raises(ConfigError, match=r'pip install "segtrain\[webdataset\]"'):
        build(shards)
    with pytest.raises(ConfigError, match=r'pip install "segtrain\[webdataset\]"'):
        make_shards(folder, tmp_path / "out", "train")
