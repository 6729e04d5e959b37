"""Wrong variables of a launcher."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segtrain.cli.main import run_command
from tests.helpers import SMALL


@pytest.mark.fault("F24")
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc is not a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0 must be at least 1"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE=2, but MASTER_ADDR is not set"),
        (
            {"WORLD_SIZE": "2", "RANK": "5", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
            "RANK=5 must be from 0 to 1, since WORLD_SIZE=2",
        ),
    ],
)
def test_wrong_variables_are_refused_before_any_rendezvous(
    variables: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    last_line: Callable[[], str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_command("train", SMALL) == 2
    assert message in last_line()
