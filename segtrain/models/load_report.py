"""The report on loading weights: which were loaded, converted, left out or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_SHOWN = 6  # modules listed per row


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What happened to every weight of a model and of a weight file.

    Attributes:
        source: The path or name of the weights, as the user wrote it.
        kind: The recognised kind of file, in words.
        loaded: Names, in the model, of the weights loaded from the file.
        reinitialised: Names of the weights that keep their initial values because of ``reinit``.
        new: Names of the weights that keep their initial values because the file holds a backbone
            only.
        left_out: Names, in the file, of the weights that are not used, such as the classifier of an
            ImageNet model or a head that is reinitialised.
        converted: Descriptions of the conversions, each with the names, in the model, of the
            converted weights.
        refused: Reasons why weights do not fit, each with their names. If there is one, nothing was
            loaded.
        notes: Further remarks.
        num_classes: Number of classes of the file; None if unknown.
        class_names: Class names of the file; empty if unknown.
        class_weights: Class weights of the loss that the file was trained with; empty if unknown.

    Example:
        >>> report = LoadReport(source="best.pth", kind="state dict", loaded=("conv.weight",))
        >>> print(report)
        best.pth: state dict
          loaded              1  conv
    """

    source: str
    kind: str
    loaded: tuple[str, ...] = ()
    reinitialised: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    converted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()

    def rows(self) -> list[tuple[str, str, str]]:
        """Rows of the report: what happened, the number of weights, their modules."""
        groups = {
            "loaded": self.loaded,
            "reinitialised as requested": self.reinitialised,
            "new, not in the file": self.new,
            **{f"converted: {what}": names for what, names in self.converted.items()},
            "left out of the file": self.left_out,
            **{f"refused: {why}": names for why, names in self.refused.items()},
        }
        rows = [
            (what, str(len(names)), by_module(names)) for what, names in groups.items() if names
        ]
        if self.class_weights:
            text = f"loss.class_weights={list_of(self.class_weights)}"
            rows.append(("class weights in the file", str(len(self.class_weights)), text))
        return [*rows, *(("note", "", note) for note in self.notes)]

    @property
    def title(self) -> str:
        """Source and kind of the weights."""
        return f"{self.source}: {self.kind}"

    def summary(self) -> str:
        """The whole report on one line.

        Example:
            >>> LoadReport(source="a.pth", kind="state dict", loaded=("x", "y")).summary()
            'a.pth: state dict; 2 loaded'
        """
        counted = [f"{count} {what}" for what, count, _ in self.rows() if count]
        return "; ".join([self.title, ", ".join(counted), *self.notes])

    def __str__(self) -> str:
        rows = self.rows()
        width = max((len(what) for what, *_ in rows), default=0)
        lines = [f"  {what:{max(width, 14)}} {count:>6}  {names}" for what, count, names in rows]
        return "\n".join([self.title, *lines])


def by_module(names: Sequence[str]) -> str:
    """The modules that contain the weights `names`, with counts.

    Example:
        >>> by_module(["conv1.weight", "stage2.0.weight", "stage2.0.bias"])
        'conv1, stage2 (2)'
    """
    counts = Counter(name.split(".")[0] for name in names)
    shown = [
        module if count == 1 else f"{module} ({count})"
        for module, count in list(counts.items())[:_SHOWN]
    ]
    rest = len(counts) - _SHOWN
    return ", ".join(shown) + (f" and {rest} more modules" if rest > 0 else "")


def list_of(weights: Sequence[float]) -> str:
    """A list as written on a command line.

    Example:
        >>> list_of([0.8373, 1.0])
        '[0.8373,1.0]'
    """
    return f"[{','.join(str(round(weight, 6)) for weight in weights)}]"
