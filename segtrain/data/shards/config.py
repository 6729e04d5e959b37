"""The dataset config that is written next to shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from segtrain.data.dataset import SPLITS, FileDataset
from segtrain.data.shards.index import INDEX_SUFFIX
from segtrain.files import write_text

_TEST_INDEX = f"test{INDEX_SUFFIX}"


def write_config(dataset: FileDataset, output: str | Path, title: str) -> str:
    """Write a dataset config for shards, with the label contract and the reader of `dataset`.

    Args:
        dataset: The dataset that was written as shards.
        output: Directory of the shards; the config is written to its folder ``dataset``. It has a
            test split if shards of it are there.
        title: Name of the data.

    Returns:
        The name of the config, for ``dataset=``.
    """
    labels = dataset.labels
    folder = Path(output).expanduser().absolute()
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in title) + "_shards"
    # A config with a test split needs its index; those of the others may be written later.
    splits = [split for split in SPLITS if split != "test" or (folder / _TEST_INDEX).is_file()]
    content = {
        "name": "webdataset",
        "title": title,
        "root": str(folder),
        **{split: {"shards": f"{split}{INDEX_SUFFIX}"} for split in splits},
        "num_classes": labels.num_classes,
        "class_names": list(labels.names),
        "ignore_label": labels.ignore_label,
        "label_map": None,
        "palette": labels.palette,
        "multi_label": labels.multi_label,
        "flip_pairs": labels.flip_pairs,
        **dataset.reader.keys(),
    }
    plain = json.loads(json.dumps(content))  # tuples become lists
    if labels.label_map is not None:  # not through JSON, which would turn its keys into text
        given = labels.label_map
        plain["label_map"] = dict(given) if isinstance(given, Mapping) else list(given)
    text = "# Written with the shards. They may be copied elsewhere; root may be a URL too.\n"
    text += yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_text(folder / "dataset" / f"{name}.yaml", text)
    return name
