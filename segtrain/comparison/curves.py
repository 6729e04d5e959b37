"""Curves of the validation score, averaged over the seeds of a group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segtrain.comparison.groups import Group
from segtrain.comparison.units import Scoring

_MOST_NOTES = 5


def curves(group: Group, choice: str) -> tuple[list[int], NDArray[np.float64]]:
    """The steps at which every run of a group was evaluated, and the scores ``(runs, steps)``."""
    found = [run.curve(choice) for run in group.runs]
    steps = sorted(set.intersection(*(set(curve) for curve in found))) if found else []
    values = [[curve[step] for step in steps] for curve in found]
    return steps, np.array(values, dtype=np.float64).reshape(len(found), len(steps))


def order_changes(groups: Sequence[Group], scoring: Scoring) -> list[str]:
    """Notes on pairs of groups whose order changed in the last half of their curves.

    Every curve flattens at its end when the learning rate is annealed, so a flat end does not prove
    that a longer run would keep the order.
    """
    means = {}
    for group in groups:
        steps, values = curves(group, scoring.choice)
        means[group.name] = dict(zip(steps, values.mean(0).tolist(), strict=True))
    notes = []
    for one, other in itertools.combinations(means, 2):
        step = _last_change(means[one], means[other])
        if step is not None:
            notes.append(
                f"the order of {one} and {other} changed at step {step}, in the last half of the"
                " curves: a longer run may have another winner"
            )
    if len(notes) > _MOST_NOTES:
        more = len(notes) - _MOST_NOTES
        notes = [*notes[:_MOST_NOTES], f"the order of {more} other pairs changed, too"]
    return notes


def _last_change(one: dict[int, float], other: dict[int, float]) -> int | None:
    """The last step in the second half at which the order of two curves changed.

    Example:
        >>> _last_change({50: 1, 100: 2, 150: 3}, {50: 2, 100: 3, 150: 2})
        150
    """
    steps = sorted(one.keys() & other.keys())
    late: list[int] = [step for step in steps if 2 * step >= steps[-1]]
    signs = [float(np.sign(one[step] - other[step])) for step in late]
    for step, before, after in reversed(list(zip(late[1:], signs, signs[1:], strict=False))):
        if before * after < 0:
            return step
    return None
