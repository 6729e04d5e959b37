import pytest

from segtrain.errors import DataError
from tests.data.shards.helpers import build


def test_an_index_that_is_not_valid(tmp_path):
    for text in ("", "{}", "[]", '{"segtrain_shards": 1}\n{"shard": "../x.tar"}'):
        (tmp_path / "bad-index.jsonl").write_text(text)
        with pytest.raises(DataError, match=r"bad-index.jsonl, line [12]: this is not an index"):
            build(tmp_path, "bad-index.jsonl")
    (tmp_path / "bad-index.jsonl").write_text('{"segtrain_shards": 99}')
    with pytest.raises(DataError, match=r"of version 99, and this segtrain reads version 1"):
        build(tmp_path, "bad-index.jsonl")
