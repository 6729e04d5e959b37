"""Mixed precision by name."""

from __future__ import annotations

import os

import torch

from segtrain.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to `precision`; without effect for ``fp32``."""
    return torch.autocast(
        device.type, dtype=DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES
    )


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``auto`` takes this process's GPU if there is one.

    Raises:
        ConfigError: When there is no such device.
    """
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is none; use auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r} is not here: {torch.cuda.device_count()} CUDA devices found;"
            " use device=cpu"
        )
    return device
