"""Compare runs: which group is better, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.comparison.curves import order_changes
from segtrain.comparison.groups import Baselines, Group, group_runs, parse_words
from segtrain.comparison.interval import Interval, intervals
from segtrain.comparison.pairs import Pair
from segtrain.comparison.runs import RunRecord, read_runs
from segtrain.comparison.units import Scoring, units
from segtrain.comparison.verdict import Verdict, no_verdict, verdict
from segtrain.errors import ConfigError
from segtrain.metrics import METRICS, build_metrics
from segtrain.metrics.evaluation import split_choice
from segtrain.schema.values import did_you_mean


@dataclass(frozen=True)
class Difference:
    """The difference of a group from its baseline; shares, not points.

    Attributes:
        baseline: The name of the baseline.
        mean: The mean difference over the seeds that both have.
        interval: Its interval; None without a verdict.
        n_pairs: Number of pairs of runs.
        better_in: Number of seeds in which the group is better.
        verdict: The conclusion.
        probability_better: Probability that the group is better; None without an interval.
        by_images: Whether the interval also covers the choice of the images.
        pair: The runs of both; None: the group has no baseline.
    """

    baseline: str
    mean: float | None
    interval: Interval | None
    n_pairs: int
    better_in: int
    verdict: Verdict
    probability_better: float | None
    by_images: bool
    pair: Pair | None

    def to_dict(self) -> dict[str, Any]:
        """The difference for JSON."""
        found = self.interval
        return {
            "baseline": self.baseline,
            "mean": self.mean,
            "ci95": None if found is None else [found.low, found.high],
            "p": None if found is None else found.p,
            "p_holm": None if found is None else found.p_holm,
            "probability_better": self.probability_better,
            "n_pairs": self.n_pairs,
            "better_in": self.better_in,
            "by_images": self.by_images,
            "kind": self.verdict.kind,
            "verdict": self.verdict.text,
        }


@dataclass(frozen=True)
class GroupScores:
    """A group and its scores.

    Attributes:
        group: The group.
        by_seed: The score of each seed; a seed whose score is undefined is left out.
        difference: The difference from its baseline; None for a baseline.
    """

    group: Group
    by_seed: Mapping[int, float]
    difference: Difference | None

    @property
    def scores(self) -> tuple[float, ...]:
        """The scores, in the order of the seeds."""
        return tuple(self.by_seed.values())

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return float(np.mean(self.scores)) if self.scores else None

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds; None for fewer than two."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None

    def every_metric(self) -> dict[str, dict[str, Any]]:
        """Mean and standard deviation of each metric that was kept, over the runs."""
        names = dict.fromkeys(name for run in self.group.runs for name in _metrics_of(run))
        return {name: _mean_and_sd([run.score(name) for run in self.group.runs]) for name in names}

    def per_class(self, metric: str) -> dict[str, float | None]:
        """The mean of a metric over the runs, by class; empty for a metric without classes."""
        rows = [
            run.results.get("scores", {}).get(metric, {}).get("per_class", {})
            for run in self.group.runs
        ]
        return {name: _mean_and_sd([row.get(name) for row in rows])["mean"] for name in rows[0]}

    def figure(self, key: str) -> float | None:
        """The mean of a figure of ``results.json``, such as ``seconds_per_step``."""
        mean: float | None = _mean_and_sd([run.results.get(key) for run in self.group.runs])["mean"]
        return mean


@dataclass(frozen=True)
class Comparison:
    """The comparison of groups of runs.

    Attributes:
        scoring: The score.
        split: The scored split.
        baseline: The keys and values of the baseline, as ``key=value``.
        groups: The groups: those of one baseline together, it first, then the best first.
        failed: The runs that have no scores.
        notes: What else a reader must know.
    """

    scoring: Scoring
    split: str
    baseline: tuple[str, ...]
    groups: tuple[GroupScores, ...]
    failed: tuple[RunRecord, ...]
    notes: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The name of the score."""
        return self.scoring.choice

    @property
    def verdicts(self) -> list[str]:
        """One sentence per difference."""
        return [item.difference.verdict.text for item in self.groups if item.difference]

    def to_dict(self) -> dict[str, Any]:
        """The comparison for JSON; null where a value is undefined."""
        return {
            "metric": self.metric,
            "larger_is_better": self.scoring.larger_is_better,
            "split": self.split,
            "baseline": ",".join(self.baseline),
            "groups": [self._group(item) for item in self.groups],
            "failed": [failure(run) for run in self.failed],
            "notes": list(self.notes),
        }

    def _group(self, item: GroupScores) -> dict[str, Any]:
        return {
            "name": item.group.name,
            "overrides": item.group.overrides,
            "seeds": item.group.seeds,
            "runs": [str(run.path) for run in item.group.runs],
            "mean": item.mean,
            "sd": item.sd,
            "n": len(item.scores),
            "per_class": item.per_class(self.scoring.metric.name),
            "scores": item.every_metric(),
            "steps": sorted({run.results.get("step") for run in item.group.runs}),
            "seconds_per_step": item.figure("seconds_per_step"),
            "peak_memory_bytes": item.figure("peak_memory_bytes"),
            "difference": item.difference.to_dict() if item.difference else None,
        }


def compare(
    directories: Sequence[str | Path] | str | Path,
    *,
    metric: str = "iou",
    baseline: str | None = None,
) -> Comparison:
    """Compare runs over their seeds; see :func:`segtrain.compare`."""
    given = [directories] if isinstance(directories, (str, Path)) else directories
    runs = read_runs([Path(directory) for directory in given])
    finished = [run for run in runs if run.is_finished]
    if not finished:
        raise ConfigError(
            f"none of the {len(runs)} runs is finished, so there is nothing to compare"
        )
    scoring = _scoring(metric, finished)
    groups = group_runs(finished)
    failed = tuple(run for run in runs if not run.is_finished)
    chosen = None if baseline is None else parse_words(baseline)
    if len(groups) == 1 and chosen is None:
        chosen = {}
    baselines = Baselines(groups, chosen)
    differences, notes = _differences(groups, baselines, scoring, has_failed=bool(failed))
    scored = [
        GroupScores(group, _scores(group, scoring), difference)
        for group, difference in zip(groups, differences, strict=True)
    ]
    return Comparison(
        scoring=scoring,
        split=str(finished[0].results.get("split", "val")),
        baseline=tuple(f"{key}={value}" for key, value in baselines.chosen.items()),
        groups=_ordered(scored, baselines, scoring),
        failed=failed,
        notes=(*notes, *order_changes(groups, scoring)),
    )


def _ordered(
    groups: Sequence[GroupScores], baselines: Baselines, scoring: Scoring
) -> tuple[GroupScores, ...]:
    """Sort groups: those of one baseline together, it first, then the best first."""
    sign = -1 if scoring.larger_is_better else 1

    def key(item: GroupScores) -> tuple[str, bool, float]:
        base = item.group if item.difference is None else baselines.of(item.group)
        shared = "" if base is None else base.name
        return shared, item.difference is not None, sign * (item.mean or 0.0)

    return tuple(sorted(groups, key=key))


def failure(run: RunRecord) -> dict[str, Any]:
    """A run without scores, for JSON: its directory, exit code and reason."""
    status = run.status
    reason = None if status is None else status.reason or f"the run is {status.state}"
    return {
        "run": str(run.path),
        "exit_code": None if status is None else status.exit_code,
        "reason": reason,
    }


def _scoring(choice: str, runs: Sequence[RunRecord]) -> Scoring:
    name, class_name = split_choice(choice)
    known = dict.fromkeys(metric for run in runs for metric in _metrics_of(run))
    if name not in known:
        raise ConfigError(f"metric={choice}: no run computed {name!r}{did_you_mean(name, known)}")
    if name not in METRICS.names():
        raise ConfigError(f"metric={choice}: add plugins=[...] with the file that registers {name}")
    classes = runs[0].results.get("per_class_iou", {})
    if class_name is not None and class_name not in classes:
        raise ConfigError(
            f"metric={choice}: unknown class {class_name!r}{did_you_mean(class_name, classes)}"
        )
    return Scoring(choice, build_metrics([name])[0], class_name)


def _metrics_of(run: RunRecord) -> dict[str, None]:
    return {"iou": None, **dict.fromkeys(run.results.get("scores", {}))}


def _scores(group: Group, scoring: Scoring) -> dict[int, float]:
    found = {seed: unit.score for seed, unit in units(group, scoring).items()}
    return {seed: score for seed, score in found.items() if score is not None}


def _mean_and_sd(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def _differences(
    groups: Sequence[Group], baselines: Baselines, scoring: Scoring, *, has_failed: bool
) -> tuple[list[Difference | None], list[str]]:
    """The difference of each group from its baseline, and notes on them."""
    found: dict[int, Difference] = {}
    pairs: dict[int, Pair] = {}
    for index, group in enumerate(groups):
        if baselines.is_baseline(group):
            continue
        other = baselines.of(group)
        if other is None:
            reason = baselines.missing(group)
            if not has_failed:
                raise ConfigError(reason)
            found[index] = Difference("", None, None, 0, 0, no_verdict(reason), None, False, None)
            continue
        pair = Pair(group, other, scoring)
        obstacle = pair.obstacle()
        if obstacle is None:
            pairs[index] = pair
        else:
            found[index] = _difference(pair, None, no_verdict(obstacle))
    spreads = [pair.spread for pair in pairs.values()]
    means = [pair.mean or 0.0 for pair in pairs.values()]
    folds = [pair.fold_spread for pair in pairs.values()]
    known: Mapping[int, Interval] = dict(zip(pairs, intervals(means, spreads, folds), strict=True))
    for index, pair in pairs.items():
        found[index] = _difference(pair, known[index], verdict(pair, known[index], len(pairs)))
    lacks = next((pair.lacks_images for pair in pairs.values() if pair.lacks_images), None)
    notes = []
    if lacks is not None:
        notes.append(
            f"{lacks}, so the intervals cover the choice of the seeds only, not of the images"
        )
    return [found.get(index) for index in range(len(groups))], notes


def _difference(pair: Pair, interval: Interval | None, conclusion: Verdict) -> Difference:
    probability = None
    if interval is not None:
        probability = interval.above if pair.scoring.larger_is_better else 1 - interval.above
    return Difference(
        baseline=pair.baseline.name,
        mean=pair.mean,
        interval=interval,
        n_pairs=len(pair.seeds),
        better_in=pair.better_in,
        verdict=conclusion,
        probability_better=probability,
        by_images=interval is not None and pair.has_images,
        pair=pair,
    )
