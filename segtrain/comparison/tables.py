"""A comparison as rows of text: for the terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group as Parts
from rich.table import Table

from segtrain.comparison.comparison import Comparison, GroupScores, failure
from segtrain.errors import printable
from segtrain.metrics import METRICS
from segtrain.terminal import cell

_TEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_TEX_MARK = re.compile("|".join(re.escape(mark) for mark in _TEX))


def headings(comparison: Comparison) -> list[str]:
    """The headings of :func:`rows`."""
    score = f"{comparison.metric} ± sd"
    return ["group", "n", score, "difference", "95 % interval", "p (Holm)", "P(better)"]


def rows(comparison: Comparison) -> list[list[str]]:
    """One row per group: seeds, mean and deviation, difference, interval, p and probability."""
    return [_row(comparison, item) for item in comparison.groups]


def _row(comparison: Comparison, item: GroupScores) -> list[str]:
    start = [printable(item.group.name), str(len(item.scores)), mean_and_sd(comparison, item)]
    difference = item.difference
    if difference is None:
        return [*start, "baseline" if len(comparison.groups) > 1 else "", "", "", ""]
    mean = number(comparison, difference.mean, signed=True)
    if difference.interval is None or difference.probability_better is None:
        return [*start, mean, "", "", ""]
    low, high = difference.interval.low, difference.interval.high
    between = f"{number(comparison, low)} to {number(comparison, high)}"
    return [
        *start,
        mean,
        between,
        p_text(difference.interval.p_holm),
        probability_text(difference.probability_better),
    ]


def mean_and_sd(comparison: Comparison, item: GroupScores) -> str:
    """Mean and standard deviation over the seeds; one seed has no deviation."""
    if item.sd is None:
        return number(comparison, item.mean)
    return f"{number(comparison, item.mean)} ± {number(comparison, item.sd)}"


def number(comparison: Comparison, value: float | None, *, signed: bool = False) -> str:
    """A score in percent, or a difference in points; as it is if the metric is not a share."""
    if value is None:
        return "n/a"
    sign = "+" if signed else ""
    if comparison.scoring.metric.is_share:
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.4g}"


def p_text(p: float) -> str:
    """A p-value, with two significant digits.

    Example:
        >>> p_text(0.0123), p_text(0.4567), p_text(1e-7)
        ('0.012', '0.46', '< 0.0001')
    """
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def probability_text(probability: float) -> str:
    """A probability, which is neither 0 nor 1.

    Example:
        >>> probability_text(0.974), probability_text(0.99996), probability_text(1e-9)
        ('0.974', '> 0.999', '< 0.001')
    """
    if probability < 0.001:
        return "< 0.001"
    return "> 0.999" if probability > 0.999 else f"{probability:.3f}"


def unit(comparison: Comparison) -> str:
    """What the numbers are, in one sentence."""
    kind = "percent, differences in points" if comparison.scoring.metric.is_share else "numbers"
    better = "larger" if comparison.scoring.larger_is_better else "smaller"
    return f"{comparison.metric} on {comparison.split}, {kind}; {better} is better"


def terminal(comparison: Comparison) -> Parts:
    """The comparison as a table of a terminal, with the verdicts below."""
    title = f"comparison: {unit(comparison)}"
    table = Table(title=cell(title), title_justify="left")
    for index, heading in enumerate(headings(comparison)[:-1]):  # six columns fit 80 letters
        table.add_column(cell(heading), justify="left" if index == 0 else "right")
    table.columns[0].overflow = "fold"
    for row in rows(comparison):
        table.add_row(*map(cell, row[:-1]))
    lines = [*comparison.verdicts, *(f"note: {note}" for note in comparison.notes)]
    if len(comparison.groups) == 1:
        lines.insert(0, "no verdict: there is one group, so there is nothing to compare it with")
    if comparison.failed:
        lines.append(_without_scores([failure(run) for run in comparison.failed]))
    return Parts(table, *(cell(line) for line in lines))


def _without_scores(failures: Sequence[dict[str, Any]]) -> str:
    """One line about the runs without scores, with the reason of the first one."""
    first = failures[0]
    runs = "run has" if len(failures) == 1 else "runs have"
    return f"{len(failures)} {runs} no scores, such as {first['run']}: {first['reason']}"


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown."""
    table = _markdown_table(headings(comparison), rows(comparison))
    parts = [
        f"# Comparison by {comparison.metric}",
        f"{unit(comparison)}.",
        *(["\n".join(f"- {text}" for text in comparison.verdicts)] if comparison.verdicts else []),
        table,
        *(f"Note: {note}." for note in comparison.notes),
        "## Every metric, mean ± standard deviation",
        _markdown_table(*metrics_table(comparison)),
        *_by_class(comparison),
    ]
    if comparison.failed:
        listed = [failure(run) for run in comparison.failed]
        cells = [[item["run"], str(item["exit_code"]), str(item["reason"])] for item in listed]
        parts += ["## Runs without scores", _markdown_table(["run", "exit code", "reason"], cells)]
    return "\n\n".join(map(_plain, parts)) + "\n"


def metrics_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of all metrics that were kept, and of the costs, for each group."""
    names = list(dict.fromkeys(key for item in comparison.groups for key in item.every_metric()))
    cells = []
    for item in comparison.groups:
        scores = item.every_metric()
        seconds, memory = item.figure("seconds_per_step"), item.figure("peak_memory_bytes")
        cells.append(
            [
                printable(item.group.name),
                *(_metric_text(name, scores.get(name, {})) for name in names),
                "n/a" if seconds is None else f"{seconds:.3g}",
                "n/a" if memory is None else f"{memory / 2**30:.2f}",
            ]
        )
    return ["group", *names, "s per step", "peak GiB"], cells


def _metric_text(name: str, score: Mapping[str, float | None]) -> str:
    """Mean and deviation of a metric, in percent if it is a share."""
    mean, sd = score.get("mean"), score.get("sd")
    if mean is None:
        return "n/a"
    is_share = name in METRICS.names() and getattr(METRICS.get(name), "is_share", False)
    if is_share:
        return f"{100 * mean:.2f}" if sd is None else f"{100 * mean:.2f} ± {100 * sd:.2f}"
    return f"{mean:.4g}" if sd is None else f"{mean:.4g} ± {sd:.2g}"


def _by_class(comparison: Comparison) -> list[str]:
    """The score of each class, for a metric with classes."""
    name = comparison.scoring.metric.name
    found = [item.per_class(name) for item in comparison.groups]
    if not found[0]:
        return []
    cells = [
        [printable(item.group.name), *(number(comparison, value) for value in classes.values())]
        for item, classes in zip(comparison.groups, found, strict=True)
    ]
    return [f"## {name} by class", _markdown_table(["group", *found[0]], cells)]


def _printable(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _plain(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _markdown_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *cells]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def latex(comparison: Comparison) -> str:
    """The comparison as a LaTeX table, for the package booktabs."""
    body = [
        " & ".join(_tex(cell) for cell in row) + r" \\"
        for row in [headings(comparison), *rows(comparison)]
    ]
    return "\n".join(
        [
            f"% {printable(unit(comparison))}",
            r"\begin{tabular}{lrrrrrr}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _tex(text: str) -> str:
    marked = _TEX_MARK.sub(lambda match: _TEX[match.group()], text)
    return marked.replace("±", r"$\pm$").replace("<", "$<$")


def csv_table(comparison: Comparison) -> str:
    """One line per group with every number, not rounded; shares, not points."""
    metrics = list(dict.fromkeys(key for item in comparison.groups for key in item.every_metric()))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    difference = (
        *("baseline", "mean", "low", "high", "p", "p_holm", "probability_better"),
        *("n_pairs", "better_in", "verdict"),
    )
    writer.writerow(
        [
            *("group", "n", "mean", "sd"),
            *(key if key in ("baseline", "verdict") else f"difference_{key}" for key in difference),
            *("seconds_per_step", "peak_memory_bytes"),
            *(f"{metric}_{kind}" for metric in metrics for kind in ("mean", "sd")),
        ]
    )
    for item in comparison.groups:
        found = item.difference.to_dict() if item.difference else {}
        low, high = found.get("ci95") or (None, None)
        known = {**found, "low": low, "high": high}
        scores = item.every_metric()
        writer.writerow(
            [
                *(printable(item.group.name), len(item.scores), item.mean, item.sd),
                *(_printable(known.get(key)) for key in difference),
                *(item.figure("seconds_per_step"), item.figure("peak_memory_bytes")),
                *(
                    scores.get(metric, {}).get(kind)
                    for metric in metrics
                    for kind in ("mean", "sd")
                ),
            ]
        )
    return stream.getvalue()
