"""Kill a training run at random moments, and resume it, until it ends.

    killer.py KILLS LONGEST SEED WORDS

LONGEST is the largest number of seconds before a kill. Each attempt is a fork of this process, so
that torch is imported once. The last line is a JSON with the number of kills, and how many attempts
ended with a checkpoint.
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


def main() -> None:
    """Kill the run until it has been killed often enough, then let it end."""
    torch.set_num_threads(1)  # threads do not survive a fork
    kills, longest, seed, *words = sys.argv[1:]
    moments = random.Random(int(seed))
    run_dir = Path(next(word for word in words if word.startswith("run_dir=")).partition("=")[2])
    started = done = 0
    while True:
        pid = attempt([*words, "resume=auto"])
        if done < int(kills):
            time.sleep(moments.uniform(0.05, float(longest)))
            os.kill(pid, signal.SIGKILL)
            done += 1
        _, status = os.waitpid(pid, 0)
        started += (run_dir / "checkpoints/last.pt").exists()
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:
            break
    sys.stdout.write(
        json.dumps({"kills": done, "after a checkpoint": started, "code": code}) + "\n"
    )


if __name__ == "__main__":
    main()
