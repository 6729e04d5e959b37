"""Build datasets by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from segtrain.data import DATASETS, SegmentationDataset
from segtrain.errors import ConfigError
from segtrain.files import config_dir


def list_datasets() -> list[str]:
    """Return the names that :func:`build_dataset` and ``dataset=`` accept, sorted."""
    files = (config_dir() / "dataset").glob("*.yaml")
    return sorted({*DATASETS.names(), *(file.stem for file in files)})


def has_test_split(spec: Mapping[str, Any]) -> bool:
    """Whether the section ``dataset`` of a configuration has a test split.

    It has one if ``test`` describes it, as for datasets of files, or if ``num_test`` is above 0.
    """
    return bool(spec.get("test")) or bool(spec.get("num_test"))


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
