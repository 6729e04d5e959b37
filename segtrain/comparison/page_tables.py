"""The tables of the page of a comparison: groups, metrics, and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segtrain.comparison.comparison import Comparison, Difference, GroupScores, failure
from segtrain.comparison.tables import metrics_table, number, p_text, probability_text
from segtrain.metrics import METRICS
from segtrain.pages.html import escaped, table

_COSTS = 2  # the last columns of `metrics_table`
_UPRIGHT = 8  # more classes than this have upright headings
_BLUE, _ORANGE = "0,114,178", "213,94,0"
_STRONGEST = 0.45  # the opacity of the strongest colour
_POINT = 0.01

Values = Mapping[str, float | None]


def groups_table(comparison: Comparison) -> str:
    """One row per group: scores, difference from the baseline, and costs."""
    heads = ("group", "seeds", "mean", "sd", "difference", "95 % interval", "p (Holm)", "P(better)")
    costs, cells = metrics_table(comparison)
    rows = [
        [*_group_row(comparison, item), *map(escaped, row[-_COSTS:])]
        for item, row in zip(comparison.groups, cells, strict=True)
    ]
    every = (*heads, "better in", *costs[-_COSTS:])
    return table(every, rows, numbers=range(1, len(every)), style="fixed")


def _group_row(comparison: Comparison, item: GroupScores) -> list[str]:
    name, difference = escaped(item.group.name), item.difference
    score = [str(len(item.scores)), number(comparison, item.mean), number(comparison, item.sd)]
    if difference is None:
        word = "baseline" if len(comparison.groups) > 1 else ""
        return [name, *score, f'<span class="soft">{word}</span>', "", "", "", ""]
    mean = number(comparison, difference.mean, signed=True)
    if difference.interval is None or difference.probability_better is None:
        return [name, *score, mean, "", "", "", _better_in(difference)]
    low, high = difference.interval.low, difference.interval.high
    return [
        *(name, *score, mean),
        f"{number(comparison, low)} to {number(comparison, high)}",
        escaped(p_text(difference.interval.p_holm)),
        escaped(probability_text(difference.probability_better)),
        _better_in(difference),
    ]


def _better_in(difference: Difference) -> str:
    return f"{difference.better_in} of {difference.n_pairs}" if difference.n_pairs else ""


def scores_table(comparison: Comparison) -> str:
    """Mean and standard deviation of every metric; the best mean of each is bold."""
    heads, rows = metrics_table(comparison)
    heads, rows = heads[:-_COSTS], [row[:-_COSTS] for row in rows]
    best = {column: _best_rows(comparison, name) for column, name in enumerate(heads)}
    cells = [
        [_cell(cell, is_best=line in best[column]) for column, cell in enumerate(row)]
        for line, row in enumerate(rows)
    ]
    return table(heads, cells, numbers=range(1, len(heads)), style="fixed")


def _cell(text: str, *, is_best: bool) -> str:
    return f'<span class="best">{escaped(text)}</span>' if is_best else escaped(text)


def _best_rows(comparison: Comparison, name: str) -> list[int]:
    """The rows with the best mean of a metric; empty for a column that is not one."""
    if name not in METRICS.names():
        return []
    sign = 1 if getattr(METRICS.get(name), "larger_is_better", True) else -1
    return best([item.every_metric().get(name, {}).get("mean") for item in comparison.groups], sign)


def best(values: Sequence[float | None], sign: int) -> list[int]:
    """The places of the best values; empty if all are equal.

    Args:
        values: The values; None where one is undefined.
        sign: 1 if a larger value is better, else -1.

    Example:
        >>> best([0.5, None, 0.7, 0.7], 1), best([0.5, 0.5], 1)
        ([2, 3], [])
    """
    known = {sign * value for value in values if value is not None}
    if len(known) < 2:
        return []
    return [
        place
        for place, value in enumerate(values)
        if value is not None and sign * value == max(known)
    ]


def classes_table(comparison: Comparison) -> str:
    """A heat map of groups and classes; empty for a metric without classes.

    The colour shows the difference from the baseline of the group, which has no colour. The number
    is the score. The best score of each class is bold.
    """
    metric = comparison.scoring.metric
    found = [item.per_class(metric.name) for item in comparison.groups]
    classes = list(dict.fromkeys(name for values in found for name in values))
    if not classes:
        return ""
    gains = _gains(comparison, found)
    sizes = [abs(gain) for row in gains for gain in row.values() if gain]
    scale = float(np.quantile(sizes, 0.9)) if sizes else 1.0
    scale = max(scale, _POINT) if metric.is_share else scale
    sign = 1 if metric.larger_is_better else -1
    bold = {name: best([values.get(name) for values in found], sign) for name in classes}
    rows = [
        [
            escaped(item.group.name),
            *(
                _heat(
                    _cell(number(comparison, values.get(name)), is_best=line in bold[name]),
                    row.get(name, 0.0) / scale,
                )
                for name in classes
            ),
        ]
        for line, (item, values, row) in enumerate(
            zip(comparison.groups, found, gains, strict=True)
        )
    ]
    style = "fixed upright" if len(classes) > _UPRIGHT else "fixed"
    return table(("group", *classes), rows, numbers=range(1, len(classes) + 1), style=style)


def _gains(comparison: Comparison, found: Sequence[Values]) -> list[dict[str, float]]:
    """How much better each group is than its baseline, by class."""
    sign = 1 if comparison.scoring.larger_is_better else -1
    by_name = {
        item.group.name: values for item, values in zip(comparison.groups, found, strict=True)
    }
    gains: list[dict[str, float]] = []
    for item, values in zip(comparison.groups, found, strict=True):
        base = by_name.get(item.difference.baseline, {}) if item.difference else {}
        gains.append({})
        for name, value in values.items():
            other = base.get(name)
            if value is not None and other is not None:
                gains[-1][name] = sign * (value - other)
    return gains


def _heat(cell: str, share: float) -> str:
    """A cell whose colour shows a share from -1 to 1."""
    opacity = _STRONGEST * min(abs(share), 1.0)
    if opacity < 0.01:
        return f'<span class="heat">{cell}</span>'
    tint = f"rgba({_BLUE if share > 0 else _ORANGE},{opacity:.2f})"
    return f'<span class="heat" style="background:{tint}">{cell}</span>'


def failed_table(comparison: Comparison) -> str:
    """The runs without scores, with exit code and reason."""
    rows = []
    for run in comparison.failed:
        found = failure(run)
        code = "" if found["exit_code"] is None else str(found["exit_code"])
        rows.append([escaped(found["run"]), code, escaped(found["reason"] or "unknown")])
    return table(("run", "exit code", "reason"), rows, numbers=(1,), style="fixed broken")
