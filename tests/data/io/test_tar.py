import pytest

from segtrain.data.io.tar import read_members
from segtrain.errors import DataError
from tests.data.shards.helpers import foreign


def test_a_truncated_shard_without_index(tmp_path):
    foreign(tmp_path / "s.tar", "abcdef")
    whole = (tmp_path / "s.tar").read_bytes()
    ends = sum(b"ustar" in whole[at : at + 512] for at in range(0, len(whole), 512))
    assert ends == 18
    for length in range(0, len(whole) - 10_000, 512 * 3 - 1):
        (tmp_path / "s.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"s\.tar (is truncated|cannot be read)"):
            read_members(tmp_path / "s.tar")
    for at in (1024, 3072):  # a damaged header in the middle
        (tmp_path / "s.tar").write_bytes(whole[:at] + b"?" * 20 + whole[at + 20 :])
        with pytest.raises(DataError, match=r"s\.tar (is truncated or damaged|cannot be)"):
            read_members(tmp_path / "s.tar")
