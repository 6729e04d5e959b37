"""What a comparison concludes, in words."""

from __future__ import annotations

from typing import NamedTuple

from segtrain.comparison.interval import LEVEL, Interval, seeds_needed
from segtrain.comparison.pairs import Pair

_ALPHA = 1 - LEVEL
_POINT = 0.01
_RELATIVE = 0.1  # of the baseline: the difference worth finding in a metric that is not a share


class Verdict(NamedTuple):
    """A conclusion.

    Attributes:
        text: One sentence.
        kind: ``better``, ``worse``, ``not_corrected`` (shown only without the correction for the
            number of comparisons), ``none`` (no difference shown), or ``no_verdict``.
    """

    text: str
    kind: str


def verdict(pair: Pair, interval: Interval, comparisons: int) -> Verdict:
    """Conclude from the interval of a pair.

    Args:
        pair: The pair.
        interval: The interval of its difference.
        comparisons: The number of differences that Holm's correction counts.
    """
    one, other = pair.names()
    shared = pair.shared()
    where = f"with {shared}, " if shared else ""
    budget = f"at {_steps(pair)} steps"
    is_better = (interval.mean > 0) == pair.scoring.larger_is_better
    ends = sorted((abs(interval.low), abs(interval.high)))
    size = f"{_amount(pair, abs(interval.mean), unit=True)} ({_range(pair, *ends)})"
    word = "better" if is_better else "worse"
    if interval.p_holm < _ALPHA:
        count = pair.better_in if is_better else len(pair.seeds) - pair.better_in
        return Verdict(
            f"{where}{one} is {word} than {other} by {size} {budget}, in {count} of"
            f" {len(pair.seeds)} seeds",
            word,
        )
    if interval.p < _ALPHA:
        return Verdict(
            f"{where}{one} is {word} than {other} by {size} {budget}, but this is not shown after"
            f" correction for {comparisons} comparisons",
            "not_corrected",
        )
    return Verdict(
        f"{where}no difference shown between {one} and {other}"
        f" ({_range(pair, interval.low, interval.high, unit=True)}) {budget};"
        f" {_advice(pair, interval)}",
        "none",
    )


def no_verdict(reason: str) -> Verdict:
    """The verdict on a pair that cannot be compared."""
    return Verdict(f"no verdict: {reason}", "no_verdict")


def _advice(pair: Pair, interval: Interval) -> str:
    """What would show a difference worth finding."""
    if pair.scoring.metric.is_share:
        size, wanted = _POINT, "one point"
    else:
        baseline = pair.baseline_mean()
        size = abs(baseline) * _RELATIVE
        wanted = _amount(pair, size, unit=False)
    if size == 0:
        return "more seeds may show one"
    needed = seeds_needed(interval, pair.spread, size)
    if needed is None:
        return f"more seeds will not show a difference of {wanted}, more validation images would"
    if needed <= len(pair.seeds):
        return f"{len(pair.seeds)} seeds are enough to show {wanted} with 80 % power"
    return f"about {needed} seeds would show {wanted} with 80 % power"


def _steps(pair: Pair) -> str:
    steps = dict.fromkeys(
        run.results.get("step") for run in (*pair.group.runs, *pair.baseline.runs)
    )
    return " and ".join(str(step) for step in steps)


def _amount(pair: Pair, value: float, *, unit: bool) -> str:
    if not pair.scoring.metric.is_share:
        return f"{value:.3g}"
    return f"{round(100 * value, 1) + 0.0:.1f}{' points' if unit else ''}"  # 0.0, not -0.0


def _range(pair: Pair, low: float, high: float, *, unit: bool = False) -> str:
    return f"{_amount(pair, low, unit=False)} to {_amount(pair, high, unit=unit)}"
