"""The precision that a processor has instructions for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segtrain.engine.device import is_slow

CPU = torch.device("cpu")
OLD = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}


@pytest.mark.parametrize(
    ("found", "precision", "expected"),
    [
        (OLD, "bf16", True),
        (OLD, "fp32", False),
        ({**OLD, "avx512_bf16": True}, "bf16", False),
        ({**OLD, "amx_bf16": True}, "bf16", False),
        ({**OLD, "amx_bf16": True}, "fp16", True),
        ({"architecture": "aarch64"}, "bf16", False),
    ],
)
def test_precisions_without_instructions_are_slow(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], precision: str, expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert is_slow(CPU, precision) is expected
    assert not is_slow(torch.device("cuda"), precision)


def test_versions_of_torch_that_do_not_tell_count_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not is_slow(CPU, "bf16")
