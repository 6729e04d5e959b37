"""A group and its baseline, paired by seed; and what keeps the pair from being compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from segtrain.comparison.groups import Group, named
from segtrain.comparison.interval import Spread, spread
from segtrain.comparison.pseudo_values import Values
from segtrain.comparison.runs import RunRecord
from segtrain.comparison.units import Scoring, Unit, incomplete_seeds, units

_MIN_SEEDS = 2
_MIN_IMAGES = 3
# Which swept keys explain that runs differ in a fact.
_EXPLAINED_BY = {
    "training data": ("dataset",),
    "number of steps": ("trainer.max_steps", "trainer.epochs", "trainer.batch_size", "dataset"),
    "scored weights": ("trainer.ema_decay",),
}


@dataclass(frozen=True)
class Pair:
    """A group and its baseline.

    Attributes:
        group: The group.
        baseline: Its baseline.
        scoring: The score.
    """

    group: Group
    baseline: Group
    scoring: Scoring
    _units: dict[str, dict[int, Unit]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._units["group"] = units(self.group, self.scoring)
        self._units["baseline"] = units(self.baseline, self.scoring)

    @property
    def seeds(self) -> list[int]:
        """The seeds that both have."""
        return sorted(self._units["group"].keys() & self._units["baseline"].keys())

    @cached_property
    def score_differences(self) -> list[float | None]:
        """The difference of the scores of each seed."""
        found: list[float | None] = []
        for one, other in self._both():
            known = one.score is not None and other.score is not None
            found.append(one.score - other.score if known else None)  # type: ignore[operator]
        return found

    @property
    def mean(self) -> float | None:
        """The mean difference; None if a score is undefined, or no seed is in both."""
        known = [value for value in self.score_differences if value is not None]
        if known and len(known) == len(self.score_differences):
            return float(np.mean(known))
        return None

    def baseline_mean(self) -> float:
        """The mean score of the baseline."""
        scores = [unit.score for unit in self._units["baseline"].values()]
        return float(np.mean([score for score in scores if score is not None]))

    @property
    def better_in(self) -> int:
        """The number of seeds in which the group is better."""
        sign = 1 if self.scoring.larger_is_better else -1
        return sum(sign * value > 0 for value in self.score_differences if value is not None)

    @property
    def lacks_images(self) -> str | None:
        """Why the interval does not cover the choice of the images; None: it does."""
        every = [unit for pair in self._both() for unit in pair]
        for unit in every:
            if unit.lacks_images is not None:
                return unit.lacks_images
        if len(every[0].images.names) < _MIN_IMAGES:
            return f"there are fewer than {_MIN_IMAGES} images"
        return None

    @property
    def has_images(self) -> bool:
        """Whether the interval also covers the choice of the images."""
        return self.lacks_images is None

    @cached_property
    def spread(self) -> Spread:
        """How the difference varies between seeds, and between images if there are values."""
        if not self.has_images:
            known = [value for value in self.score_differences if value is not None]
            return spread(np.array(known)[:, None])
        return spread(self.image_differences)

    @cached_property
    def image_differences(self) -> Values:
        """The differences of the pseudo-values, ``(seeds, images)``."""
        return np.stack([one.pseudo_values - other.pseudo_values for one, other in self._both()])

    @property
    def image_names(self) -> tuple[str, ...]:
        """The names of the images, in the order of :attr:`image_differences`."""
        return self._units["group"][self.seeds[0]].images.names

    def first_runs(self) -> list[tuple[RunRecord, RunRecord]]:
        """The runs of the first seed of both; with folds, one pair per fold."""
        one, other = next(iter(self._both()))
        return list(zip(one.runs, other.runs, strict=True))

    @property
    def fold_spread(self) -> Spread | None:
        """How the difference varies between the folds, as seeds; None: there are no folds."""
        if len(self._units["group"][self.seeds[0]].runs) == 1:
            return None
        differences = [one.fold_scores() - other.fold_scores() for one, other in self._both()]
        return spread(np.mean(differences, axis=0)[:, None])

    def obstacle(self) -> str | None:
        """Why there is no verdict on this pair; None: nothing is in the way."""
        for group, kind in ((self.group, "group"), (self.baseline, "baseline")):
            missing = incomplete_seeds(group, self._units[kind])
            if missing:
                return f"seed {missing[0]} of {group.name} lacks folds"
        for group, kind in ((self.group, "group"), (self.baseline, "baseline")):
            number = len(self._units[kind])
            if number < _MIN_SEEDS:
                return f"{group.name} has {number} seed, and a verdict needs at least {_MIN_SEEDS}"
        if len(self.seeds) < _MIN_SEEDS:
            return (
                f"{self.group.name} and {self.baseline.name} have {len(self.seeds)} of"
                f" {len(self._units['group'])} and {len(self._units['baseline'])} seeds in common;"
                f" at least {_MIN_SEEDS} are needed"
            )
        if self.mean is None:
            return f"{self.scoring.choice} is undefined in a run"
        differing = self._differing_facts()
        if differing:
            return f"the runs differ in {', '.join(differing)}"
        if self.has_images and not self._same_images():
            return "the runs were scored on different images"
        return None

    def shared(self) -> str:
        """The swept keys and values that both have, as a name; empty: none."""
        both = {
            key: value
            for key, value in self.group.words.items()
            if self.baseline.words.get(key) == value
        }
        return named(both) if both else ""

    def names(self) -> tuple[str, str]:
        """The names of group and baseline without what both share."""
        found = []
        for group, other in ((self.group, self.baseline), (self.baseline, self.group)):
            own = {
                key: value for key, value in group.words.items() if other.words.get(key) != value
            }
            found.append(named(own))
        return found[0], found[1]

    def _both(self) -> Iterator[tuple[Unit, Unit]]:
        for seed in self.seeds:
            yield self._units["group"][seed], self._units["baseline"][seed]

    def _same_images(self) -> bool:
        names = {unit.images.names for pair in self._both() for unit in pair}
        return len(names) == 1

    def _differing_facts(self) -> list[str]:
        """The facts in which runs differ although no swept key says so."""
        swept = {
            key for key, value in self.group.words.items() if self.baseline.words.get(key) != value
        }
        found: dict[str, None] = {}
        seen: dict[tuple[int | None, str], Any] = {}
        for run in (*self.group.runs, *self.baseline.runs):
            for fact, value in _facts(run).items():
                known = seen.setdefault((run.fold, fact), value)
                if known != value and not _is_explained(fact, swept):
                    found[f"{fact} ({known} and {value})"] = None
        return list(found)


def _is_explained(fact: str, swept: set[str]) -> bool:
    return any(
        key == cause or key.startswith(f"{cause}.")
        for cause in _EXPLAINED_BY.get(fact, ())
        for key in swept
    )


def _facts(run: RunRecord) -> dict[str, Any]:
    """What must agree between the runs of a pair, unless the grid says otherwise."""
    hashes = run.results.get("dataset_hash", {})
    split = run.results.get("split", "val")
    facts = {
        "training data": _short(hashes.get("train")),
        f"{split} data": _short(hashes.get(split)),
        "scored split": split,
        "number of steps": run.results.get("step"),
        "scored weights": run.results.get("scored_weights"),
    }
    versions = run.results.get("versions", {})
    return {**facts, **{f"version of {name}": value for name, value in versions.items()}}


def _short(digest: object) -> str:
    return f"hash {str(digest)[:8]}"
