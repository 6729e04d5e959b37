"""The report as an HTML page: verdict, findings, classes, sizes, samples and settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from segtrain.data.scan.class_weights import AUTO_METHOD
from segtrain.data.scan.findings import KINDS
from segtrain.inspection.charts import bars, bars_axis, distinct_sizes, size_chart
from segtrain.inspection.examine import Examination, SplitFinding
from segtrain.inspection.pictures import Example
from segtrain.pages.html import escaped, page, picture, section, swatch, table
from segtrain.pages.pictures import data_uri
from segtrain.terminal import percent
from segtrain.version import __version__

_MOST_LISTED = 20  # findings per kind; report.json has all of them
_MOST_SIZES = 8
_VERDICTS = {
    "fine": ("No problems found", "Every file was read and fits the label contract."),
    "warnings": ("Ready for training", "There are warnings; none of them stops training."),
}
_LOG_NOTE = (
    "Share of each class in all pixels that have a class, on a logarithmic scale, and the number of"
    " images that contain the class."
)


def report_page(examination: Examination, examples: Sequence[Example]) -> str:
    """Return the whole page as HTML, with `examples` as pictures."""
    parts = [
        _head(examination),
        section("findings", "Findings", _findings(examination)),
        section("classes", "Classes", _classes(examination), _LOG_NOTE),
        section("sizes", "Image sizes", _sizes(examination)),
        section("samples", "Samples", map(_example, examples), _samples_note(examples)),
        section("settings", "Settings for training", _settings(examination)),
        f"<footer>segtrain {__version__}; report.json has the same data.</footer>",
    ]
    return page(f"{examination.title}: dataset report", parts)


def normalization_overrides(normalization: tuple[list[float], list[float]]) -> str:
    """Return mean and standard deviation as overrides for the command line.

    Example:
        >>> normalization_overrides(([0.5, 0.25], [0.1, 0.2]))
        'augmentation.mean=[0.5,0.25] augmentation.std=[0.1,0.2]'
    """
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in normalization)
    return f"augmentation.mean=[{mean}] augmentation.std=[{std}]"


def _head(examination: Examination) -> str:
    verdict = examination.verdict
    if examination.refusal is None:
        heading, text = _VERDICTS[verdict]
    else:
        heading, text = "Training would fail", examination.refusal
    figures = _figures(examination)
    boxes = "".join(f"<div><b>{number}</b><span>{name}</span></div>" for number, name in figures)
    names = ("findings", "classes", "sizes", "samples", "settings")
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in names)
    return (
        f"<header><h1>{escaped(examination.title)}</h1>\n"
        f'<div class="verdict {verdict}"><b>{heading}</b>{escaped(text)}</div>\n'
        f'<div class="figures">{boxes}</div>\n<nav>{links}</nav></header>'
    )


def _figures(examination: Examination) -> list[tuple[str, str]]:
    """Return the figures in the boxes at the top, each with its caption."""
    train = examination.splits["train"].report
    counted = int(train.class_pixels.sum()) + train.ignored_pixels
    is_multi_label = examination.splits["train"].areas is not None
    total = int(train.sizes.prod(1).sum()) if is_multi_label else counted
    errors = sum(item.is_error for item in examination.findings)
    return [
        *(
            (f"{split.report.num_files:,}", f"{name} images")
            for name, split in examination.splits.items()
        ),
        (str(len(examination.splits["train"].dataset.class_names)), "classes"),
        (percent(train.ignored_pixels / max(total, 1)), "of train pixels ignored"),
        *(
            [(percent(invalid), "of train pixels do not count")]
            if (invalid := examination.splits["train"].invalid_share)
            else []
        ),
        (f"{errors:,}", "errors"),
        (f"{len(examination.findings) - errors:,}", "warnings"),
    ]


def _findings(examination: Examination) -> Iterable[str]:
    kinds = examination.kinds()
    if not kinds:
        yield "<p>None.</p>"
    for number, (kind, items) in enumerate(kinds):
        is_error = any(item.is_error for item in items)
        badge = ("bad", "error") if is_error else ("warn", "warning")
        lines = [f"<li>{_finding(item)}</li>" for item in items[:_MOST_LISTED]]
        if len(items) > _MOST_LISTED:
            more = f"{len(items) - _MOST_LISTED:,} more in report.json"
            lines.append(f'<li class="soft">{more}</li>')
        yield (
            f"<details{' open' if is_error or number == 0 else ''}><summary>"
            f'{escaped(KINDS[kind])} <span class="soft">{len(items):,}</span>'
            f'<span class="badge {badge[0]}">{badge[1]}</span></summary>\n'
            f"<ul>{''.join(lines)}</ul></details>"
        )


def _finding(item: SplitFinding) -> str:
    return f'<span class="soft">{item.split}</span> {escaped(item.finding.text)}'


def _classes(examination: Examination) -> Iterable[str]:
    names, splits = [*examination.splits], [*examination.splits.values()]
    shares = [split.class_shares for split in splits]
    images = [split.class_images for split in splits]
    weights = examination.weights[AUTO_METHOD]
    labels = splits[0].dataset.labels
    rows = [
        [
            str(class_id),
            f"{swatch(labels.colours[class_id])}{escaped(name)}",
            bars([float(share[class_id]) for share in shares]),
            *(
                cell
                for share, number in zip(shares, images, strict=True)
                for cell in (percent(share[class_id]), f"{number[class_id]:,}")
            ),
            f"{weights[class_id]:.3g}",
        ]
        for class_id, name in enumerate(labels.names)
    ]
    columns = [head for name in names for head in (name, f"{name} images")]
    heads = ("id", "class", "", *columns, "weight")
    drawn = table(heads, rows, numbers=range(3, len(heads)))
    yield drawn.replace("<th></th>", f'<th class="wide">{bars_axis()}</th>', 1)
    invalid = {name: split.invalid_share for name, split in examination.splits.items()}
    if any(invalid.values()):
        listed = ", ".join(f"{percent(share)} of {name}" for name, share in invalid.items())
        yield (
            f'<p class="note">Pixels that do not count, by the valid files: {listed}. They are'
            " ignored, and in no number of this table.</p>"
        )
    key = "".join(f'<i class="{name}"></i>{name}' for name in names)
    yield (
        f'<p class="key">{key}; weight: {AUTO_METHOD}, which is what loss.class_weights=auto uses'
        "</p>"
    )


def _sizes(examination: Examination) -> Iterable[str]:
    sizes = {split: found.report.sizes for split, found in examination.splits.items()}
    rows = {split: distinct_sizes(found) for split, found in sizes.items()}
    every = {row[:2] for found in rows.values() for row in found}
    if len(every) == 1:
        ((height, width),) = every
        yield f"<p>All images are {height} x {width} (height x width).</p>"
        return
    tables = []
    for split, found in rows.items():
        cells = [[f"{height} x {width}", f"{count:,}"] for height, width, count in found]
        shown = table(("height x width", "images"), cells[:_MOST_SIZES], numbers=(1,))
        more = len(found) - _MOST_SIZES
        rest = f'<p class="soft">and {more:,} other sizes</p>' if more > 0 else ""
        tables.append(f"<div><h3>{split}</h3>{shown}{rest}</div>")
    marks = "".join(f'<i class="disc {split}"></i>{split}' for split in sizes)
    key = (
        f'<p class="key">{marks}; the area of a disc grows with the number of images of that size'
        "</p>"
    )
    yield (
        f'<div class="columns"><div>{size_chart(sizes)}{key}</div>'
        f'<div class="columns">{"".join(tables)}</div></div>'
    )


def _samples_note(examples: Sequence[Example]) -> str:
    if not examples:
        return "No samples were requested, or none could be read."
    return "Chosen so that every class is shown. Pixels without a class are striped."


def _example(example: Example) -> str:
    classes = ", ".join(example.class_names) or "no class"
    pictures = (
        picture(data_uri(example.image), f"image {example.name}"),
        picture(data_uri(example.mask, "PNG"), f"mask of {example.name}"),
        picture(data_uri(example.overlay), f"overlay of {example.name}"),
    )
    return (
        f'<figure><div class="strip">{"".join(pictures)}</div>'
        f'<figcaption><b>{escaped(example.name)}</b> <span class="soft">{escaped(classes)}</span>'
        "</figcaption></figure>"
    )


def _settings(examination: Examination) -> Iterable[str]:
    yield "<h3>Normalization of the train split</h3>"
    if examination.normalization is None:
        yield "<p>Not measured, because no image was decoded; decode=true decodes them.</p>"
    else:
        yield f"<pre>{normalization_overrides(examination.normalization)}</pre>"
    yield "<h3>Class weights</h3>"
    yield (
        '<p class="note">One column for each value of loss.class_weights; auto means '
        f"{AUTO_METHOD}. The mean over the classes that occur is 1.</p>"
    )
    labels = examination.splits["train"].dataset.labels
    rows = [
        [
            f"{swatch(labels.colours[class_id])}{escaped(name)}",
            *(f"{weights[class_id]:.4g}" for weights in examination.weights.values()),
        ]
        for class_id, name in enumerate(labels.names)
    ]
    count = len(examination.weights)
    yield table(("class", *examination.weights), rows, numbers=range(1, count + 1))
