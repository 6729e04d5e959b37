"""The scores of a group by seed, ready to be paired with those of its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segtrain.comparison.groups import Group
from segtrain.comparison.pseudo_values import ImageMetric, Values
from segtrain.comparison.runs import ImageScores, RunRecord
from segtrain.metrics import Metric


@dataclass(frozen=True)
class Scoring:
    """The score that a comparison is about.

    Attributes:
        choice: Its name, such as ``iou`` or ``dice[crack]``.
        metric: The metric.
        class_name: The class; None: the mean over the classes that count.
    """

    choice: str
    metric: Metric
    class_name: str | None

    @property
    def larger_is_better(self) -> bool:
        """Whether a larger value is better."""
        return self.metric.larger_is_better

    def of(self, run: RunRecord, images: ImageScores) -> ImageMetric:
        """The score as a function of images."""
        classes = run.config.get("evaluation", {}).get("classes")
        return ImageMetric(self.metric, images, classes, self.class_name)


class Unit:
    """The runs of one seed: one run, or one per fold of a cross-validation.

    Args:
        runs: The runs.
        scoring: The score.
    """

    def __init__(self, runs: Sequence[RunRecord], scoring: Scoring) -> None:
        self.runs = tuple(runs)
        self.scoring = scoring

    @property
    def lacks_images(self) -> str | None:
        """Why there is no value per image; None: there is one."""
        if not ImageMetric.exists_for(self.scoring.metric):
            return f"{self.scoring.choice} has no value per image"
        paths = (run.path / "per_image.npz" for run in self.runs)
        return next((f"{path} is missing" for path in paths if not path.is_file()), None)

    @cached_property
    def images(self) -> ImageScores:
        """The counts of all images; with folds, each is scored by the run that did not see it."""
        return ImageScores.together([run.images for run in self.runs])

    @cached_property
    def score(self) -> float | None:
        """The score at the last step; with folds, that of all images together."""
        if len(self.runs) == 1 or self.lacks_images:
            found = [run.score(self.scoring.choice) for run in self.runs]
            known = [value for value in found if value is not None]
            return float(np.mean(known)) if len(known) == len(found) else None
        value = self.scoring.of(self.runs[0], self.images).score()
        return None if np.isnan(value) else value

    @cached_property
    def pseudo_values(self) -> Values:
        """The pseudo-value of each image."""
        return self.scoring.of(self.runs[0], self.images).pseudo_values()

    def fold_scores(self) -> Values:
        """The score of each fold."""
        return np.array([run.score(self.scoring.choice) for run in self.runs], dtype=np.float64)


def units(group: Group, scoring: Scoring) -> dict[int, Unit]:
    """The units of a group by seed; a seed whose folds are incomplete is left out."""
    by_seed: dict[int, list[RunRecord]] = {}
    for run in group.runs:
        by_seed.setdefault(run.seed, []).append(run)
    return {
        seed: Unit(runs, scoring) for seed, runs in by_seed.items() if len(runs) == _folds(runs[0])
    }


def incomplete_seeds(group: Group, found: Mapping[int, Unit]) -> list[int]:
    """The seeds of a group that lack folds."""
    return [seed for seed in group.seeds if seed not in found]


def _folds(run: RunRecord) -> int:
    return int(run.config.get("dataset", {}).get("folds") or 1)
