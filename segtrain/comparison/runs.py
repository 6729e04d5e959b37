"""Runs as they lie on disk: configuration, scores, counts per image, and curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from segtrain.engine.results import read_results
from segtrain.engine.status import Status, read_status
from segtrain.errors import CheckpointError, ConfigError, one_line
from segtrain.metrics import score_in

_COUNTS = ("tp", "fp", "fn", "tn")


@dataclass(frozen=True)
class ImageScores:
    """The counts and values of each image of a split, from ``per_image.npz``.

    Attributes:
        names: Names of the images.
        classes: Names of the classes.
        counts: ``(images, 4, C)``, int64: true and false positives, false and true negatives.
        values: ``(images, C)`` or ``(images,)``, float64, for metrics that do not follow from the
            counts.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    counts: Tensor
    values: dict[str, Tensor]

    @property
    def exclusive(self) -> bool:
        """Whether each pixel has exactly one class."""
        tp, _, fn, _ = self.counts.unbind(1)
        return bool(((tp + fn).sum(1) == self.counts.sum(1)[:, 0]).all())

    @staticmethod
    def read(path: Path) -> ImageScores:
        """Read ``per_image.npz``.

        Raises:
            CheckpointError: When the file is missing or damaged.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                found: dict[str, NDArray[Any]] = dict(arrays)
            names, classes = (tuple(map(str, found.pop(key))) for key in ("names", "classes"))
            counts = torch.from_numpy(np.stack([found.pop(key) for key in _COUNTS], axis=1))
        except Exception as error:  # a damaged archive fails in many ways
            raise CheckpointError(f"{path} cannot be read: {one_line(error)}") from error
        return ImageScores(
            names, classes, counts, {key: torch.from_numpy(array) for key, array in found.items()}
        )

    @staticmethod
    def together(parts: Iterable[ImageScores]) -> ImageScores:
        """The images of several splits as one, sorted by name."""
        parts = list(parts)
        names = [name for part in parts for name in part.names]
        order = sorted(range(len(names)), key=names.__getitem__)
        return ImageScores(
            tuple(names[index] for index in order),
            parts[0].classes,
            torch.cat([part.counts for part in parts])[order],
            {
                key: torch.cat([part.values[key] for part in parts])[order]
                for key in parts[0].values
            },
        )


@dataclass(frozen=True)
class RunRecord:
    """A run directory.

    Attributes:
        path: The directory.
        config: The configuration; empty for a run that failed before it was written.
        results: The content of ``results.json``; empty likewise.
        status: The status; None for a run that has none.
    """

    path: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    status: Status | None

    @property
    def is_finished(self) -> bool:
        """Whether the run has final scores."""
        return self.results.get("state") == "finished" and bool(self.config)

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.config.get("seed", 0))

    @property
    def fold(self) -> int | None:
        """The fold of a cross-validation; None: there is none."""
        dataset = self.config.get("dataset", {})
        return dataset.get("fold") if dataset.get("folds") else None

    @property
    def overrides(self) -> dict[str, str]:
        """The overrides that the run was started with, by key."""
        words = (str(word).lstrip("+") for word in self.results.get("overrides", ()))
        return {key: value for key, _, value in (word.partition("=") for word in words)}

    def score(self, choice: str) -> float | None:
        """The score at the last step, on the split that ``results.json`` names."""
        return score_in(self.results, choice)

    @cached_property
    def images(self) -> ImageScores:
        """The counts and values of each image."""
        return ImageScores.read(self.path / "per_image.npz")

    def curve(self, choice: str) -> dict[int, float]:
        """The score on the validation split by step."""
        return {
            int(line["step"]): value
            for line in self._lines()
            if "evaluation" in line and (value := score_in(line["evaluation"], choice)) is not None
        }

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(text)
            except ValueError:  # the last line of a killed process may be incomplete
                continue


def read_runs(directories: Iterable[Path]) -> list[RunRecord]:
    """Read every run in the given directories: runs, sweeps, or folders with any of them.

    Raises:
        ConfigError: When a directory does not exist, or there is no run.
    """
    paths: dict[Path, None] = {}
    for directory in directories:
        if not directory.is_dir():
            raise ConfigError(f"{directory} is not a directory; give run or sweep directories")
        found = [path for path in _directories(directory) if _is_run(path)]
        if not found:
            raise ConfigError(f"{directory} has no run: no directory in it has a status.json")
        paths.update(dict.fromkeys(found))
    return [_read(path) for path in paths]


def _directories(top: Path) -> Iterator[Path]:
    """Yield `top` and its directories; inside a run there is no other."""
    yield top
    if _is_run(top):
        return
    for path in sorted(top.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield from _directories(path)


def _is_run(path: Path) -> bool:
    return (path / "status.json").is_file() or (path / "results.json").is_file()


def _read(path: Path) -> RunRecord:
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        config = {}
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path / 'config.yaml'} is not valid: {one_line(error)}") from error
    if config and (not isinstance(config, dict) or "seed" not in config):  # cut off
        raise CheckpointError(f"{path / 'config.yaml'} is incomplete: it has no key seed")
    return RunRecord(path, config or {}, read_results(path) or {}, read_status(path))
