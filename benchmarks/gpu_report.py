"""The results of ``benchmarks/gpu.py`` as JSON and as markdown tables."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gpu_camvid
import gpu_losses
import gpu_training
import opencv_stand_in
import torch

import segtrain
from segtrain.errors import one_line
from segtrain.files import write_text

ROOT = Path(__file__).resolve().parents[1]
CHECK_COLUMNS = {"item": "check", "state": "state", "error": "why"}
TABLES: dict[str, tuple[str, Mapping[str, str]]] = {
    "checks": ("Checks, those of the tests marked `gpu`", CHECK_COLUMNS),
    "losses": (gpu_losses.TITLE, gpu_losses.COLUMNS),
    "training": (gpu_training.TITLE, gpu_training.COLUMNS),
    "camvid": (gpu_camvid.TITLE, gpu_camvid.COLUMNS),
}


@dataclass
class Part:
    """The results of one part.

    Attributes:
        name: A key of ``TABLES``.
        state: ``done``; ``failed`` if an item failed; ``capped`` if the time was up before the end;
            ``skipped`` if no item could run.
        seconds: The duration of the part, including the start of its process.
        rows: One mapping per measurement, in order, with ``item`` and ``state``.
        error: Why the part failed or was skipped.
        machine: The device, from :func:`describe_device`.
    """

    name: str
    state: str
    seconds: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line for the terminal."""
        counts = Counter(row["state"] for row in self.rows)
        counted = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no rows"
        reason = f"; {self.error}" if self.error else ""
        return f"{self.state} in {self.seconds:.0f} s ({counted}){reason}"


@dataclass
class Report:
    """The results of all parts so far."""

    dry: bool
    minutes: float
    parts: list[Part] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``gpu.json`` and ``gpu.md`` atomically."""
        content = {"dry": self.dry, "minutes": self.minutes, **self._surroundings()}
        content["parts"] = [asdict(part) for part in self.parts]
        write_text(folder / "gpu.json", json.dumps(content, indent=2) + "\n")
        write_text(folder / "gpu.md", self._markdown(content))

    def _surroundings(self) -> dict[str, Any]:
        device = next((part.machine for part in self.parts if part.machine), {})
        return {
            "device": device,
            "driver": driver_version(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "torch": torch.__version__,
            "opencv": opencv_stand_in.install(),
            "segtrain": segtrain.__version__,
            "commit": git_commit(),
        }

    def _markdown(self, content: Mapping[str, Any]) -> str:
        known = {
            key: content[key] for key in ("torch", "cuda", "driver", "opencv", "segtrain", "commit")
        }
        where = ", ".join(f"{key} {value}" for key, value in known.items() if value)
        lines = [
            "# segtrain on a GPU",
            "",
            f"{content['device'].get('name', 'no device')}, {where}.",
        ]
        if self.dry:
            lines += ["", "**A dry pass at tiny sizes: the figures mean nothing.**"]
        for part in self.parts:
            title, columns = TABLES[part.name]
            lines += ["", f"## {title}", "", f"{part.summary[0].upper()}{part.summary[1:]}.", ""]
            rows = part.rows
            if part.name == "checks":
                rows = [row for row in rows if row["state"] != "ok"]
            lines += table(rows, columns)
        return "\n".join(lines) + "\n"


def summarize(
    name: str, events: Sequence[Mapping[str, Any]], code: int | None, seconds: float, log: str
) -> Part:
    """Build the results of a part from the lines that its processes wrote.

    Args:
        name: A key of ``TABLES``.
        events: The lines of the part, in order.
        code: The exit code of the last process; None if it reached the time cap.
        seconds: The duration of the part.
        log: The last line that the processes printed.
    """
    rows = [dict(event["row"]) for event in events if "row" in event]
    if code is None:
        rows += [{"item": item, "state": "capped"} for item in _without_rows(events)]
    states = {row["state"] for row in rows}
    capped = code is None or any("capped" in event for event in events) or "capped" in states
    if "failed" in states or (not rows and not capped):
        state = "failed"
    elif capped:
        state = "capped"
    else:
        state = "skipped" if states == {"skipped"} else "done"
    wanted = {"failed", "skipped"} & {state}
    reasons = [row.get("error", "") for row in rows if row["state"] in wanted]
    error = reasons[0] if reasons else ("" if state != "failed" else one_line(log))
    machine = next((dict(event["machine"]) for event in events if "machine" in event), {})
    return Part(name, state, round(seconds, 1), rows, error, machine)


def _without_rows(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the items that were started and have no row."""
    given = {event["row"]["item"] for event in events if "row" in event}
    return [event["start"] for event in events if "start" in event and event["start"] not in given]


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """Format a markdown table; the first empty cell of a row that is not ok has its state."""
    if not rows:
        return ["Nothing to list."]
    lines = [f"| {' | '.join(columns.values())} |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [cell(row.get(key)) for key in columns]
        if row["state"] != "ok" and "state" not in columns:
            words = f"{row['state']}: {row['error']}" if row.get("error") else row["state"]
            if not any(cells):
                cells[0] = row["item"]
            cells[next((i for i, text in enumerate(cells) if not text), -1)] = cell(words)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cell(value: Any) -> str:
    """Format a value: numbers with three or more digits, None as an empty cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the name of a device, and memory and compute capability of a GPU."""
    if device.type != "cuda":
        return {"name": "CPU", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "count": torch.cuda.device_count(),
    }


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, or None without ``nvidia-smi``."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return _first_line(command)


def git_commit() -> str | None:
    """Return the commit of the checkout, or None outside a checkout."""
    return _first_line(["git", "-C", str(ROOT), "rev-parse", "HEAD"])


def _first_line(command: list[str]) -> str | None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = ended.stdout.split("\n")
    return lines[0].strip() or None if ended.returncode == 0 else None
