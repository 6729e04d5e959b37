"""Time, memory and correctness of one contender, in a process that measures nothing else."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any

import torch
from contenders import PEERS, PLAIN, SELECTIVE, YARDSTICK, Contender, build, ours, upsampled
from process_memory import memory_mib, reset_peak
from torch import Tensor
from workloads import WORKLOADS, Workload

from segtrain import ConfigError

NUM_THREADS = 2
SLOW_SECONDS = 6.0  # a contender that takes longer is measured in fewer pairs
SLOW_PAIRS = 3


def measure_time(case: str, workload_name: str, pairs: int) -> dict[str, Any]:
    """How long the contender takes, in turns with the yardstick, and what it returns.

    Args:
        case: A name that :func:`contenders.build` knows.
        workload_name: Of ``WORKLOADS``.
        pairs: How many times each of the two is called after a warm-up.

    Returns:
        ``ms`` and ``yardstick_ms``, medians; ``ratio``, the median of the pairs' ratios, and
        ``fastest_ratio``, of the fastest calls; ``value``, ``yardstick_value`` and
        ``has_gradient``; for a case of ``PLAIN``, what :func:`_agreement` finds.
    """
    workload = WORKLOADS[workload_name]
    logits, target = workload.make()
    yardstick = build(YARDSTICK, workload.num_classes)
    contender = build(case, workload.num_classes)
    _, yardstick_value = _timed(yardstick, logits, target)
    warm_up, value = _timed(contender, logits, target)
    yardstick_seconds, seconds = [], []
    for _ in range(min(pairs, SLOW_PAIRS) if warm_up > SLOW_SECONDS else pairs):
        yardstick_seconds.append(_timed(yardstick, logits, target)[0])
        seconds.append(_timed(contender, logits, target)[0])
    ratios = [mine / plain for mine, plain in zip(seconds, yardstick_seconds, strict=True)]
    assert logits.grad is not None
    return {
        "ms": 1000 * statistics.median(seconds),
        "yardstick_ms": 1000 * statistics.median(yardstick_seconds),
        "ratio": statistics.median(ratios),
        "fastest_ratio": min(seconds) / min(yardstick_seconds),
        "value": value,
        "yardstick_value": yardstick_value,
        "has_gradient": bool(logits.grad.any()),
        **(_agreement(case, logits, target, value) if case in PLAIN else {}),
    }


def measure_memory(case: str, workload_name: str) -> dict[str, Any]:
    """Peak memory that the first call of full size adds, the gradient of the logits included.

    Returns:
        ``peak_mib``; None where the system does not tell.
    """
    workload = WORKLOADS[workload_name]
    _load_libraries(case, workload)
    logits, target = workload.make()
    contender = build(case, workload.num_classes)
    before = reset_peak()
    contender(logits, target).backward()
    after = memory_mib("VmHWM")
    assert logits.grad is not None
    known = before is not None and after is not None
    return {"peak_mib": after - before if known else None}


def _timed(contender: Contender, logits: Tensor, target: Tensor) -> tuple[float, float]:
    """Seconds of a forward and a backward, and the value."""
    logits.grad = None
    start = time.perf_counter()
    loss = contender(logits, target)
    loss.backward()
    return time.perf_counter() - start, loss.item()


def _agreement(case: str, logits: Tensor, target: Tensor, value: float) -> dict[str, Any]:
    """How far value and ``logits.grad`` are from plain PyTorch in float64, relative to the largest.

    Returns:
        ``plain_value``, ``value_error`` and, unless rounding decides which pixels count,
        ``gradient_error``.
    """
    exact = logits.detach().double().requires_grad_()
    plain = upsampled(PLAIN[case])(exact, target)
    plain.backward()
    found = {
        "plain_value": plain.item(),
        "value_error": abs(value - plain.item()) / abs(plain.item()),
    }
    if case not in SELECTIVE:
        assert exact.grad is not None
        assert logits.grad is not None
        distance = (logits.grad - exact.grad).abs().max() / exact.grad.abs().max()
        found["gradient_error"] = distance.item()
    return found


def _load_libraries(case: str, workload: Workload) -> None:
    """Call the contender on few pixels, so that what is loaded once is not counted as its own."""
    tiny = workload.tiny()
    contenders = [build(YARDSTICK, tiny.num_classes), build(case, tiny.num_classes)]
    if case != YARDSTICK and case not in PEERS:
        # Few pixels are upsampled at once unless told otherwise.
        with contextlib.suppress(ConfigError):  # not every loss runs in strips
            contenders.append(ours(case, tiny.num_classes, strip_rows=16))
    for contender in contenders:
        contender(*tiny.make()).backward()
    # The threads start, and get their work space, with the first operations that are worth it.
    product = torch.rand(600, 600) @ torch.rand(600, 600)
    torch.bmm(product.view(4, 150, 600), product.view(4, 600, 150)).exp_()


def measure(what: str, case: str, workload_name: str, pairs: int) -> dict[str, Any]:
    """``time`` or ``memory`` of a case."""
    torch.set_num_threads(NUM_THREADS)
    if what == "memory":
        return measure_memory(case, workload_name)
    return measure_time(case, workload_name, pairs)
