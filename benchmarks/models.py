"""Measure time and memory of our HRNet backbones against those of timm.

    python benchmarks/models.py
    python benchmarks/models.py --variants w18 --size 256 512 --cases train inference

Each line is measured in a process of its own; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from process_memory import memory_mib, reset_peak
from torch import Tensor, nn

from segtrain.models import BACKBONES

NUM_THREADS = 2
MEMORY_RUNS = 3
MEASURE = "_measure"  # the first argument of a process that measures one case
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Net = Callable[[Tensor], list[Tensor]]


def ours(variant: str, **params: Any) -> nn.Module:
    """Build our backbone."""
    return BACKBONES.build({"name": f"hrnet_{variant}", **params})


def timms(variant: str) -> nn.Module:
    """Build timm's backbone of the same name, with the same four branches."""
    import timm  # noqa: PLC0415  only some cases need timm

    name = {"w18_small_v1": "w18_small"}.get(variant, variant)
    trunk: nn.Module = timm.create_model(
        f"hrnet_{name}", features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
    )
    return trunk


# A case: the backbone, the backbone that it is compared with, and whether both are trained.
CASES: dict[str, tuple[Callable[[str], nn.Module], Callable[[str], nn.Module], bool]] = {
    "train": (ours, timms, True),
    "inference": (ours, timms, False),
    "activation checkpointing": (
        lambda variant: ours(variant, activation_checkpointing=True),
        ours,
        True,
    ),
}


def _run(net: nn.Module, images: Tensor, train: bool) -> float:
    """Return the seconds of a forward pass and, in training, a backward pass."""
    start = time.perf_counter()
    with torch.set_grad_enabled(train):
        branches = net(images)
        if train:
            torch.stack([branch.square().mean() for branch in branches]).sum().backward()
    seconds = time.perf_counter() - start
    net.zero_grad(set_to_none=True)
    return seconds


def _prepared(
    build: Callable[[str], nn.Module], variant: str, memory_format: str, train: bool
) -> nn.Module:
    torch.manual_seed(0)
    net = build(variant).train(train)
    return net.to(memory_format=FORMATS[memory_format])  # type: ignore[call-overload,no-any-return]


def measure_time(options: dict[str, Any]) -> dict[str, Any]:
    """Return medians in milliseconds, and the median of the pairs' ratios."""
    first, second, train = CASES[options["case"]]
    shared = (options["variant"], options["format"], train)
    nets = [_prepared(build, *shared) for build in (first, second)]
    images = _images(options)
    for net in nets:
        _run(net, images, train)
    pairs = [_pair(nets, images, train, turn) for turn in range(options["pairs"])]
    return {
        "ms": 1000 * statistics.median(pair[0] for pair in pairs),
        "other_ms": 1000 * statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def _pair(nets: list[nn.Module], images: Tensor, train: bool, turn: int) -> list[float]:
    """Return the seconds of both; they take turns at being first, since order may matter."""
    order = (0, 1) if turn % 2 == 0 else (1, 0)
    seconds = {index: _run(nets[index], images, train) for index in order}
    return [seconds[0], seconds[1]]


def measure_memory(options: dict[str, Any]) -> dict[str, Any]:
    """Measure the peak memory that the first full-size pass adds; None if it is not reported."""
    *builds, train = CASES[options["case"]]
    net = _prepared(builds[options["which"]], options["variant"], options["format"], train)
    _run(net, torch.rand(2, 3, 64, 64), train)  # starts threads and loads libraries
    images = _images(options)
    before = reset_peak()
    _run(net, images, train)
    after = memory_mib("VmHWM")
    known = before is not None and after is not None
    return {"peak_mib": after - before if known else None}


def _images(options: dict[str, Any]) -> Tensor:
    images = torch.rand(options["batch"], 3, *options["size"])
    return images.contiguous(memory_format=FORMATS[options["format"]])


def _apart(what: str, options: dict[str, Any]) -> dict[str, Any]:
    """Measure in a new process."""
    command = [sys.executable, __file__, MEASURE, what, json.dumps(options)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        return {"error": lines[-1].replace("|", "/")}
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _peak(options: dict[str, Any], which: int) -> float | None:
    found = [_apart("memory", {**options, "which": which}) for _ in range(MEMORY_RUNS)]
    peaks = [one.get("peak_mib") for one in found]
    return None if None in peaks else statistics.median(peaks)


def row(options: dict[str, Any]) -> str:
    """Measure a case; return its line of the table."""
    found = _apart("time", options)
    start = f"| {options['variant']} | {options['format']} | {options['case']} |"
    if "error" in found:
        return f"{start} {found['error']} | | | | | |"
    mine, others = (_peak(options, which) for which in (0, 1))
    memory = "n/a | n/a | n/a"
    if mine is not None and others is not None:
        memory = f"{mine:.0f} | {others:.0f} | {mine / others:.2f}"
    times = f"{found['ms']:.0f} | {found['other_ms']:.0f} | {found['ratio']:.2f}"
    return f"{start} {times} | {memory} |"


def main(arguments: list[str]) -> int:
    """Print the table; the exit code is 0."""
    if arguments[:1] == [MEASURE]:
        torch.set_num_threads(NUM_THREADS)
        measure = {"time": measure_time, "memory": measure_memory}[arguments[1]]
        print(json.dumps(measure(json.loads(arguments[2]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", nargs="+", default=["w18", "w48"])
    parser.add_argument("--size", nargs=2, type=int, default=[256, 512], help="height and width")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=8, help="timed calls of each of the two")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    given = parser.parse_args(arguments)
    lines = [
        f"{given.batch} images of {given.size[0]} x {given.size[1]}, torch {torch.__version__},"
        f" {NUM_THREADS} threads; the other backbone is timm's, or ours without checkpointing",
        "",
        "| backbone | format | case | ms | other ms | ratio | peak MiB | other MiB | ratio |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for variant in given.variants:
        for memory_format in given.formats:
            for case in given.cases:
                options = {"variant": variant, "format": memory_format, "case": case}
                shared = {"size": given.size, "batch": given.batch, "pairs": given.pairs}
                line = row({**options, **shared})
                lines.append(line)
                print(line, flush=True)
    if given.output is not None:
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
