"""Measure how long a run with a long list of files takes to start, and its memory.

    python benchmarks/lists.py                                   # 100,000: some minutes
    python benchmarks/lists.py --entries 100000 1000000          # and a million
    python benchmarks/lists.py --files /data/small               # keep the files for the next time

Each entry is an image and a mask of 32 x 32 pixels, in files of their own. The command is run to
its first step with 10 entries, and with a list twice: with an empty cache and with a warm one.
Building the dataset alone is measured in a process of its own, also twice.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PER_FOLDER = 1000
MOST_TRAINED = 200_000  # entries; the first scan of a million takes a quarter of an hour
FEW, NUM_VAL = 10, 10
# Seconds that a warm start may add to that of a short list, and of building a dataset; MB of it.
START_LIMIT, BUILD_LIMIT, MEMORY_LIMIT = 5.0, 30.0, 300.0
BUILD = """
import json, sys, time
from segtrain.data.datasets.lists import ListDataset
sys.path.insert(0, sys.argv[3])
from process_memory import memory_mib, reset_peak
before, start = reset_peak(), time.perf_counter()
dataset = ListDataset(root=sys.argv[1], train={"list": sys.argv[2]}, num_classes=3)
seconds = time.perf_counter() - start
print(json.dumps([seconds, memory_mib("VmRSS") - before, memory_mib("VmHWM") - before]))
"""


def write_files(root: Path, entries: int) -> None:
    """Write images, masks and lists; files that exist are kept."""
    for start in range(0, entries + NUM_VAL, PER_FOLDER):
        folders = [root / kind / f"{start // PER_FOLDER:04d}" for kind in ("images", "masks")]
        if all(folder.is_dir() for folder in folders):
            continue
        for folder in folders:
            folder.mkdir(parents=True)
        for index in range(start, start + PER_FOLDER):
            image = np.full((32, 32, 3), (index & 255, index >> 8 & 255, index >> 16), np.uint8)
            mask = np.full((32, 32), index % 3, np.uint8)
            for folder, pixels in zip(folders, (image, mask), strict=True):
                (folder / f"{index:07d}.png").write_bytes(_png(pixels))
    _write_list(root / "val.txt", range(NUM_VAL))
    for count in (FEW, entries):
        _write_list(root / f"train_{count}.txt", range(NUM_VAL, NUM_VAL + count))


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _write_list(path: Path, indices: range) -> None:
    names = (f"{index // PER_FOLDER:04d}/{index:07d}.png" for index in indices)
    path.write_text("".join(f"images/{name}\tmasks/{name}\n" for name in names))


def start_seconds(root: Path, entries: int, cache: Path) -> float:
    """Return the seconds of the command with one step and an evaluation of ten images."""
    words = [
        "dataset=list", f"dataset.root={root}", f"dataset.train.list=train_{entries}.txt",
        "dataset.val.list=val.txt", "dataset.num_classes=3", "dataset.allow_overlap=true",
        f"plugins=[{ROOT / 'tests' / 'tiny.py'}]", "model=tiny", "trainer.max_steps=1",
        "trainer.batch_size=2", "augmentation.crop_size=[32,32]", "trainer.device=cpu",
        "loader.num_workers=0", "trainer.log_images=0",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        _run([*("-m", "segtrain", "train"), *words, f"run_dir={folder}/run"], cache)
        return time.perf_counter() - started


def build_cost(root: Path, entries: int, cache: Path) -> tuple[float, float, float]:
    """Return the seconds, the memory and the peak of memory in MB of building the dataset."""
    command = ["-c", BUILD, str(root), f"train_{entries}.txt", str(ROOT / "benchmarks")]
    seconds, memory, peak = json.loads(_run(command, cache).splitlines()[-1])
    return seconds, memory * 1.048576, peak * 1.048576


def _run(command: Sequence[str], cache: Path) -> str:
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SEGTRAIN_CACHE": str(cache)}
    ended = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"{command} ended with {ended.returncode}: {ended.stderr[-500:]}")
    return ended.stdout


def measure(root: Path, entries: int) -> list[str]:
    """Return the lines of the table for one number of entries."""
    write_files(root, entries)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        caches = [Path(folder, name) for name in ("start", "build")]
        start_seconds(root, FEW, caches[0])
        few = start_seconds(root, FEW, caches[0])
        for state in ("cold", "warm"):
            start = start_seconds(root, entries, caches[0]) if entries <= MOST_TRAINED else None
            more = None if start is None else start - few
            lines.append(row(entries, state, start, more, build_cost(root, entries, caches[1])))
    return lines


def row(
    entries: int,
    state: str,
    start: float | None,
    more: float | None,
    build: tuple[float, float, float],
) -> str:
    """Format a line; goals are those of a warm start, and of building and its memory.

    Example:
        >>> row(100000, "warm", 6.2, 1.2, (1.0, 20.0, 25.0))
        '| 100,000 | warm | 6.2 | +1.2, goal 5: yes | 1.0 | 20 | 25 | yes |'
    """
    goal = ""
    if more is not None and state == "warm":
        goal = f", goal {START_LIMIT:g}: {_met(more <= START_LIMIT)}"
    timed = "| |" if start is None or more is None else f"| {start:.1f} | {more:+.1f}{goal} |"
    seconds, memory, peak = build
    met = _met(seconds <= BUILD_LIMIT and peak <= MEMORY_LIMIT)
    return f"| {entries:,} | {state} {timed} {seconds:.1f} | {memory:.0f} | {peak:.0f} | {met} |"


def _met(is_met: bool) -> str:
    return "yes" if is_met else "**no**"


def main(arguments: list[str]) -> int:
    """Measure and print the table; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000])
    parser.add_argument("--files", type=Path, help="where to write the files; default: deleted")
    options = parser.parse_args(arguments)
    print("| entries | cache | start, s | more than 10 entries, s | building, s | MB | peak, MB |"
          " goal |\n|---:|---|---:|---:|---:|---:|---:|---|")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for entries in options.entries:
            print(*measure(options.files or Path(folder), entries), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
