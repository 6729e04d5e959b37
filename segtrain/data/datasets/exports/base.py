"""The base of the datasets that read the export of an annotation tool."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from segtrain.data.dataset import SampleFiles, check_split
from segtrain.data.datasets.configured import ConfiguredDataset
from segtrain.data.datasets.exports.classes import BACKGROUND, choose_classes
from segtrain.data.datasets.exports.objects import (
    AnnotatedObject,
    OnTop,
    fingerprint,
    paint,
    paint_channels,
)
from segtrain.data.datasets.recognise import hint
from segtrain.data.io.storage import is_directory, list_names, read_bytes
from segtrain.data.labels.label_map import MapGiven
from segtrain.errors import ConfigError, DataError, NoFilesError, one_line
from segtrain.schema.values import forwards_to

SPLIT_NAMES = {
    "train": ("train", "training", "train2017"),
    "val": ("val", "valid", "validation", "val2017"),
    "test": ("test", "testing"),
}
_HELD_BACK = 0.2
Section = Mapping[str, Any]


class ExportDataset(ConfiguredDataset):
    """The export of an annotation tool: its classes, its splits and its masks are read from it.

    A subclass finds the samples and reads the masks. Pixels of no object have the class
    ``background``.

    Args:
        train: Where the training split is, if it is not where the tool writes it.
        val: The same for the validation split.
        test: The same for the test split; None: there is no test split.
        num_classes: Number of channels of the logits; None: the number of classes. 1: one logit
            for two classes.
        class_names: The classes to learn, in the order of their ids; None: all of the export.
        label_map: From names of the export to classes, see
            :func:`~segtrain.data.datasets.exports.classes.choose_classes`.
        palette: One RGB colour per class; None: the colours of the tool, if it has any.
        val_share: Share of the training samples that is held back for validation. None: 0.2 if the
            export has no validation split, else 0.
        **common: See :class:`~segtrain.data.datasets.configured.ConfiguredDataset`.

    Raises:
        ConfigError: When the classes contradict those of the export.
        DataError: When the export is not what its tool writes, or files are missing.
    """

    tool: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ()
    """The keys of a section ``dataset.train``."""
    has_overlaps: ClassVar[bool] = False
    """Whether a pixel may have several classes, as `multi_label` needs."""
    has_numbers: ClassVar[bool] = True
    """Whether the raw values of the masks are numbers that the tool wrote."""

    @forwards_to(ConfiguredDataset)
    def __init__(
        self,
        *,
        split: str = "train",
        root: str = ".",
        train: Section | None = None,
        val: Section | None = None,
        test: Section | None = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        label_map: MapGiven | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        val_share: float | None = None,
        **common: Any,
    ) -> None:
        self.sections = {"train": train, "val": val, "test": test}
        self.given_names, self.given_map = class_names, label_map
        self.root = Path(root).expanduser()
        self.split = check_split(split)
        self.held_back = False
        if not is_directory(self.root):
            raise NoFilesError(
                f"dataset.root={self.root} is neither a directory nor a zip or tar archive; set it"
                f" to {self.tool}"
            )
        try:
            self.held_back = val_share is None and not (
                common.get("folds") or self._has_section("val")
            )
            self.values = self.read_values()
        except NoFilesError as error:
            raise NoFilesError(f"{error}{self.export_hint()}") from None
        val_share = val_share or (_HELD_BACK if self.held_back else 0.0)
        rules = self._rules(common, num_classes, class_names, label_map, palette)
        super().__init__(split=split, root=root, val_share=val_share, **rules, **common)
        if self.held_back and split == "train":
            self.notes.append(
                f"{self.root} has no validation split: 20 % of its images, chosen by their names,"
                " are held back (dataset.val_share)"
            )

    def _rules(
        self,
        common: Mapping[str, Any],
        num_classes: int | None,
        class_names: Sequence[str] | None,
        label_map: MapGiven | None,
        palette: Sequence[Sequence[int]] | None,
    ) -> dict[str, Any]:
        """Return the parameters of the label contract that depend on the export."""
        values = dict(self.values)
        if common.get("multi_label") and not self.has_overlaps:
            raise ConfigError(
                f"dataset.multi_label=true: in the masks of {self.tool} a pixel has one class"
            )
        if common.get("multi_label"):
            values = {raw: name for raw, name in values.items() if name != BACKGROUND}
        ignore_label = common.get("ignore_label", 255)
        rules = choose_classes(
            values,
            class_names=class_names,
            label_map=label_map,
            ignore_label=ignore_label,
            has_numbers=self.has_numbers,
            multi_label=bool(common.get("multi_label")),
        )
        self.class_of: dict[int | str, int] = rules["label_map"]
        found = rules["num_classes"]
        one_logit = num_classes == 1 and len(rules["class_names"]) == 2
        if one_logit and rules["class_names"][1] == BACKGROUND:
            raise ConfigError(
                f"dataset.class_names={rules['class_names']}: with dataset.num_classes=1 the object"
                f" comes second; give [{BACKGROUND},{rules['class_names'][0]}]"
            )
        if num_classes is not None and num_classes != found and not one_logit:
            raise ConfigError(
                f"dataset.num_classes={num_classes}, but there are {found} classes:"
                f" {', '.join(rules['class_names'])}; leave it out"
            )
        if common.get("multi_label"):
            rules["label_map"] = None
        if palette is None:
            colours = self.read_colours()
            first = {self.class_of[raw]: colours[raw] for raw in reversed(values) if raw in colours}
            palette = [first[index] for index in range(found) if index in first]
            palette = palette if len(palette) == found else None
        return {**rules, "num_classes": num_classes or found, "palette": palette}

    def export_hint(self) -> str:
        return hint(self.root, self.tool)

    def _has_section(self, split: str) -> bool:
        return bool(self.sections[split]) or self.find_section(split) is not None

    def section(self) -> dict[str, Any]:
        """Return the section of the split: as configured, else as the tool writes it.

        Raises:
            ConfigError: When a key is unknown.
            NoFilesError: When the export has no such split.
        """
        given = self.sections[self.split]
        if given:
            return self.check_section(given, self.keys, "what the tool wrote", needed=0)
        found = self.find_section(self.split)
        if found is None:
            raise NoFilesError(
                f"dataset.root={self.root} is not {self.tool} with a {self.split} split:"
                f" {self.missing_section()}{self._inner_folder()}"
            )
        return found

    def class_section(self) -> Section:
        """Return the section whose files name the classes: that of the training split, if any."""
        return self.sections["train"] or self.find_section("train") or self.section()

    # ------------------------------------------------------------------ what a subclass implements

    layout: ClassVar[str]
    """What an export without a split does not hold, in words."""

    def missing_section(self) -> str:
        """Return why :meth:`find_section` finds no split, in words."""
        return self.layout

    def _inner_folder(self) -> str:
        """Return the end of a message if the export is in the only folder of `root`."""
        names = list_names(self.root)
        inner = self.root / names[0] if len(names) == 1 else self.root
        return f"; try dataset.root={inner}" if inner != self.root and is_directory(inner) else ""

    @abstractmethod
    def read_values(self) -> dict[int, str]:
        """Return the name of each raw value of the masks; ``background`` if there is no object."""

    def read_colours(self) -> dict[int, tuple[int, int, int]]:
        """Return the RGB colour of each raw value, if the tool has colours."""
        return {}

    @abstractmethod
    def find_section(self, split: str) -> dict[str, Any] | None:
        """Return the section of a split as the tool writes it; None: there is no such split."""

    # ------------------------------------------------------------------ helpers

    def split_folder(self, split: str, *below: str) -> str | None:
        """Return the folder of a split below the root by its usual names; None: there is none."""
        for name in SPLIT_NAMES[split]:
            if is_directory(self.root.joinpath(*below, name)):
                return "/".join((*below, name))
        return None

    def keep_existing(self, samples: Sequence[SampleFiles], missing: Sequence[str]) -> None:
        """Refuse samples without an image file, as far as `max_bad` does not allow them.

        Raises:
            DataError: When there are too many, or no samples.
        """
        if missing and self.max_bad == 0:
            more = "" if len(missing) == 1 else f" ({len(missing)} images are missing)"
            raise DataError(missing[0] + more)
        self.left_out += missing
        if not samples:
            raise NoFilesError(f"dataset.root={self.root} has no annotated image of the split")


class ObjectDataset(ExportDataset):
    """An export whose objects are outlines, runs or bitmaps, from which masks are drawn.

    Args:
        on_top: Which of two overlapping objects covers the other: ``smaller``, the one with fewer
            pixels, or ``later``, the later one in the file. None: as the tool does.
        **common: See :class:`ExportDataset`.

    Raises:
        SegtrainError: As :class:`ExportDataset`.
    """

    default_on_top: ClassVar[OnTop] = "smaller"
    has_overlaps = True
    has_numbers = False

    @forwards_to(ExportDataset)
    def __init__(self, *, on_top: OnTop | None = None, **common: Any) -> None:
        self.on_top: OnTop = on_top or self.default_on_top
        self.raw_values: dict[str, int] = {}
        super().__init__(**common)

    @abstractmethod
    def class_list(self) -> Sequence[str]:
        """Return the names of the classes, in the tool's order, without the background."""

    @abstractmethod
    def objects(self, index: int) -> Sequence[AnnotatedObject]:
        """Return the objects of a sample."""

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width that the objects of a sample refer to."""
        return self.reader.size(self.files[index].image)

    def read_values(self) -> dict[int, str]:
        names = [name for name in self.class_list() if name != BACKGROUND]
        if not names:
            raise NoFilesError(
                f"dataset.root={self.root} is not {self.tool} with a class:"
                f" {self.missing_section()}"
            )
        self.raw_values = {name: number for number, name in enumerate(names, start=1)}
        if len(self.raw_values) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{self.root}: the export has two classes {twice!r}; rename one")
        return {0: BACKGROUND, **{number: name for name, number in self.raw_values.items()}}

    def only_class(self) -> str:
        """Return the name of the only class of an export without names."""
        given = [name for name in self.given_names or () if name != BACKGROUND]
        return str(given[0]) if len(given) == 1 else "object"

    def value_of(self, name: str, file: Path) -> int:
        """Return the raw value of a class.

        Raises:
            DataError: When the export does not declare the class.
        """
        if name == BACKGROUND:
            return 0
        if name not in self.raw_values:
            raise DataError(
                f"{file}: it has an object of the class {name!r}, which is not one of the classes"
                f" of the export: {', '.join(self.raw_values)}"
            )
        return self.raw_values[name]

    def mask_kind(self, index: int) -> str:
        # Several samples may share a file.
        found = f"objects {fingerprint(self.objects(index))} {self.size(index)}"
        return f"{found} {self.on_top} {self.labels.multi_label} {self.class_of}"

    def read_mask(self, index: int) -> NDArray[Any] | list[NDArray[Any]]:
        height, width = self.size(index)
        file = str(self.files[index].mask)
        objects = self.objects(index)
        if not self.labels.multi_label:
            return paint(objects, height, width, self.on_top, file)
        ignored = [item for item in objects if self.class_of.get(item.value) not in self._ids]
        drawn = [
            replace(item, value=self.class_of[item.value])
            for item in objects
            if self.class_of.get(item.value) in self._ids
        ]
        masks: list[NDArray[Any]] = list(paint_channels(drawn, height, width, self._ids, file))
        void = paint(ignored, height, width, "later", file) != 0
        return [np.where(void, self.ignore_label, mask) for mask in masks] if ignored else masks

    @property
    def _ids(self) -> list[int]:
        return list(range(self.num_classes))


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        what: What it should be, for the message.

    Raises:
        DataError: When it is missing or is not JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not {what}: {one_line(error)}") from None
