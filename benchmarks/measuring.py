"""Measure time, memory and correctness of one contender, in a process of its own."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any

import torch
from contenders import BASELINE, PEERS, PLAIN, SELECTIVE, Contender, build, ours, upsampled
from process_memory import memory_mib, reset_peak
from torch import Tensor
from workloads import WORKLOADS, Workload

from segtrain import ConfigError

NUM_THREADS = 2
SLOW_SECONDS = 6.0  # a contender that takes longer is timed in fewer pairs
SLOW_PAIRS = 3


def measure_time(case: str, workload_name: str, pairs: int) -> dict[str, Any]:
    """Time a contender in turns with the baseline.

    Args:
        case: A name that :func:`contenders.build` accepts.
        workload_name: A key of ``WORKLOADS``.
        pairs: Number of timed calls of each of the two, after a warm-up.

    Returns:
        The medians ``ms`` and ``baseline_ms``; ``ratio``, the median of the pairs' ratios;
        ``fastest_ratio``, the ratio of the fastest calls; ``value``, ``baseline_value`` and
        ``has_gradient``; for a case in ``PLAIN`` also the result of :func:`_agreement`.
    """
    workload = WORKLOADS[workload_name]
    logits, target = workload.make()
    baseline = build(BASELINE, workload.num_classes)
    contender = build(case, workload.num_classes)
    _, baseline_value = _timed(baseline, logits, target)
    warm_up, value = _timed(contender, logits, target)
    baseline_seconds, seconds = [], []
    for _ in range(min(pairs, SLOW_PAIRS) if warm_up > SLOW_SECONDS else pairs):
        baseline_seconds.append(_timed(baseline, logits, target)[0])
        seconds.append(_timed(contender, logits, target)[0])
    ratios = [mine / plain for mine, plain in zip(seconds, baseline_seconds, strict=True)]
    assert logits.grad is not None
    return {
        "ms": 1000 * statistics.median(seconds),
        "baseline_ms": 1000 * statistics.median(baseline_seconds),
        "ratio": statistics.median(ratios),
        "fastest_ratio": min(seconds) / min(baseline_seconds),
        "value": value,
        "baseline_value": baseline_value,
        "has_gradient": bool(logits.grad.any()),
        **(_agreement(case, logits, target, value) if case in PLAIN else {}),
    }


def measure_memory(case: str, workload_name: str) -> dict[str, Any]:
    """Measure the peak memory that the first full-size call adds, including the logits' gradient.

    Returns:
        ``peak_mib``; None if the system does not report it.
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
    """Return the seconds of a forward and a backward pass, and the value."""
    logits.grad = None
    start = time.perf_counter()
    loss = contender(logits, target)
    loss.backward()
    return time.perf_counter() - start, loss.item()


def _agreement(case: str, logits: Tensor, target: Tensor, value: float) -> dict[str, Any]:
    """Compare value and ``logits.grad`` with plain PyTorch in float64.

    Returns:
        ``plain_value``, ``value_error`` and, unless rounding decides which pixels count,
        ``gradient_error``; the errors are relative to the largest value.
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
    """Call the contender on few pixels, so that loading libraries is not part of its memory."""
    tiny = workload.tiny()
    contenders = [build(BASELINE, tiny.num_classes), build(case, tiny.num_classes)]
    if case != BASELINE and case not in PEERS:
        # With strip_rows="auto" so few pixels are upsampled as a whole.
        with contextlib.suppress(ConfigError):  # not every loss can run in strips
            contenders.append(ours(case, tiny.num_classes, strip_rows=16))
    for contender in contenders:
        contender(*tiny.make()).backward()
    # Threads start, and allocate their buffers, with the first large operations.
    product = torch.rand(600, 600) @ torch.rand(600, 600)
    torch.bmm(product.view(4, 150, 600), product.view(4, 600, 150)).exp_()


def measure(what: str, case: str, workload_name: str, pairs: int) -> dict[str, Any]:
    """Measure ``time`` or ``memory`` of a case."""
    torch.set_num_threads(NUM_THREADS)
    if what == "memory":
        return measure_memory(case, workload_name)
    return measure_time(case, workload_name, pairs)
