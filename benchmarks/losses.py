"""Measure time and memory of the losses against plain PyTorch and other libraries.

    python benchmarks/losses.py
    python benchmarks/losses.py --workload W1 --cases cross_entropy dice --peers

Each number is measured in a process of its own; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from contenders import BASELINE, OURS, PEERS, is_there, other_losses
from measuring import NUM_THREADS, measure
from workloads import WORKLOADS

MEASURE = "_measure"  # the first argument of a process that measures one case
TOLERANCE = 1e-5  # relative, of values and gradients
MEMORY_RUNS = 3
ERROR_LENGTH = 90

# The largest ratios of time and of memory to plain PyTorch that meet the target.
TARGETS: dict[str, tuple[float, float]] = {
    "cross_entropy": (0.6, 1 / 12),
    "focal": (0.6, 1 / 12),
    "ohem": (0.6, 1 / 12),
    "dice": (0.9, 1 / 12),
    "jaccard": (0.9, 1 / 12),
    "tversky": (0.9, 1 / 12),
    "sum": (1.2, 1 / 12),
    "lovasz_softmax": (5.0, 2.0),
}
COLUMNS = [
    *("case", "ms", "x plain", "target", "fastest x plain", "peak MiB", "x plain", "target"),
    *("value", "plain value", "error of value / gradient"),
]


@dataclass
class Result:
    """The measurements of a case; if it failed, `found` is incomplete and `error` says why."""

    case: str
    found: dict[str, Any] = field(default_factory=dict)
    plain_mib: float | None = None
    error: str = ""

    @property
    def memory_ratio(self) -> float | None:
        """The ratio to the baseline's peak memory; None if the system does not report it."""
        peak = self.found.get("peak_mib")
        return peak / self.plain_mib if peak is not None and self.plain_mib else None

    @property
    def agrees(self) -> bool:
        """Whether value and gradient match the plain formula; True for a case without one."""
        errors = [self.found.get(key, 0.0) for key in ("value_error", "gradient_error")]
        return all(error <= TOLERANCE for error in errors)  # False for NaN

    def row(self) -> str:
        """A line of the table."""
        if self.error:
            return _line([self.case, self.error, *[""] * (len(COLUMNS) - 2)])
        time_target, memory_target = TARGETS.get(self.case, (None, None))
        cells = [
            self.case,
            f"{self.found['ms']:.0f}",
            f"{self.found['ratio']:.2f}",
            _target(self.found["ratio"], time_target),
            f"{self.found['fastest_ratio']:.2f}",
            _number(self.found["peak_mib"], ".0f"),
            _number(self.memory_ratio, ".3f"),
            _target(self.memory_ratio, memory_target),
            f"{self.found['value']:.6f}",
            _number(self.found.get("plain_value"), ".6f", missing=""),
            self._agreement(),
        ]
        return _line(cells)

    def summary(self) -> str:
        """A short text for the progress line."""
        if self.error:
            return self.error
        memory = _number(self.memory_ratio, ".3f")
        return f"{self.found['ratio']:.2f} x time, {memory} x memory"

    def _agreement(self) -> str:
        if "value_error" not in self.found:
            return "" if self.found["has_gradient"] else "gradient is **zero**"
        value, gradient = self.found["value_error"], self.found.get("gradient_error")
        return f"{value:.0e} / {_number(gradient, '.0e')}, {_yes(self.agrees)}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, form: str, missing: str = "n/a") -> str:
    return missing if value is None else format(value, form)


def _target(value: float | None, limit: float | None) -> str:
    if limit is None:
        return ""
    return f"<= {limit:.2g}, {'n/a' if value is None else _yes(value <= limit)}"


def _yes(is_met: bool) -> str:
    return "yes" if is_met else "**no**"


def measure_apart(what: str, case: str, workload: str, pairs: int) -> dict[str, Any]:
    """Run :func:`measuring.measure` in a new process; return ``{"error": ...}`` if it fails."""
    command = [sys.executable, __file__, MEASURE, what, case, workload, str(pairs)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode < 0:
        return {"error": f"ended by signal {-ended.returncode}"}
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        return {"error": lines[-1].replace("|", "/")[:ERROR_LENGTH]}
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def measure_peak(case: str, workload: str, pairs: int) -> dict[str, Any]:
    """Return the median peak of several processes, since the overhead of the heap varies."""
    found = [measure_apart("memory", case, workload, pairs) for _ in range(MEMORY_RUNS)]
    failed = [one for one in found if "error" in one or one["peak_mib"] is None]
    if failed:
        return failed[0]
    return {"peak_mib": statistics.median(one["peak_mib"] for one in found)}


def run_case(case: str, workload: str, pairs: int, plain_mib: float | None) -> Result:
    """Measure time and memory of one case."""
    if case not in PEERS and not is_there(case):
        return Result(case, error="not registered")
    found = measure_apart("time", case, workload, pairs)
    if "error" not in found:
        found |= measure_peak(case, workload, pairs)
    return Result(case, found, plain_mib, found.get("error", ""))


def run_workload(workload: str, cases: list[str], pairs: int) -> list[Result]:
    """Measure all cases on one workload, with a line of progress for each."""
    plain = measure_peak(BASELINE, workload, pairs)
    if "error" in plain:
        raise SystemExit(f"plain PyTorch failed on {workload}: {plain['error']}")
    results = []
    for number, case in enumerate(cases, 1):
        start = time.monotonic()
        _progress(f"{workload} {number}/{len(cases)} {case}: ")
        results.append(run_case(case, workload, pairs, plain["peak_mib"]))
        _progress(f"{results[-1].summary()} ({time.monotonic() - start:.0f} s)\n")
    return [_baseline_result(results, plain["peak_mib"]), *results]


def _progress(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _baseline_result(results: list[Result], peak_mib: float | None) -> Result:
    """Return the row of plain PyTorch; its time is the median over the cases timed with it."""
    beside = [result.found for result in results if not result.error]
    if not beside:
        return Result(BASELINE, error="no case was measured")
    found = {
        "ms": statistics.median(other["baseline_ms"] for other in beside),
        "ratio": 1.0,
        "fastest_ratio": 1.0,
        "peak_mib": peak_mib,
        "value": beside[0]["baseline_value"],
        "has_gradient": True,
    }
    return Result(BASELINE, found, peak_mib)


def table(workload: str, results: list[Result]) -> str:
    """Format a heading and a markdown table."""
    heading = f"### {workload}: {WORKLOADS[workload]}"
    rule = "|" + "---|" * len(COLUMNS)
    return "\n".join([heading, "", _line(COLUMNS), rule, *(result.row() for result in results), ""])


def surroundings() -> str:
    """Describe the machine: version of torch, threads, cores and load."""
    load = f", load average before {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"torch {torch.__version__}, {NUM_THREADS} threads on {os.cpu_count()} cores{load}"


def chosen_cases(options: argparse.Namespace) -> list[str]:
    """Return the cases of this package, then the same losses of the installed peers."""
    cases = list(options.cases or OURS)
    if options.all:
        cases += [name for name in other_losses() if name not in cases]
    if options.peers:
        cases += [n for n, peer in PEERS.items() if peer.installed and peer.loss in cases]
    return cases


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="default: both")
    add("--cases", nargs="+", metavar="NAME", help=f"losses; default: {', '.join(OURS)}")
    add(
        "--all",
        action="store_true",
        help="also every other registered loss, with its default arguments",
    )
    add(
        "--peers",
        action="store_true",
        help="also the losses of smp, monai and kornia that are installed",
    )
    add(
        "--pairs",
        type=int,
        default=7,
        help="timed calls of each case and of plain PyTorch; default 7",
    )
    add("--output", type=Path, help="also write the tables to this file")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure and print the tables; return 1 if a loss does not match its plain formula."""
    if arguments[:1] == [MEASURE]:
        what, case, workload, pairs = arguments[1:]
        print(json.dumps(measure(what, case, workload, int(pairs))))
        return 0
    options = parse(arguments)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    cases, where = chosen_cases(options), surroundings()
    found = {name: run_workload(name, cases, options.pairs) for name in options.workload}
    text = "\n".join([f"{where}.\n", *(table(name, results) for name, results in found.items())])
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return int(not all(result.agrees for results in found.values() for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
