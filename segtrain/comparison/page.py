"""The comparison as an HTML page: verdicts, intervals, groups, curves, classes and images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from segtrain.comparison.comparison import Comparison, Difference, GroupScores
from segtrain.comparison.curves import curves
from segtrain.comparison.page_tables import (
    classes_table,
    failed_table,
    groups_table,
    scores_table,
)
from segtrain.comparison.pictures import Differing
from segtrain.comparison.tables import mean_and_sd, number, unit
from segtrain.pages.html import escaped, legend, page, picture, section
from segtrain.pages.line_chart import Line, line_chart
from segtrain.pages.pictures import Pixels, data_uri
from segtrain.pages.row_charts import DotRow, IntervalRow, dot_chart, interval_chart
from segtrain.version import __version__

_KINDS = {  # in the order of the page: the mark of each kind of verdict
    "better": "\N{BLACK UP-POINTING TRIANGLE}",
    "not_corrected": "\N{WHITE DIAMOND}",
    "none": "\N{ALMOST EQUAL TO}",
    "worse": "\N{BLACK DOWN-POINTING TRIANGLE}",
    "no_verdict": "\N{EN DASH}",
}
_DIFFERENCES_NOTE = (
    "Difference from the baseline and its 95 % interval. A filled point: the difference is shown. A"
    " diamond: it is shown only without the correction for the number of comparisons. A ring: it is"
    " not shown."
)
_METRICS_NOTE = "Mean and standard deviation over the runs; shares in percent. Bold: the best mean."
_CURVES_NOTE = (
    "Mean over the seeds on the validation split, with the range of the seeds as a band. A line"
    " becomes prominent when the pointer rests on its name."
)
_CLASSES_NOTE = (
    "Mean over the seeds. Blue: better than the baseline of the group; orange: worse. The stronger"
    " the colour, the larger the difference. Bold: the best mean of the class."
)
_SEEDS_NOTE = "The score of each seed as a dot, and their mean as a bar."
_IMAGES_NOTE = (
    "The images that contribute most to the difference of two groups, and those that contradict it"
    " most. The predictions are those of the first common seed. Striped pixels do not count."
)


def comparison_page(
    comparison: Comparison, images: Sequence[Differing] = (), missing: str | None = None
) -> str:
    """Return the whole page as HTML, which needs no other file.

    Args:
        comparison: The comparison.
        images: Images on which groups differ most, from
            :func:`~segtrain.comparison.pictures.differing_images`.
        missing: Why there are none or fewer images; None: nothing is missing.
    """
    parts = [
        _differences_section(comparison),
        section("groups", "Groups", [groups_table(comparison)], f"{unit(comparison)}."),
        section("metrics", "Every metric", [scores_table(comparison)], _METRICS_NOTE),
        _curves(comparison),
        _classes(comparison),
        _seeds(comparison),
        _images(comparison, images, missing),
        _failed(comparison),
        _method(comparison),
    ]
    body = "\n".join(filter(None, parts))
    found = re.findall(r'<section id="(\w+)">\n<h2>(.*?)</h2>', body)
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading in found)
    foot = f"<footer>segtrain {__version__}; comparison.json has the same data.</footer>"
    head = f"<header>{_head(comparison)}\n<nav>{links}</nav></header>"
    return page(f"Comparison by {comparison.metric}", [head, body, foot])


def _differences(comparison: Comparison) -> list[tuple[GroupScores, Difference]]:
    return [(item, item.difference) for item in comparison.groups if item.difference]


def _head(comparison: Comparison) -> str:
    steps = sorted(
        {int(run.results["step"]) for item in comparison.groups for run in item.group.runs}
    )
    runs = sum(len(item.group.runs) for item in comparison.groups)
    seeds = {seed for item in comparison.groups for seed in item.group.seeds}
    facts = (
        f"{_count(len(comparison.groups), 'group')}, {_count(runs, 'run')},"
        f" {_count(len(seeds), 'seed')}, {' and '.join(map(str, steps))} steps; scored on"
        f" {comparison.split}"
    )
    notes = "".join(f'<p class="note">Note: {escaped(note)}.</p>' for note in comparison.notes)
    return (
        f"<h1>Comparison by {escaped(comparison.metric)}</h1>\n"
        f'<p class="soft">{escaped(facts)}</p>\n<ul class="verdicts">{_verdicts(comparison)}</ul>\n'
        f"{notes}"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _verdicts(comparison: Comparison) -> str:
    """The sentences: those of one kind together, the best group first."""
    order = list(_KINDS)
    sign = 1 if comparison.scoring.larger_is_better else -1
    found = sorted(
        (difference for _, difference in _differences(comparison)),
        key=lambda item: (order.index(item.verdict.kind), -sign * (item.mean or 0.0)),
    )
    lines = [
        f'<li class="{item.verdict.kind}"><b>{_KINDS[item.verdict.kind]}</b>'
        f"{escaped(item.verdict.text)}.</li>"
        for item in found
    ]
    return "".join(lines) or (
        '<li class="no_verdict">There is one group, so there is nothing to compare it with.</li>'
    )


def _differences_section(comparison: Comparison) -> str:
    if not _differences(comparison):
        return ""
    chart = interval_chart(interval_rows(comparison), axis_title(comparison))
    return section("differences", "Differences", [_scroll(chart)], _DIFFERENCES_NOTE)


def _scroll(chart: str) -> str:
    return f'<div class="scroll">{chart}</div>'


def _factor(comparison: Comparison) -> float:
    return 100.0 if comparison.scoring.metric.is_share else 1.0


def interval_rows(comparison: Comparison) -> list[IntervalRow]:
    """The differences as rows of a chart, in the order of the groups."""
    factor = _factor(comparison)
    found = []
    for item, difference in _differences(comparison):
        interval, mean = difference.interval, difference.mean
        text = "" if mean is None else number(comparison, mean, signed=True)
        if interval is not None:
            ends = (number(comparison, end) for end in (interval.low, interval.high))
            text += f" ({' to '.join(ends)})"
        found.append(
            IntervalRow(
                item.group.name,
                None if mean is None else factor * mean,
                None if interval is None else factor * interval.low,
                None if interval is None else factor * interval.high,
                difference.verdict.kind,
                difference.verdict.text,
                text,
            )
        )
    return found


def axis_title(comparison: Comparison) -> str:
    """What the axis of the differences shows."""
    what = "points of " if comparison.scoring.metric.is_share else ""
    base = ",".join(comparison.baseline)
    better = (
        "better to the right →" if comparison.scoring.larger_is_better else "← better to the left"
    )
    return f"difference from {base} in {what}{comparison.metric}; {better}"


def _curves(comparison: Comparison) -> str:
    factor = _factor(comparison)
    lines = []
    for item in comparison.groups:
        steps, values = curves(item.group, comparison.metric)
        if steps:
            shown = factor * values
            line = Line(item.group.name, steps, shown.mean(0), is_baseline=item.difference is None)
            if len(shown) > 1:
                line = line._replace(low=shown.min(0), high=shown.max(0))
            lines.append(line)
    if not lines:
        return ""
    chart = line_chart(lines, "step", f"{comparison.metric} on val")
    return section("curves", "Curves", [_scroll(chart)], _CURVES_NOTE)


def _classes(comparison: Comparison) -> str:
    drawn = classes_table(comparison)
    heading = f"{comparison.scoring.metric.name} by class"
    return section("classes", heading, [drawn], _CLASSES_NOTE) if drawn else ""


def _seeds(comparison: Comparison) -> str:
    factor = _factor(comparison)
    rows = [
        DotRow(
            item.group.name,
            [factor * score for score in item.scores],
            [f"seed {seed}: {number(comparison, score)}" for seed, score in item.by_seed.items()],
            mean_and_sd(comparison, item),
        )
        for item in comparison.groups
    ]
    if not any(row.values for row in rows):
        return ""
    better = "larger" if comparison.scoring.larger_is_better else "smaller"
    percent = " in percent" if comparison.scoring.metric.is_share else ""
    axis = f"{comparison.metric} on {comparison.split}{percent}; {better} is better"
    return section("seeds", "Seeds", [_scroll(dot_chart(rows, axis))], _SEEDS_NOTE)


def _images(comparison: Comparison, images: Sequence[Differing], missing: str | None) -> str:
    if not images and missing is None:
        return ""
    parts = [*_figures(comparison, images)]
    if images:
        parts.insert(0, legend(images[0].labels.names, images[0].labels.colours))
    if missing is not None:
        start = "There are no more images" if images else "There are no images"
        parts.append(f'<p class="note">{start}: {escaped(missing)}.</p>')
    return section("images", "Images", parts, _IMAGES_NOTE if images else "")


def _figures(comparison: Comparison, images: Sequence[Differing]) -> Iterator[str]:
    points = " points" if comparison.scoring.metric.is_share else ""
    shown = ""
    for item in images:
        heading = f"{item.group} and {item.baseline}"
        if heading != shown:
            yield f"<h3>{escaped(heading)}</h3>"
            shown = heading
        cells = "".join(
            f"<div>{_picture(item.name, title, pixels)}<small>{escaped(title)}</small></div>"
            for title, pixels in item.pictures
        )
        share = number(comparison, item.difference / item.num_images, signed=True)
        better = "better" if item.is_better else "worse"
        text = f"{item.group} is {better} here: {share}{points} of the difference"
        yield (
            f'<figure><div class="strip four">{cells}</div><figcaption><b>{escaped(item.name)}</b>'
            f' <span class="soft">{escaped(text)}</span></figcaption></figure>'
        )


def _picture(name: str, title: str, pixels: Pixels) -> str:
    kind = "JPEG" if title == "image" else "PNG"
    return picture(data_uri(pixels, kind), f"{title} of {name}")


def _failed(comparison: Comparison) -> str:
    if not comparison.failed:
        return ""
    return section("failed", "Runs without scores", [failed_table(comparison)])


def _method(comparison: Comparison) -> str:
    """Three sentences on how the intervals were computed; empty without an interval."""
    found = [item for _, item in _differences(comparison) if item.interval is not None]
    if not found:
        return ""
    has_folds = any(run.fold is not None for item in comparison.groups for run in item.group.runs)
    folds = ", and between the folds" if has_folds else ""
    if any(item.by_images for item in found):
        first = (
            "Each group is paired with its baseline by seed and image, and the differences of the"
            f" jackknife pseudo-values of {comparison.metric} form a two-way layout with random"
            " effects of the seed and of the image."
        )
        second = (
            "The 95 % interval adds the variance between seeds, which is pooled over the groups of"
            f" this page, and the variance between images{folds}; it is about other seeds and other"
            " images like these."
        )
    else:
        first = (
            f"Each group is paired with its baseline by seed, and compared by {comparison.metric}."
        )
        second = (
            "The 95 % interval follows from the variance between seeds, which is pooled over the"
            f" groups of this page{folds}; it is about other seeds on the same images."
        )
    third = (
        "A difference is shown if its p-value is below 0.05 after Holm's correction for"
        f" {_count(len(found), 'comparison')}."
    )
    text = f"<p>{escaped(' '.join((first, second, third)))}</p>"
    return section("method", "How the intervals are computed", [text])
