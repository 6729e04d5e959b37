"""Measure the CPU seconds that segtrain needs to start, against ``import torch``.

    python benchmarks/startup.py
    python benchmarks/startup.py --runs 9 --output startup.md

Each run is a new process, and the commands take turns. The figures are the user and system seconds
of the process and its children, so other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = "import torch"
MISTYPED = "loss.gama=3 is refused"
COMMANDS: dict[str, Sequence[str]] = {
    BASE: ("-c", "import torch"),
    "import segtrain": ("-c", "import segtrain"),
    MISTYPED: (str(ROOT / "tools" / "train.py"), "loss=focal", "loss.gama=3"),
}
# Goals: seconds of the import beyond torch, and seconds of the refusal in total.
IMPORT_LIMIT, MISTYPED_LIMIT = 0.4, 3.0
REFUSED = 2  # the exit code for a mistake in the configuration


def cpu_seconds(command: Sequence[str], expected_code: int) -> float:
    """Return the CPU seconds of a command in a new process.

    Raises:
        RuntimeError: If the exit code is not `expected_code`.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode != expected_code:
        raise RuntimeError(f"{command} ended with {ended.returncode}: {ended.stderr[-500:]}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(runs: int) -> dict[str, float]:
    """Return the median of each command; the first run, which fills caches, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(runs + 1):
        for name, command in COMMANDS.items():
            taken = cpu_seconds(command, REFUSED if name == MISTYPED else 0)
            if number:
                seconds[name].append(taken)
    return {name: statistics.median(found) for name, found in seconds.items()}


def table(medians: Mapping[str, float]) -> list[str]:
    """Format the lines of a markdown table."""
    lines = ["| command | CPU s | more than torch | goal |", "|---|---:|---:|---|"]
    for name, seconds in medians.items():
        more = seconds - medians[BASE]
        goal = {
            "import segtrain": _goal(more, IMPORT_LIMIT, "more"),
            MISTYPED: _goal(seconds, MISTYPED_LIMIT, "in all"),
        }.get(name, "")
        lines.append(f"| {name} | {seconds:.2f} | {more:+.2f} | {goal} |")
    return lines


def _goal(value: float, limit: float, of_what: str) -> str:
    return f"<= {limit} {of_what}, {'yes' if value <= limit else '**no**'}"


def main(arguments: list[str]) -> int:
    """Measure and print the table; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each command; default 5")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args(arguments)
    text = "\n".join(table(measure(options.runs)))
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
