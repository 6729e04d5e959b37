"""Build datasets by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from segtrain.data import DATASETS, SegmentationDataset
from segtrain.data.dataset import check_split
from segtrain.errors import ConfigError
from segtrain.files import config_dir


def list_datasets() -> list[str]:
    """Return the names that :func:`build_dataset` and ``dataset=`` accept, sorted."""
    files = (config_dir() / "dataset").glob("*.yaml")
    return sorted({*DATASETS.names(), *(file.stem for file in files)})


def build_dataset(
    name: str | Mapping[str, Any], *, split: str = "train", **params: Any
) -> SegmentationDataset:
    """Build one split of a dataset; ``dataset[i]`` is ``(image, target, name)``.

    Args:
        name: Name of a registered dataset or of a config file such as ``cityscapes``, or a mapping
            with ``name`` and parameters.
        split: ``train``, ``val`` or ``test``.
        **params: More parameters of the dataset, such as ``root``.

    Raises:
        ConfigError: On an unknown name or parameter, or a value that is not valid.
        DataError: When files are missing or do not pair up.
    """
    spec = {"name": name} if isinstance(name, str) else dict(name)
    chosen = str(spec.get("name"))
    if chosen not in DATASETS.names() and chosen in list_datasets():
        path = config_dir() / "dataset" / f"{chosen}.yaml"
        preset = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = {**preset, **spec, "name": preset["name"]}
    elif chosen not in DATASETS.names():
        raise ConfigError(DATASETS.why_not(chosen, list_datasets()))
    return DATASETS.build({**spec, **params}, split=split)


def has_split(spec: Mapping[str, Any], split: str) -> bool:
    """Whether a split is configured; nothing is opened.

    A split is configured if its key (such as ``test``) is set, or its number of samples (such as
    ``num_test``) is above 0. With `val_share` or `folds` there is always a validation split. A
    registered dataset without such keys has a training and a validation split, and no test split.

    Args:
        spec: The section ``dataset`` of a configuration.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ConfigError: When the dataset or the split is unknown.

    Example:
        >>> has_split({"name": "shapes"}, "test"), has_split({"name": "shapes"}, "val")
        (False, True)
    """
    known = DATASETS.schema(str(spec.get("name")))
    keys = [key for key in (check_split(split), f"num_{split}") if key in known]
    if not keys or (split == "val" and (spec.get("val_share") or spec.get("folds"))):
        return bool(keys) or split != "test"
    return any(spec.get(key, None if known[key].required else known[key].default) for key in keys)
