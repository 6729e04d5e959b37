"""Kill a training run at random moments, and resume it, until it ends.

Usage: killer.py KILLS LONGEST SEED WORDS

LONGEST is the largest number of seconds before a kill. Each attempt is a fork of this process, so
that torch is imported once. The last line is a JSON with the number of kills, how many attempts
ended with a checkpoint, and the seconds of the last attempt up to its first checkpoint and its end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from segtrain.cli.main import run_command


def attempt(words: list[str]) -> int:
    """Start the run in another process; return its number."""
    pid = os.fork()
    if pid == 0:
        os._exit(run_command("train", words))
    return pid


def wait(pid: int, checkpoint: Path, limit: float) -> tuple[float | None, int | None]:
    """Wait for a checkpoint and for the end; None for what did not happen within the limit."""
    begun, first = time.monotonic(), None
    while time.monotonic() - begun < limit:
        if first is None and checkpoint.exists():
            first = time.monotonic() - begun
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return first, status
        time.sleep(0.005)
    return first, None


def main() -> None:
    """Kill the run until it has been killed often enough, then let it end."""
    torch.set_num_threads(1)  # threads do not survive a fork
    kills, longest, seed, *words = sys.argv[1:]
    moments = random.Random(int(seed))
    run_dir = Path(next(word for word in words if word.startswith("run_dir=")).partition("=")[2])
    checkpoint = run_dir / "checkpoints/last.pt"
    started = done = 0
    while True:
        begun = time.monotonic()
        pid = attempt([*words, "resume=auto"])
        is_last = done == int(kills)
        limit = 300.0 if is_last else moments.uniform(0.05, float(longest))
        first, status = wait(pid, checkpoint, limit)
        if status is not None:
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        done += 1
        started += checkpoint.exists()
    found = {
        "kills": done,
        "after a checkpoint": started,
        "code": os.waitstatus_to_exitcode(status),
    }
    found |= {"first": first, "seconds": time.monotonic() - begun}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
