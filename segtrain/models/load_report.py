"""What became of the weights in a file, and of those of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_SHOWN = 6  # modules named in a row


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every weight of a model, and of every weight in a file.

    Attributes:
        source: What the user calls the weights.
        kind: What they were recognised as.
        loaded: Names, in the model, of what comes from the file.
        reinitialised: Names of what keeps its first values because that was asked for.
        new: Names of what keeps its first values because the file is one of a backbone.
        left_out: Names, in the file, of what the model has no place for: the classifier of a
            backbone, the head that is reinitialised.
        converted: What was changed on the way, in words, with the names in the model.
        refused: Why weights do not fit, with their names; then nothing was loaded.
        notes: Whatever else is worth a sentence.
        num_classes: Classes of the file; None where it cannot tell.
        class_names: Their names; empty where it cannot tell.
        class_weights: Of the loss that the file was trained with; empty without any.

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
        """A table: what happened, to how many weights, to which."""
        groups = {
            "loaded": self.loaded,
            "reinitialised as asked": self.reinitialised,
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
        """Where the weights are from, and what they are."""
        return f"{self.source}: {self.kind}"

    def summary(self) -> str:
        """All of it in one line.

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
    """The modules that own `names`, with counts.

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
    """A list as it is typed on a command line.

    Example:
        >>> list_of([0.8373, 1.0])
        '[0.8373,1.0]'
    """
    return f"[{','.join(str(round(weight, 6)) for weight in weights)}]"
