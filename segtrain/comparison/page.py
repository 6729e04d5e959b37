"""The comparison as an HTML page: verdicts, intervals, groups, curves, classes and images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from segtrain.comparison.comparison import Comparison, Difference, GroupScores, failure
from segtrain.comparison.curves import curves
from segtrain.comparison.pictures import Differing
from segtrain.comparison.tables import metrics_table, number, p_text, unit
from segtrain.metrics import METRICS
from segtrain.pages.html import escaped, page, picture, section, table
from segtrain.pages.line_chart import Line, line_chart
from segtrain.pages.pictures import data_uri
from segtrain.pages.row_charts import IntervalRow, interval_chart
from segtrain.version import __version__

_KINDS = {  # in the order of the page: the class of the style sheet, and a mark
    "better": ("better", "\N{BLACK UP-POINTING TRIANGLE}"),
    "not_corrected": ("unsure", "?"),
    "none": ("same", "\N{ALMOST EQUAL TO}"),
    "worse": ("worse", "\N{BLACK DOWN-POINTING TRIANGLE}"),
    "no_verdict": ("unsure", "\N{EN DASH}"),
}
_METHOD = (
    "Each group is compared with its baseline, paired by seed and image. The intervals cover the"
    " choice of the seeds and of the images: a two-way layout with random effects on the jackknife"
    " pseudo-values of the score, whose seed variance is pooled over the groups. A difference is"
    " shown if p is below 0.05 after Holm's correction for all groups of this page."
)


def comparison_page(
    comparison: Comparison, images: Sequence[Differing] = (), missing: str | None = None
) -> str:
    """Return the whole page as HTML, which needs no other file.

    Args:
        comparison: The comparison.
        images: Images on which groups differ most.
        missing: Why there are none or fewer images.
    """
    drawn = section("differences", "Differences", [_intervals(comparison)], _METHOD)
    parts = [
        _head(comparison),
        drawn if _differences(comparison) else "",
        section("groups", "Groups", [_groups(comparison)], f"{unit(comparison)}."),
        section("metrics", "Every metric", [_metrics(comparison)], _METRICS_NOTE),
        _curves(comparison),
        _classes(comparison),
        section("seeds", "Seeds", [_seeds(comparison)], "The score of every run."),
        _images(images, missing),
        _failed(comparison),
        f"<footer>segtrain {__version__}; comparison.json has the same data.</footer>",
    ]
    return page(f"comparison by {comparison.metric}", filter(None, parts))


_METRICS_NOTE = "Mean and standard deviation over the runs; shares in percent. Bold: the best mean."
_IMAGES_NOTE = "Where a group differs most from its baseline. Striped pixels do not count."


def _differences(comparison: Comparison) -> list[tuple[GroupScores, Difference]]:
    return [(item, item.difference) for item in comparison.groups if item.difference]


def _head(comparison: Comparison) -> str:
    steps = sorted(
        {int(run.results["step"]) for item in comparison.groups for run in item.group.runs}
    )
    runs = sum(len(item.group.runs) for item in comparison.groups)
    seeds = {seed for item in comparison.groups for seed in item.group.seeds}
    facts = (
        f"{len(comparison.groups)} groups, {runs} runs, {len(seeds)} seeds,"
        f" {' and '.join(map(str, steps))} steps; scored on {comparison.split}"
    )
    order = list(_KINDS)
    found = sorted(
        (difference for _, difference in _differences(comparison)),
        key=lambda item: (order.index(item.verdict.kind), -abs(item.mean or 0.0)),
    )
    lines = [_verdict(item) for item in found] or [
        '<li class="unsure">There is one group, so there is nothing to compare it with.</li>'
    ]
    notes = "".join(f'<p class="note">Note: {escaped(note)}.</p>' for note in comparison.notes)
    return (
        f"<header><h1>Comparison by {escaped(comparison.metric)}</h1>\n"
        f'<p class="soft">{escaped(facts)}</p>\n<ul class="verdicts">{"".join(lines)}</ul>\n{notes}'
        "</header>"
    )


def _verdict(difference: Difference) -> str:
    style, mark = _KINDS[difference.verdict.kind]
    text = difference.verdict.text
    return f'<li class="{style}"><b>{mark}</b>{escaped(text[0].upper() + text[1:])}.</li>'


def interval_rows(comparison: Comparison) -> list[IntervalRow]:
    """The differences as rows of a chart, the largest first."""
    factor = 100.0 if comparison.scoring.metric.is_share else 1.0
    found = []
    for item, difference in _differences(comparison):
        interval, mean = difference.interval, difference.mean
        kind = difference.verdict.kind
        found.append(
            IntervalRow(
                item.group.name,
                None if mean is None else factor * mean,
                None if interval is None else factor * interval.low,
                None if interval is None else factor * interval.high,
                kind if kind in ("better", "worse") else "none",
                difference.verdict.text,
            )
        )
    return sorted(found, key=lambda row: -(row.mean or 0.0))


def axis_title(comparison: Comparison) -> str:
    """What the axis of the differences shows."""
    what = "points of " if comparison.scoring.metric.is_share else ""
    better = "right" if comparison.scoring.larger_is_better else "left"
    base = ",".join(comparison.baseline)
    return f"difference from {base} in {what}{comparison.metric}; better to the {better}"


def _intervals(comparison: Comparison) -> str:
    chart = interval_chart(interval_rows(comparison), axis_title(comparison))
    return f'<div class="scroll">{chart}</div>'


def _groups(comparison: Comparison) -> str:
    heads = ("group", "seeds", "mean", "sd", "difference", "95 % interval", "p (Holm)", "P(better)")
    rows = [_group_row(comparison, item) for item in comparison.groups]
    return table((*heads, "better in"), rows, numbers=range(1, len(heads) + 1))


def _group_row(comparison: Comparison, item: GroupScores) -> list[str]:
    name, difference = escaped(item.group.name), item.difference
    score = [str(len(item.scores)), number(comparison, item.mean), number(comparison, item.sd)]
    if difference is None:
        return [name, *score, '<span class="soft">baseline</span>', "", "", "", ""]
    mean = number(comparison, difference.mean, signed=True)
    if difference.interval is None or difference.probability_better is None:
        return [name, *score, mean, "", "", "", ""]
    low, high = difference.interval.low, difference.interval.high
    return [
        *(name, *score, mean),
        f"{number(comparison, low)} to {number(comparison, high)}",
        escaped(p_text(difference.interval.p_holm)),
        f"{difference.probability_better:.3f}",
        f"{difference.better_in} of {difference.n_pairs}",
    ]


def _metrics(comparison: Comparison) -> str:
    heads, rows = metrics_table(comparison)
    best = {column: _best(comparison, name) for column, name in enumerate(heads)}
    cells = [
        [
            f'<span class="best">{escaped(cell)}</span>' if best[column] == line else escaped(cell)
            for column, cell in enumerate(row)
        ]
        for line, row in enumerate(rows)
    ]
    return table(heads, cells, numbers=range(1, len(heads)))


def _best(comparison: Comparison, name: str) -> int | None:
    """The row with the best mean of a metric; None for a column that is not one."""
    if name not in METRICS.names() or len(comparison.groups) == 1:
        return None
    sign = 1 if getattr(METRICS.get(name), "larger_is_better", True) else -1
    means = [item.every_metric().get(name, {}).get("mean") for item in comparison.groups]
    known = [(sign * mean, -row) for row, mean in enumerate(means) if mean is not None]
    return -max(known)[1] if known else None


def _curves(comparison: Comparison) -> str:
    factor = 100.0 if comparison.scoring.metric.is_share else 1.0
    lines = []
    for item in comparison.groups:
        steps, values = curves(item.group, comparison.metric)
        if steps:
            shown = factor * values
            lines.append(Line(item.group.name, steps, shown.mean(0), shown.min(0), shown.max(0)))
    if not lines:
        return ""
    chart = line_chart(lines, "step", f"{comparison.metric} on val")
    note = "Mean over the seeds, and the range of the seeds as a band."
    return section("curves", "Curves", [f'<div class="scroll">{chart}</div>'], note)


def _classes(comparison: Comparison) -> str:
    name = comparison.scoring.metric.name
    found = [item.per_class(name) for item in comparison.groups]
    if not found[0]:
        return ""
    sign = 1 if comparison.scoring.larger_is_better else -1
    rows = [[escaped(item.group.name)] for item in comparison.groups]
    for class_name in found[0]:
        values = [classes.get(class_name) for classes in found]
        known = [sign * value for value in values if value is not None]
        span = (max(known) - min(known) or 1.0) if known else 1.0
        for row, value in zip(rows, values, strict=True):
            share = 0.0 if value is None else (sign * value - min(known)) / span
            row.append(_heat(number(comparison, value), share))
    drawn = table(("group", *found[0]), rows, numbers=range(1, len(found[0]) + 1))
    return section(
        "classes",
        f"{name} by class",
        [drawn],
        "The strongest colour of a class marks its best group.",
    )


def _heat(text: str, share: float) -> str:
    tint = f"rgba(0,114,178,{0.05 + 0.4 * share:.2f})"
    return f'<span class="heat" style="background:{tint}">{escaped(text)}</span>'


def _seeds(comparison: Comparison) -> str:
    seeds = sorted({run.seed for item in comparison.groups for run in item.group.runs})
    rows = []
    for item in comparison.groups:
        scores = item.by_seed
        cells = [number(comparison, scores[seed]) if seed in scores else "" for seed in seeds]
        rows.append([escaped(item.group.name), *cells])
    heads = ("group", *(f"seed {seed}" for seed in seeds))
    return table(heads, rows, numbers=range(1, len(heads)))


def _images(images: Sequence[Differing], missing: str | None) -> str:
    if not images and missing is None:
        return ""
    parts = [*_figures(images)]
    if missing is not None:
        parts.append(f'<p class="soft">No more images: {escaped(missing)}.</p>')
    return section("images", "Images", parts, _IMAGES_NOTE)


def _figures(images: Sequence[Differing]) -> Iterator[str]:
    for item in images:
        cells = "".join(
            f"<div>{picture(data_uri(pixels, 'JPEG' if title == 'image' else 'PNG'), title)}"
            f"<small>{escaped(title)}</small></div>"
            for title, pixels in item.pictures
        )
        better = "better" if item.difference > 0 else "worse"
        text = f"{item.group} is {better} than {item.baseline}"
        yield (
            f'<figure><div class="strip four">{cells}</div><figcaption><b>{escaped(item.name)}</b>'
            f' <span class="soft">{escaped(text)}</span></figcaption></figure>'
        )


def _failed(comparison: Comparison) -> str:
    if not comparison.failed:
        return ""
    found: Iterable[dict[str, object]] = map(failure, comparison.failed)
    rows = [[escaped(item[key]) for key in ("run", "exit_code", "reason")] for item in found]
    return section(
        "failed", "Runs without scores", [table(("run", "exit code", "reason"), rows, [1])]
    )
