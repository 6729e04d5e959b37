"""The text of the gallery: one page per loss, and the tables between markers."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from segtrain import losses as losses_module
from segtrain.errors import ConfigError
from segtrain.models.table import HEADINGS, model_row, model_specs
from segtrain.schema.values import Parameter, describe

from .catalogue import PAGES, ROOT, SHARED, Entry, losses, minings
from .docstrings import first_sentence, source

STAMP = "<!-- Written by `make gallery` from the docstring; edit that. -->"
CAPTIONS = {
    "pixel": "One pixel of two classes: the loss and its gradient with respect to the logit of the"
    " true class, against the probability that the loss gives the true class. Cross entropy in"
    " grey.",
    "around": "A predicted square (probability 0.9 inside, 0.1 outside) slides away from the true"
    " one. Left: the loss; cross entropy, stretched to the same range, in grey. Right: the"
    " gradient with respect to the square's logit when half the square is missed; blue raises the"
    " logit, red lowers it.",
    "regression": "One pixel of one channel: the loss and its gradient with respect to the"
    " prediction, against the prediction minus the target. Half the squared difference in grey.",
    "region": "A predicted square (probability 0.9 inside, 0.1 outside) slides onto a true one of"
    " the same size. Left: the loss{scope}. Right: how hard one pixel is pushed towards its true"
    " class, times the number of pixels; cross entropy in grey.",
    "map": "A predicted square (probability 0.99 inside, 0.01 outside) slides away from the true"
    " one. Left: the loss{scope}; one minus the soft IoU, stretched to the same range, in grey."
    " Right: the gradient with respect to the square's logit when half the square is missed; blue"
    " raises the logit, red lowers it.",
    "bar": "A part of a bar 9 pixels wide and 64 long is missed (probability 0.99 inside the"
    " prediction, 0.01 outside). Left: the loss{scope} if a gap cuts the bar and if it is too thin;"
    " soft Dice, which is the same for both, in grey. Right: the gradient with respect to the bar's"
    " logit for a gap of 16 pixels; blue raises the logit, red lowers it.",
    "combination": "A predicted square (probability 0.9 inside, 0.1 outside) slides onto a true"
    " one of the same size: the terms, their total, and the weights where they are learned.",
}
FAMILY_NOTES = {
    "pixel": "A pixel loss: any [hard-example mining](mining.md) can select its pixels, and it runs"
    " in strips without full-size logits (`criterion.strip_rows`).",
    "regression": "A pixel loss for maps of numbers instead of classes: any [hard-example"
    " mining](mining.md) that needs no probability applies.",
    "region": "A region loss: a formula of sums over the pixels of a class, so it runs in strips;"
    " hard-example mining does not apply.",
    "map": "A loss of the whole map of a class: hard-example mining does not apply.",
    "combination": "A combination of other losses; `mining` applies to the pixel losses among"
    " them.",
}
IMAGES = "img"
_MODELS_BEGIN = "<!-- models:begin -->"


def texts() -> dict[Path, str]:
    """Return the text of every generated file, and of every file with a generated block.

    Raises:
        RuntimeError: When a loss or mining has no page, with its name, or a model cannot be built.
    """
    found = losses()
    wanted = {PAGES / f"{entry.name}.md": _loss_page(entry) for entry in found}
    blocks = {
        ROOT / "README.md": _summary_table(found),
        PAGES / "README.md": f"{_index_table(found)}\n\n{_presets(found)}",
        PAGES / "mining.md": "\n\n".join(_mining_section(entry) for entry in minings()),
    }
    for file, block in blocks.items():
        text = file.read_text(encoding="utf-8")
        wanted[file] = _between_markers(text, block, file.stem if "mining" in file.stem else "")
    readme = ROOT / "README.md"
    if _MODELS_BEGIN in wanted[readme]:
        wanted[readme] = _between_markers(wanted[readme], _model_table(), "models")
    return wanted


def stale(wanted: dict[Path, str]) -> list[str]:
    """Name the files that differ from `wanted`, pages of removed losses and missing pictures."""
    names = []
    for file, text in wanted.items():
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            names.append(_shown(file))
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            if not (file.parent / picture).is_file():
                names.append(f"{_shown(file.parent / picture)} (missing)")
    return names + [f"{_shown(file)} (no such loss)" for file in left_over(wanted)]


def left_over(wanted: dict[Path, str]) -> list[Path]:
    """Return the generated pages whose loss is no longer registered."""
    pages = (file for file in sorted(PAGES.glob("*.md")) if file not in wanted)
    return [file for file in pages if file.read_text(encoding="utf-8").startswith(STAMP)]


def _scope(entry: Entry) -> str:
    return " of the square's class alone (`classes=[1]`)" if entry.picture_parameters else ""


def _shown(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def _between_markers(text: str, block: str, word: str = "") -> str:
    """Replace what is between the markers in `text` by `block`; do nothing without markers."""
    word = word or "losses"
    pattern = rf"(<!-- {word}:begin -->\n).*?(<!-- {word}:end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{block}\n{match[2]}", text, flags=re.DOTALL)


def _loss_page(entry: Entry) -> str:
    caption = CAPTIONS[entry.picture].format(scope=_scope(entry))
    parts = [
        STAMP,
        f"# {entry.name}",
        entry.doc.summary,
        entry.doc.body,
        f"![{entry.name}: curves]({IMAGES}/{entry.name}.png)",
        f"*{caption}*",
        "## Select it",
        _selection(entry, "loss"),
        FAMILY_NOTES[entry.family],
        "## Parameters",
        _parameters(entry.schema, entry),
        "`num_classes` and `ignore_label` follow from the dataset; in Python they are arguments.",
        *_sections(entry, 2),
        "[All losses](README.md)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _mining_section(entry: Entry) -> str:
    parts = [
        f"## {entry.name}",
        entry.doc.summary,
        entry.doc.body,
        f"![{entry.name}: weight of each pixel]({IMAGES}/mining_{entry.name}.png)",
        "```bash\npython tools/train.py loss=cross_entropy "
        + " ".join(_overrides(entry, "mining"))
        + "\n```",
        _parameters(entry.schema, entry) if entry.schema else "",
        *_sections(entry, 3),
    ]
    return "\n\n".join(part for part in parts if part)


def _sections(entry: Entry, level: int) -> list[str]:
    kept = {title: text for title, text in entry.doc.sections if title not in _LEFT_OUT}
    if "Example" in kept:
        kept["Example"] = _with_imports(kept["Example"])
    return [f"{'#' * level} {title}\n\n{text}" for title, text in kept.items()]


def _with_imports(example: str) -> str:
    """Add the imports to `example` that its docstring takes from its module."""
    names = sorted(set(re.findall(r"\b[A-Z]\w+", example)) & set(losses_module.__all__))
    lines = [f"from segtrain.losses import {', '.join(names)}"] if names else []
    if "torch." in example:
        lines.insert(0, "import torch")
    missing = [f">>> {line}\n" for line in lines if line not in example]
    return example.replace("```python\n", f"```python\n{''.join(missing)}", 1)


def _selection(entry: Entry, group: str) -> str:
    words = " ".join(_overrides(entry, group))
    settings = entry.spec | {
        key: entry.schema[key].default for key in entry.own if not entry.schema[key].required
    }
    body = yaml.safe_dump({group: _yaml_types(settings)}, sort_keys=False)
    return f"```bash\npython tools/train.py {words}\n```\n\n```yaml\n{body}```"


def _overrides(entry: Entry, group: str) -> list[str]:
    """Return the overrides that select `entry`, with two of its parameters at their defaults."""
    plain = [
        f"{group}.{key}={_yaml(entry.schema[key].default).replace('.inf', 'inf')}"
        for key in sorted(entry.own, key=lambda key: isinstance(entry.schema[key].default, bool))
        if isinstance(entry.schema[key].default, (bool, int, float, str))
    ]
    return [f"{group}={entry.name}", *_required(entry, group), *plain[:2]]


def _required(entry: Entry, group: str) -> list[str]:
    """Return the overrides that stand in for a config file of the name of `entry`."""
    if (ROOT / "configs" / group / f"{entry.name}.yaml").is_file():
        return []
    found = {key: value for key, value in entry.spec.items() if key != "name"}
    return [
        shlex.quote(f"{group}.{key}={json.dumps(value, separators=(',', ':'))}".replace('"', ""))
        for key, value in found.items()
    ]


def _parameters(schema: dict[str, Parameter], entry: Entry) -> str:
    if not schema:
        return "None."
    ordered = sorted(schema.values(), key=lambda item: item.name in SHARED)
    rows = [
        f"| `{item.name}` | {_cell(_type(item))} | {_default(item)}"
        f" | {_cell(entry.doc.arguments[item.name])} |"
        for item in ordered
    ]
    return "\n".join(["| name | type | default | meaning |", "|---|---|---|---|", *rows])


def _type(item: Parameter) -> str:
    words = re.sub(r"(a mapping) of \(a text\) to \(.*\)", r"\1", describe(item.annotation))
    return words.replace("(a number)", "numbers").replace("(a whole number)", "whole numbers")


def _default(item: Parameter) -> str:
    return "required" if item.required else f"`{_yaml(item.default)}`"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(_yaml_types(value), default_flow_style=True, width=1000).split("\n")[0]


def _yaml_types(value: Any) -> Any:
    """Convert tuples in `value` to lists, which YAML can write."""
    return json.loads(json.dumps(value), parse_constant=float)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _summary_table(entries: list[Entry]) -> str:
    rows = [
        f"| `{entry.name}` | {_cell(first_sentence(entry.doc.summary))} | {_names(entry.own)} |"
        for entry in entries
    ]
    return "\n".join(["| loss | what it is | own parameters |", "|---|---|---|", *rows])


def _names(keys: list[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _index_table(entries: list[Entry]) -> str:
    rows = [
        f"| [`{entry.name}`]({entry.name}.md) | {entry.family}"
        f" | {_cell(first_sentence(entry.doc.summary))}"
        f" | {_cell(source(entry.doc.section('References')))} |"
        for entry in sorted(entries, key=lambda entry: (_ORDER.index(entry.family), entry.name))
    ]
    return "\n".join(["| loss | family | what it is | source |", "|---|---|---|---|", *rows])


def _model_table() -> str:
    """Return the table of models and their costs. It takes seconds and needs timm and SMP.

    Raises:
        RuntimeError: When a model cannot be built.
    """
    specs = model_specs(ROOT / "configs" / "model")
    try:
        cells = [model_row(name, spec).cells() for name, spec in specs.items()]
    except ConfigError as error:
        raise RuntimeError(str(error)) from error
    rows = [" | ".join([f"`{name}`", *rest]) for name, *rest in cells]
    return "\n".join(
        [f"| {' | '.join(HEADINGS)} |", "|---|--:|--:|---|---|---|"]
        + [f"| {row} |" for row in rows]
    )


def _presets(entries: list[Entry]) -> str:
    """Return the table of config files that select a loss under another name."""
    names = {entry.name for entry in entries}
    rows = []
    for file in sorted((ROOT / "configs" / "loss").glob("*.yaml")):
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        if file.stem not in names:
            mined = [f"mining {settings['mining']['name']}"] if "mining" in settings else []
            parts = ", ".join(f"`{part}`" for part in [*settings.get("terms", {}), *mined])
            rows.append(f"| `loss={file.stem}` | `{settings['name']}` | {parts} |")
    return "\n".join(["| preset | loss | made of |", "|---|---|---|", *rows])


_ORDER = list(FAMILY_NOTES)
_LEFT_OUT = ("Shape", "Raises", "Attributes")
