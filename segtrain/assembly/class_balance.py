"""Class weights and rare-class sampling, from the pixel counts of the training split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from segtrain.assembly.splits import Splits
from segtrain.data.loading.rare_classes import rare_class_order
from segtrain.data.loading.sampler import Order
from segtrain.data.scan.class_weights import (
    AUTO_METHOD,
    class_weights,
    describe_weights,
    pixel_share,
)
from segtrain.data.shards.dataset import ShardDataset
from segtrain.files import write_text
from segtrain.schema.sections import AUTO, LoaderConfig
from segtrain.terminal import cell, console, logger, percent

_STEEP = 1000  # a ratio of two class weights at which the smaller one has hardly any effect


class ClassBalance:
    """Class weights for ``class_weights=auto`` and other methods, and rare-class sampling.

    Pixels are counted when they are first needed, by the main process for all. A resumed run takes
    the weights from its checkpoint bit for bit, even if the data has changed since.

    Args:
        splits: The splits of the run.
        saved: The weights in the checkpoint of a resumed run, as :attr:`found` was.

    Attributes:
        found: The weights that were requested, by method.
    """

    def __init__(self, splits: Splits, saved: Mapping[str, Sequence[float]] | None = None) -> None:
        self.splits, self.saved = splits, dict(saved or {})
        self.found: dict[str, list[float]] = {}

    def weights(self, word: str) -> list[float]:
        """Return one weight per class id.

        Args:
            word: ``auto`` or the name of a method.

        Raises:
            SegtrainError: When the training split cannot be counted.
        """
        if word not in self.found:
            saved = self.saved.get(word)
            numbers = class_weights(word, *self._counts()) if saved is None else saved
            self.found[word] = [float(number) for number in numbers]
        return self.found[word]

    def order(self, loader: LoaderConfig, seed: int) -> Order | None:
        """Return the order of rare-class sampling; None for uniform sampling.

        Raises:
            SegtrainError: When the training split cannot be counted, or has no pixel of a class.
        """
        if loader.sampling == "uniform":
            return None
        if isinstance(self.splits.train, ShardDataset):
            self.splits.train.check_random_access(f"loader.sampling={loader.sampling}")
        temperature = loader.rare_class_temperature
        return rare_class_order(*self._counts(), temperature=temperature, seed=seed)

    def announce(self, run_dir: Path) -> None:
        """Print the weights, and write them to a file that ``class_weights=FILE`` can read."""
        for word, weights in self.found.items():
            method = AUTO_METHOD if word == AUTO else word
            only = len(self.found) == 1
            path = run_dir / f"class_weights{'' if only else f'_{word}'}.json"
            if word in self.saved:
                logger.info("class_weights=%s: the weights that the run began with", word)
                share = None
            else:
                share = pixel_share(*self._counts()).tolist()
                self._show(word, weights, share)
            if share is not None or not path.exists():
                content = describe_weights(method, self.splits.train.class_names, weights, share)
                write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def _show(self, word: str, weights: Sequence[float], share: Sequence[float]) -> None:
        names = self.splits.train.class_names
        meaning = f"{word} ({AUTO_METHOD})" if word == AUTO else word
        pairs = (f"{name} {weight:.4g}" for name, weight in zip(names, weights, strict=True))
        logger.info("class_weights=%s: %s", meaning, ", ".join(pairs))
        console.print(class_weights_table(names, weights, share, f"class weights: {meaning}"))
        absent = [name for name, part in zip(names, share, strict=True) if not part]
        if absent:
            text = "no pixel in the train split, so the class weight is 1: %s"
            logger.warning(text, ", ".join(absent))
        present = [
            (weight, name) for name, weight, part in zip(names, weights, share, strict=True) if part
        ]
        (most, rare), (least, common) = max(present), min(present)
        if most > _STEEP * least:
            logger.warning(
                "class_weights=%s: the weight of %s is %.0f times that of %s, which will hardly be"
                " learned; the weights of class_weights=%s differ by a factor of at most 36",
                word,
                rare,
                most / least,
                common,
                AUTO_METHOD,
            )

    def _counts(self) -> tuple[Any, Any]:
        """Pixels per image and class, and valid pixels per image for multi-label data.

        :func:`~segtrain.data.loading.rare_classes.rare_class_order` takes both.
        """
        report = self.splits.report()
        multi_label = self.splits.train.labels.multi_label
        return report.image_pixels, report.areas if multi_label else None


def class_weights_table(
    names: Sequence[str], weights: Sequence[float], share: Sequence[float], title: str
) -> Table:
    """Return a table of the weight of each class and its share of the pixels."""
    table = Table("class", "share of pixels", "weight", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, weight, part in zip(names, weights, share, strict=True):
        table.add_row(cell(name), percent(part, decimals=3), f"{weight:.4g}")
    return table
