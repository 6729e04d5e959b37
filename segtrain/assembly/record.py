"""What a run is, beside its scores: the facts in ``results.json`` that make runs comparable."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from segtrain.data import FileDataset, SegmentationDataset, content_hash
from segtrain.engine.distributed import Processes
from segtrain.schema.origin import Origin
from segtrain.schema.sections import Config
from segtrain.terminal import progress
from segtrain.version import __version__

_PACKAGES = ("torch", "torchvision", "numpy", "albumentations", "hydra-core")


def run_record(
    config: Config,
    origin: Origin,
    splits: dict[str, SegmentationDataset],
    processes: Processes,
) -> dict[str, Any]:
    """Return the facts about a run that are known before it trains.

    Args:
        config: The configuration of the run.
        origin: What the user typed.
        splits: The splits by name.
        processes: The processes of the run.

    Raises:
        DataError: When a file of the dataset cannot be read.
    """
    return {
        "overrides": list(origin.overrides),
        "preset": loss_label(config, origin),
        "loss": config.loss,
        "mining": config.mining,
        "seed": config.seed,
        "dataset_hash": {name: _split_hash(config, name, split) for name, split in splits.items()},
        "versions": _versions(),
        "device": _device(processes),
    }


def loss_label(config: Config, origin: Origin) -> str:
    """The loss as the user typed it, with the mining: ``ce_dice``, ``cross_entropy+ohem``."""
    loss, mining = origin.choice("loss", config.loss), origin.choice("mining", config.mining)
    return loss if mining == "none" else f"{loss}+{mining}"


def _split_hash(config: Config, name: str, split: SegmentationDataset) -> str:
    """The hash of the files of a split; of the section `dataset` if it does not read files."""
    if isinstance(split, FileDataset):
        with progress(f"hash {name} files", len(split)) as bar:
            found = content_hash(split, bar.advance)
        if found is not None:
            return found
    section = json.dumps({"split": name, **config.dataset}, sort_keys=True, default=str)
    return hashlib.sha256(section.encode()).hexdigest()


def _versions() -> dict[str, str]:
    """The versions of the packages that decide the numbers of a run."""
    found = {"python": platform.python_version(), "segtrain": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def _device(processes: Processes) -> dict[str, Any]:
    device = processes.device
    return {
        "type": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "threads": torch.get_num_threads(),
        "processes": processes.world_size,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
    return name.partition(":")[2].strip()
