"""Compare the ways to train a vision transformer: all of it, its head only, or low-rank adapters.

    python benchmarks/vit.py
    python benchmarks/vit.py --backbone timm/vit_tiny_patch16_224 --sizes 224 --batch 4

Each line is measured in processes of its own, with one thread. Weights and images are random.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import torch
from process_memory import memory_mib, reset_peak

from segtrain import build_criterion, build_model
from segtrain.engine.freezing import Frozen
from segtrain.models import Segmentor

MEASURE = "_measure"  # the first argument of a process that measures one case
NUM_CLASSES = 19
CASES = {
    "all of it": {},
    "frozen backbone": {"freeze": ["backbone"]},
    "`lora`": {"adapter": "lora"},
    "`lora`, activation checkpointing": {"adapter": "lora", "activation_checkpointing": True},
}


def prepared(options: dict[str, Any]) -> Segmentor:
    """Build the model of a case."""
    keys = dict(CASES[options["case"]])
    freeze = keys.pop("freeze", None)
    spec = {"backbone": options["backbone"], "head": "segformer", **keys}
    model = build_model("encoder_decoder", num_classes=NUM_CLASSES, **spec).train()
    if freeze is not None:
        Frozen(model, freeze)
    return model


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Train some steps.

    Returns:
        ``trained``, the number of trained parameters; ``seconds`` of the fastest step;
        ``peak_mib``, the memory that training adds to the model: gradients, state of the optimizer
        and activations; None if the system does not report it.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = prepared(options)
    size = (options["size"], options["size"])
    images = torch.randn(options["batch"], 3, *size)
    target = torch.randint(NUM_CLASSES, (options["batch"], *size))
    criterion = build_criterion({"name": "cross_entropy"}, num_classes=NUM_CLASSES)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        model(images[..., :64, :64])  # loads libraries
    before = reset_peak()
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    seconds = []
    for _ in range(options["steps"]):
        start = time.perf_counter()
        optimizer.zero_grad()
        criterion(model(images), target).total.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    after = memory_mib("VmHWM")
    known = before is not None and after is not None
    return {
        "trained": sum(parameter.numel() for parameter in trained),
        "seconds": min(seconds),
        "peak_mib": after - before if known else None,
    }


def apart(options: dict[str, Any], **environment: str) -> dict[str, Any]:
    """Measure in a new process."""
    command = [sys.executable, __file__, MEASURE, json.dumps(options)]
    environment = {**os.environ, **environment}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        return {"error": lines[-1].replace("|", "/")}
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def row(options: dict[str, Any]) -> str:
    """Measure a case; return its line of the table."""
    start = f"| {options['size']} x {options['size']} | {options['case']} |"
    found = apart(options)
    if "error" in found:
        return f"{start} {found['error']} | | |"
    # glibc then returns freed memory at once; by default it keeps some hundred MiB.
    peak = apart({**options, "steps": 2}, MALLOC_MMAP_THRESHOLD_="65536").get("peak_mib")
    memory = "n/a" if peak is None else f"{peak:.0f}"
    return f"{start} {found['trained'] / 1e6:.2f} | {memory} | {found['seconds']:.2f} |"


def main(arguments: list[str]) -> int:
    """Print the table; the exit code is 0."""
    if arguments[:1] == [MEASURE]:
        print(json.dumps(measure(json.loads(arguments[1]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="timm/vit_small_patch16_dinov3")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 512])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    given = parser.parse_args(arguments)
    print(
        f"{given.backbone} with segformer, {given.batch} images, AdamW, torch {torch.__version__},"
        " one thread\n\n| images | trained | parameters, million | MiB | s/step |"
        "\n|---|---|---:|---:|---:|"
    )
    for size in given.sizes:
        for case in given.cases:
            shared = {"backbone": given.backbone, "batch": given.batch, "steps": given.steps}
            print(row({"size": size, "case": case, **shared}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
