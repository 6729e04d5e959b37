"""Devices and mixed precision by name."""

from __future__ import annotations

import os
import sys

import torch
from torch import Tensor

from segtrain.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


DEVICES = ("cpu", "cuda", "mps", "xpu")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to ``bf16`` or ``fp16``; no effect for ``fp32``."""
    return torch.autocast(
        device.type, dtype=DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES
    )


def set_deterministic(deterministic: bool) -> None:
    """Let torch use deterministic algorithms only, or let it choose.

    A GPU needs a variable of the environment as well, which must be set before cuBLAS is used.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)


def is_slow(device: torch.device, precision: str) -> bool:
    """Whether `precision` is slower than ``fp32``, as the processor has no instructions for it.

    Convolutions in bf16 take about ten times as long on an x86 processor with AVX2 alone. Other
    architectures, and versions of torch that do not report the instructions, count as fast.
    """
    report = getattr(torch.cpu, "get_capabilities", None)
    if device.type != "cpu" or precision not in DTYPES or report is None:
        return False
    found = report()
    has_any = any(found.get(f"{start}_{precision}") for start in ("avx512", "amx"))
    return found.get("architecture") == "x86_64" and not has_any


class Flag:
    """A number on its way from the device to the host.

    Reading it waits for the work before it, not for the work that was given to the device since
    then, as ``.item()`` would.

    Args:
        value: The number, ``()``.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._copied: torch.Event | None = None
        if value.device.type in ("cuda", "xpu"):
            self._value = torch.empty_like(value, device="cpu", pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._copied = torch.Event(value.device)
            self._copied.record()

    def __bool__(self) -> bool:
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._value)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; ``auto``: this process's GPU if available, else the CPU.

    Raises:
        ConfigError: When the device does not exist.
    """
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is not valid; use auto, cpu, cuda or cuda:0") from None
    if device.type not in DEVICES:
        raise ConfigError(
            f"device {name!r} is not one that segtrain runs on; use auto, {', '.join(DEVICES)}"
        )
    if device.type in ("mps", "xpu") and not getattr(torch, device.type).is_available():
        raise ConfigError(
            f"device {name!r} is not available: torch {torch.__version__} finds none here; use"
            " device=cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r} does not exist: {torch.cuda.device_count()} CUDA devices found;"
            " use device=cpu"
        )
    return device


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory that this process has held: on the GPU, else in RAM; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # noqa: PLC0415  Windows has none
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
