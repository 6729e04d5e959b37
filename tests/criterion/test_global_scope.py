"""Mining and region losses over the pixels of all processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from segtrain import ConfigError, build_loss
from tests.helpers import in_two_processes


def test_the_loss_of_all_processes_is_that_of_one_large_batch() -> None:
    done = in_two_processes(Path(__file__).with_name("global_scope.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("agrees") == 40


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "dice", "scope": "all"}, r"loss\.scope must be 'process' or 'global', got 'all'"),
        (
            {"name": "cross_entropy", "mining": {"name": "top_k", "scope": "all"}},
            r"mining\.scope must be 'process' or 'global'",
        ),
        ({"name": "dice", "scope": "global", "per_image": True}, "needs per_image=false"),
    ],
)
def test_a_scope_that_does_not_exist_or_has_no_use(spec: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_loss(spec, num_classes=3)
