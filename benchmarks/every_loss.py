"""Train the embedded default with every loss; print its first and last losses and its mIoU.

    python benchmarks/every_loss.py
    python benchmarks/every_loss.py --steps 200 --output table.md "loss=focal mining=ohem"

A choice is one or more overrides, as on the command line of training.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from segtrain.cli.main import run_command

ROOT = Path(__file__).resolve().parents[1]
COMBINED = ("loss=focal mining=ohem", "loss=cross_entropy mining=top_k")
COMBINED += ("loss=cross_entropy mining=hard_negative", "loss=cross_entropy mining=ghm")
NUM_AVERAGED = 3  # logged losses, at the start and at the end


@dataclass(frozen=True)
class Outcome:
    """The result of one run.

    Attributes:
        choice: The overrides of the run.
        code: The exit code; 0 is success.
        first: Mean of the first logged losses.
        last: Mean of the last logged losses.
        miou: The mIoU on the validation split; NaN if the run failed.
    """

    choice: str
    code: int
    first: float
    last: float
    miou: float

    @property
    def has_learned(self) -> bool:
        """Whether the run succeeded and its loss decreased."""
        return self.code == 0 and math.isfinite(self.last) and self.last < self.first


def choices() -> list[str]:
    """Return every preset in ``configs/loss``, and some losses with hard-example mining."""
    presets = sorted(path.stem for path in (ROOT / "configs" / "loss").glob("*.yaml"))
    return [f"loss={name}" for name in presets] + list(COMBINED)


def train(choice: str, run_dir: Path, steps: int, *more: str) -> Outcome:
    """Train the embedded default with `choice`.

    Args:
        choice: Overrides, separated by spaces.
        run_dir: The run directory.
        steps: Number of training steps.
        *more: Further overrides.
    """
    words = [
        *choice.split(),
        f"run_dir={run_dir}",
        f"trainer.max_steps={steps}",
        f"trainer.evaluate_every={steps}",
        "trainer.log_images=0",
        *more,
    ]
    code = run_command("train", words)
    log = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    losses = [line["loss"] for line in lines if "loss" in line] or [math.nan]
    results = run_dir / "results.json"
    found = json.loads(results.read_text())["mIoU"] if results.exists() else None
    miou = math.nan if found is None else found
    first, last = losses[:NUM_AVERAGED], losses[-NUM_AVERAGED:]
    return Outcome(choice, code, sum(first) / len(first), sum(last) / len(last), miou)


def table(outcomes: list[Outcome], steps: int) -> str:
    """Format the outcomes as a markdown table."""
    lines = [
        f"| choice | mIoU after {steps} steps | loss, first | loss, last |",
        "|---|---:|---:|---:|",
    ]
    for item in outcomes:
        name = f"`{item.choice}`" if item.has_learned else f"`{item.choice}` (has not learned)"
        lines.append(f"| {name} | {item.miou:.3f} | {item.first:.4f} | {item.last:.4f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Train each choice and print the table; return 1 if one of them has not learned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "choices", nargs="*", help="default: every preset, and some with hard-example mining"
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for index, choice in enumerate(options.choices or choices()):
            outcomes.append(train(choice, Path(folder) / str(index), options.steps))
            print(table(outcomes[-1:], options.steps).splitlines()[-1], file=sys.stderr, flush=True)
    text = table(outcomes, options.steps)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return 0 if all(item.has_learned for item in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
