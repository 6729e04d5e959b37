"""The report as a page: verdict, findings, classes, sizes, samples, and what to set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from segtrain.data.scan.class_weights import AUTO_METHOD, pixel_share
from segtrain.data.scan.findings import KINDS
from segtrain.inspection.charts import bars, bars_axis, distinct_sizes, size_chart
from segtrain.inspection.examine import Examination, Found
from segtrain.inspection.html import escaped, page, picture, section, swatch, table
from segtrain.inspection.outliers import areas
from segtrain.inspection.pictures import Example, data_uri
from segtrain.version import __version__

_MOST_LISTED = 20  # findings of a kind; all are in report.json
_MOST_SIZES = 8
_VERDICTS = {
    "fine": ("Nothing to complain about", "Every file was read and fits the label contract."),
    "warnings": ("Fit to train on", "Some things are worth a look; none of them stops training."),
}
_LOG_NOTE = (
    "Share of all pixels that have a class, on a logarithmic scale from a millionth to all;"
    " and the number of images that hold the class."
)


def report_page(examination: Examination, examples: Sequence[Example]) -> str:
    """The whole page, with `examples` as pictures."""
    parts = [
        _head(examination),
        section("findings", "Findings", _findings(examination)),
        section("classes", "Classes", _classes(examination), _LOG_NOTE),
        section("sizes", "Image sizes", _sizes(examination)),
        section("samples", "Samples", map(_example, examples), _samples_note(examples)),
        section("settings", "To set for training", _settings(examination)),
        f"<footer>segtrain {__version__}; the same as plain data in report.json.</footer>",
    ]
    return page(f"{examination.title}: dataset report", parts)


def normalisation_words(moments: tuple[list[float], list[float]]) -> str:
    """Mean and deviation as words of a command line.

    Example:
        >>> normalisation_words(([0.5, 0.25], [0.1, 0.2]))
        'augmentation.mean=[0.5,0.25] augmentation.std=[0.1,0.2]'
    """
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in moments)
    return f"augmentation.mean=[{mean}] augmentation.std=[{std}]"


def _head(examination: Examination) -> str:
    train, val = (examination.splits[split].report for split in ("train", "val"))
    verdict = examination.verdict
    if examination.refusal is None:
        heading, text = _VERDICTS[verdict]
    else:
        heading, text = "Training would go wrong", examination.refusal
    whole = areas(examination.splits["train"].dataset, train)
    counted = int(train.class_pixels.sum()) + train.ignored_pixels
    total = counted if whole is None else int(whole.sum())
    errors = sum(item.is_error for item in examination.found)
    figures = [
        (f"{train.num_files:,}", "train images"),
        (f"{val.num_files:,}", "val images"),
        (str(len(examination.splits["train"].dataset.class_names)), "classes"),
        (_percent(train.ignored_pixels / max(total, 1)), "of train pixels ignored"),
        (f"{errors:,}", "errors"),
        (f"{len(examination.found) - errors:,}", "warnings"),
    ]
    boxes = "".join(f"<div><b>{number}</b><span>{name}</span></div>" for number, name in figures)
    names = ("findings", "classes", "sizes", "samples", "settings")
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in names)
    return (
        f"<header><h1>{escaped(examination.title)}</h1>\n"
        f'<div class="verdict {verdict}"><b>{heading}</b>{escaped(text)}</div>\n'
        f'<div class="figures">{boxes}</div>\n<nav>{links}</nav></header>'
    )


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


def _finding(item: Found) -> str:
    where = "train and val" if item.split == "both" else item.split
    return f'<span class="soft">{where}</span> {escaped(item.finding.text)}'


def _classes(examination: Examination) -> Iterable[str]:
    train, val = (examination.splits[split] for split in ("train", "val"))
    shares = [
        pixel_share(split.report.image_pixels, areas(split.dataset, split.report))
        for split in (train, val)
    ]
    images = [(split.report.image_pixels > 0).sum(0) for split in (train, val)]
    weights = examination.weights[AUTO_METHOD]
    labels = train.dataset.labels
    rows = [
        [
            str(class_id),
            f"{swatch(labels.colours[class_id])}{escaped(name)}",
            bars([float(share[class_id]) for share in shares]),
            *(
                cell
                for share, number in zip(shares, images, strict=True)
                for cell in (_percent(share[class_id]), f"{number[class_id]:,}")
            ),
            f"{weights[class_id]:.3g}",
        ]
        for class_id, name in enumerate(labels.names)
    ]
    heads = ("id", "class", "", "train", "train images", "val", "val images", "weight")
    made = table(heads, rows, numbers=(3, 4, 5, 6, 7))
    yield made.replace("<th></th>", f'<th class="wide">{bars_axis()}</th>', 1)
    yield (
        f'<p class="key"><i></i>train<i class="second"></i>val; weight: {AUTO_METHOD}, as'
        " loss.class_weights=auto gives it</p>"
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
    key = (
        '<p class="key"><i></i>train<i style="background:var(--warn)"></i>val; the larger a disc,'
        " the more images of that size</p>"
    )
    yield (
        f'<div class="columns"><div>{size_chart(sizes)}{key}</div>'
        f'<div class="columns">{"".join(tables)}</div></div>'
    )


def _samples_note(examples: Sequence[Example]) -> str:
    if not examples:
        return "None was asked for, or none could be read."
    return "Chosen so that every class is seen. Pixels without a class are striped."


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
    yield "<h3>Normalisation of the train split</h3>"
    if examination.moments is None:
        yield "<p>Not measured, for no image was decoded; decode=true does it.</p>"
    else:
        yield f"<pre>{normalisation_words(examination.moments)}</pre>"
    yield "<h3>Class weights</h3>"
    yield (
        '<p class="note">By the methods that loss.class_weights takes; auto is '
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


def _percent(share: float) -> str:
    """A share in three digits, and none as a dash.

    Example:
        >>> _percent(0.12345), _percent(0.0000012), _percent(0)
        ('12.3 %', '0.00012 %', '-')
    """
    if not share:
        return "-"
    value = 100 * float(share)
    return f"{value:.3g} %" if value >= 1e-4 else f"{value:.1e} %"
