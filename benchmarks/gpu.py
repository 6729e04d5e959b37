"""Check and measure segtrain on one GPU, offline, in at most ten minutes.

    python benchmarks/gpu.py        # or: make gpu
    CAMVID_ROOT=data/camvid python benchmarks/gpu.py --out results
    python benchmarks/gpu.py --dry  # tiny sizes on the CPU, as without a GPU

Four parts run in this order, each in its own process and with a time cap: the checks (those of the
tests marked ``gpu``), the losses, training throughput, and CamVid. A part that fails or reaches its
cap does not stop the others. ``gpu.json`` and ``gpu.md`` are rewritten after each part.

The command needs torch 2.10 or later, NumPy, Pillow, rich and PyYAML. It needs neither pytest,
Hydra, OmegaConf, albumentations, torchvision nor TensorBoard. Without OpenCV a slower stand-in
reads the images, and losses that need distances are skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

STARTED = time.monotonic()  # the imports below take seconds
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # use this checkout, even if segtrain is not installed

import gpu_checks  # noqa: E402
import gpu_report  # noqa: E402
import opencv_stand_in  # noqa: E402
import torch  # noqa: E402
from gpu_parts import Item, Row, Setting, free_memory, synchronize  # noqa: E402

from segtrain.errors import describe_error, is_out_of_memory, one_line  # noqa: E402

# The shares of the time. A part that ends early leaves the rest of its time to the next parts.
PARTS = {"checks": 125.0, "losses": 95.0, "training": 100.0, "camvid": 280.0}
MODULES = {"losses": "gpu_losses", "training": "gpu_training", "camvid": "gpu_camvid"}
MINUTES = 10.0
GRACE = 12.0  # seconds between asking a part to stop at its cap and killing it
BROKEN = 3  # exit code of a part after a CUDA error that makes all later calls fail
DRY = "dry pass at tiny sizes, the figures mean nothing"
Emit = Callable[[dict[str, Any]], None]


# ---------------------------------------------------------------------- in the process of a part


def run_part(name: str, setting: Setting, path: Path) -> int:
    """Run the items of a part that no earlier process has started; append their rows to `path`."""
    started = {event["start"] for event in read_events(path) if "start" in event}
    with path.open("a", encoding="utf-8") as file:
        file.write("\n")  # after a line that was cut short

        def emit(event: dict[str, Any]) -> None:
            file.write(json.dumps(event) + "\n")
            file.flush()

        emit({"machine": gpu_report.describe_device(setting.device)})
        for item, run in part_items(name, setting).items():
            if item in started:
                continue
            if setting.left <= 0:
                emit({"capped": True})
                return 0
            emit({"start": item})
            if not _run_item(item, run, setting, emit):
                return BROKEN
        emit({"end": True})
    return 0


def part_items(name: str, setting: Setting) -> dict[str, Item]:
    """Return the items of a part by name."""
    if name == "checks":
        return {key: partial(_checked, check) for key, check in gpu_checks.checks().items()}
    items: dict[str, Item] = importlib.import_module(MODULES[name]).items(setting)
    return items


def _checked(check: gpu_checks.Check, setting: Setting) -> list[Row]:
    start = time.monotonic()
    check(setting.device)
    return [{"seconds": time.monotonic() - start}]


def _run_item(item: str, run: Item, setting: Setting, emit: Emit) -> bool:
    """Emit the rows of an item, or its error; return whether the device still works."""
    try:
        for row in run(setting):
            emit({"row": {"item": item, "state": "ok", **row}})
        synchronize(setting.device)
    except gpu_checks.Skipped as reason:
        emit({"row": {"item": item, "state": "skipped", "error": str(reason)}})
    except ModuleNotFoundError as error:
        emit({"row": {"item": item, "state": "skipped", "error": f"{error.name} is not installed"}})
    except Exception as error:  # noqa: BLE001  the next item runs in any case
        state = "out of memory" if is_out_of_memory(error) else "failed"
        emit({"row": {"item": item, "state": state, "error": describe_error(error)}})
    try:
        synchronize(setting.device)
        free_memory(setting.device)
    except RuntimeError:
        return False
    return True


# ---------------------------------------------------------------------- in the main process


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the lines that a part has written, without those that a kill has cut short."""
    events = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


def start_part(name: str, seconds: float, options: argparse.Namespace) -> gpu_report.Part:
    """Run a part in its own process until it ends or its time is up.

    After a crash another process runs the remaining items.
    """
    events, log = (options.out / "parts" / f"{name}.{kind}" for kind in ("jsonl", "log"))
    events.parent.mkdir(parents=True, exist_ok=True)
    for path in (events, log):
        path.unlink(missing_ok=True)
    start = time.monotonic()
    code: int | None = -1
    started: set[str] = set()
    while code and (left := seconds - (time.monotonic() - start)) > 0:
        code = _run_process(name, left, log, options)
        if code:
            before, started = started, _note_crash(events, code, log)
            if started == before:  # the process crashes before the first item
                break
    took = time.monotonic() - start
    return gpu_report.summarize(name, read_events(events), code, took, last_line(log))


def _note_crash(path: Path, code: int, log: Path) -> set[str]:
    """Add a row for the item that ended a process; return all items that were started."""
    events = read_events(path)
    started = [event["start"] for event in events if "start" in event]
    ended = {event["row"]["item"] for event in events if "row" in event}
    if started and started[-1] not in ended:
        error = f"the process ended with code {code}: {one_line(last_line(log))}"
        row = {"item": started[-1], "state": "failed", "error": error}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": row}) + "\n")
    return set(started)


def _run_process(name: str, seconds: float, log: Path, options: argparse.Namespace) -> int | None:
    """Run one process of a part; return its exit code, or None if it reached the cap."""
    command = [sys.executable, __file__, "--part", name, "--seconds", f"{seconds:.1f}"]
    command += ["--out", str(options.out), *(["--dry"] if options.dry else [])]
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # training stops after the current step
        except BaseException:
            process.kill()
            process.wait()
            raise
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return None


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def run_all(options: argparse.Namespace) -> int:
    """Run the parts; return 1 if one of them failed."""
    end = STARTED + 60 * options.minutes
    report = gpu_report.Report(dry=options.dry, minutes=options.minutes)
    if options.dry:
        print(DRY if torch.cuda.is_available() else f"no GPU found: {DRY}", flush=True)
    chosen = [name for name in PARTS if name in options.parts]
    for index, name in enumerate(chosen):
        shares = [PARTS[other] for other in chosen[index:]]
        left = max(end - time.monotonic() - GRACE, 0.0)
        part = start_part(name, left * shares[0] / sum(shares), options)
        report.parts.append(part)
        report.write(options.out)
        print(f"{name}: {part.summary}", flush=True)
    print(f"written: {options.out / 'gpu.json'}, {options.out / 'gpu.md'}")
    return int(any(part.state == "failed" for part in report.parts))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "outputs" / "gpu", help="default: outputs/gpu")
    add("--minutes", type=float, default=MINUTES, help="time cap of all parts together; default 10")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all four")
    add("--dry", action="store_true", help="tiny sizes on the CPU")
    add("--part", choices=PARTS, help=argparse.SUPPRESS)  # for the process of a part
    add("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    options.dry = options.dry or not torch.cuda.is_available()
    return options


def main(arguments: list[str]) -> int:
    """Run all parts, or one part in this process."""
    opencv_stand_in.install()
    options = parse(arguments)
    if options.part is None:
        return run_all(options)
    device = torch.device("cpu") if options.dry else torch.device("cuda", 0)
    if options.dry:
        torch.set_num_threads(1)  # more threads do not help at tiny sizes
    setting = Setting(device, options.seconds, options.dry)
    return run_part(options.part, setting, options.out / "parts" / f"{options.part}.jsonl")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
