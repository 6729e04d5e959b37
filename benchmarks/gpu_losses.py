"""Part 2 of ``benchmarks/gpu.py``: losses against ``F.interpolate`` and ``F.cross_entropy``.

A call is a forward and a backward pass from logits at a quarter of the target's size. Each loss
takes turns with plain PyTorch. With bfloat16 logits plain PyTorch runs under autocast, as in
training, so ``F.cross_entropy`` computes in float32; the case ``plain bfloat16`` is without
autocast.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from time import perf_counter
from typing import Any

import torch
from contenders import OURS, Contender, criterion_total, plain_cross_entropy, upsampled
from gpu_parts import Item, Row, Setting, alternate, fits, milliseconds, peak_mib, synchronize
from torch import Tensor
from workloads import Workload

TITLE = "Losses against F.interpolate + F.cross_entropy"
COLUMNS = {
    "workload": "logits",
    "dtype": "dtype",
    "case": "loss",
    "ms": "ms",
    "plain_ms": "plain ms",
    "ratio": "x plain",
    "peak_mib": "peak MiB",
    "plain_peak_mib": "plain MiB",
    "memory_ratio": "x plain",
    "gradient_error": "gradient error",
    "runs": "runs",
}
ROUNDS = 7
SLOW_SECONDS = 4.0  # a loss whose warm-up takes longer is not called again
WORKLOADS = {
    "(8,150,256,256)": Workload(1024, 1024, num_classes=150, classes_per_image=15, batch_size=8),
    "(16,19,128,256)": Workload(512, 1024, num_classes=19, classes_per_image=19, batch_size=16),
}
PLAIN_BF16 = "plain bfloat16"
TF32 = "cross_entropy, TF32"  # with torch.set_float32_matmul_precision("high"), as users set it
COMPARED = ("cross_entropy", TF32)  # with the gradient of plain PyTorch
CASES: dict[str, Mapping[str, Any]] = {
    "cross_entropy": OURS["cross_entropy"],
    TF32: OURS["cross_entropy"],
    **{name: OURS[name] for name in ("focal", "dice")},
    "ce_dice": {"name": "sum", "terms": {"cross_entropy": {}, "dice": {}}},
    **{name: OURS[name] for name in ("ohem", "lovasz_softmax")},
    "boundary": {"name": "boundary"},  # last, since it is slow: distances are computed on the CPU
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def items(setting: Setting) -> dict[str, Item]:
    """Return one measurement per loss, workload and dtype, the slow ones last."""
    workloads = WORKLOADS
    if setting.tiny:
        workloads = {"tiny": Workload(64, 64, num_classes=5, classes_per_image=5, batch_size=1)}
    found: dict[str, Item] = {}
    for case in (PLAIN_BF16, *CASES):
        for name, workload in workloads.items():
            for dtype in DTYPES:
                if dtype == {PLAIN_BF16: "bfloat16", TF32: "float32"}.get(case, dtype):
                    key = f"{case} {name} {dtype}"
                    found[key] = partial(_measure, name, workload, dtype, case)
    return found


@lru_cache(maxsize=4)
def _batch(workload: Workload, dtype: str, device: torch.device) -> tuple[Tensor, Tensor]:
    logits, target = workload.make()
    return logits.detach().to(device, DTYPES[dtype]).requires_grad_(), target.to(device)


def _measure(
    name: str, workload: Workload, dtype: str, case: str, setting: Setting
) -> Iterator[Row]:
    device = setting.device
    logits, target = _batch(workload, dtype, device)
    plain = upsampled(plain_cross_entropy)
    steps = {
        "ours": _Step(
            plain if case == PLAIN_BF16 else _ours(case, workload, device), logits, target
        ),
        "plain": _Step(
            _under_autocast(plain, device) if dtype == "bfloat16" else plain, logits, target
        ),
    }
    _load_kernels(case, workload, device)
    # The first call is the warm-up, and shows whether the memory is large enough.
    calls = {key: step for key, step in steps.items() if fits(step.measure_peak, device)}
    row = {"workload": name, "dtype": dtype, "case": case}
    if "ours" not in calls:
        yield {**row, "state": "out of memory"}
        return
    if steps["ours"].first > SLOW_SECONDS:
        seconds = {key: [step.first] for key, step in calls.items()}
    else:
        seconds = alternate(calls, 1 if setting.tiny else ROUNDS, setting)
    figures = _figures(seconds, {key: step.peak for key, step in calls.items()})
    values = {key: step.value for key, step in calls.items()}
    _check_values(case, values)
    if case in COMPARED and dtype == "float32" and "plain" in calls:
        figures["gradient_error"] = _gradient_error(steps["ours"], steps["plain"])
    yield {**row, **figures, "value": values["ours"], "plain_value": values.get("plain")}


def _gradient_error(ours: _Step, plain: _Step) -> float:
    """Return the largest distance of the two gradients, relative to the largest gradient."""
    gradients = []
    for step in (ours, plain):
        step()
        assert step.logits.grad is not None
        gradients.append(step.logits.grad)
    distance = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
    return distance.item()


def _load_kernels(case: str, workload: Workload, device: torch.device) -> None:
    """Run the loss in strips on few pixels, so that no measurement loads CUDA kernels."""
    logits, target = workload.tiny().make()
    loss = CASES.get(case, CASES["cross_entropy"])
    contender = criterion_total(loss, workload.num_classes, strip_rows=16, device=device)
    contender(logits.to(device), target.to(device)).backward()
    synchronize(device)


class _Step:
    """Forward and backward pass of a contender, with its value and its peak memory."""

    def __init__(self, contender: Contender, logits: Tensor, target: Tensor) -> None:
        self.contender, self.logits, self.target = contender, logits, target
        self.loss: Tensor | None = None
        self.peak: float | None = None
        self.first = 0.0  # seconds of the warm-up

    def __call__(self) -> None:
        self.logits.grad = None
        loss = self.contender(self.logits, self.target)
        loss.backward()
        self.loss = loss.detach()

    def measure_peak(self) -> None:
        """Run the warm-up; record its peak memory and its seconds."""
        self.logits.grad = None
        start = perf_counter()
        self.peak = peak_mib(self, self.logits.device)
        self.first = perf_counter() - start

    @property
    def value(self) -> float:
        """The value of the last call."""
        assert self.loss is not None
        return self.loss.item()


def _check_values(case: str, values: Mapping[str, float]) -> None:
    if not all(map(math.isfinite, values.values())):
        raise AssertionError(f"a loss is not finite: {values}")
    same = math.isclose(values["ours"], values.get("plain", values["ours"]), rel_tol=1e-3)
    if case in COMPARED and not same:
        raise AssertionError(f"cross_entropy is not what plain PyTorch gives: {values}")


def _ours(case: str, workload: Workload, device: torch.device) -> Contender:
    contender = criterion_total(CASES[case], workload.num_classes, device=device)
    return _with_tf32(contender) if case == TF32 else contender


def _with_tf32(contender: Contender) -> Contender:
    def call(logits: Tensor, target: Tensor) -> Tensor:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            return contender(logits, target)  # which computes the gradient, too
        finally:
            torch.set_float32_matmul_precision(before)

    return call


def _under_autocast(contender: Contender, device: torch.device) -> Contender:
    def call(logits: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return contender(logits, target)

    return call


def _figures(seconds: dict[str, list[float]], peaks: dict[str, float | None]) -> Row:
    """Return medians and ratios to plain PyTorch, or "out of memory" if that did not fit."""
    ours, plain = seconds["ours"], seconds.get("plain")
    row: Row = {"ms": milliseconds(ours), "peak_mib": peaks["ours"], "runs": len(ours)}
    if plain is None:
        return {**row, "plain_ms": "out of memory", "plain_peak_mib": "out of memory"}
    row["plain_ms"] = milliseconds(plain)
    row["ratio"] = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    row["plain_peak_mib"] = peaks["plain"]
    if peaks["ours"] is not None and peaks["plain"]:
        row["memory_ratio"] = peaks["ours"] / peaks["plain"]
    return row
