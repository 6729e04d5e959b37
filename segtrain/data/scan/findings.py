"""The problems that a scan of a dataset finds, and which of them prevent training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

KINDS = {
    "unreadable": "files that are missing or cannot be read",
    "size": "masks or valid files that differ in size from their image",
    "values": "masks with values outside the label contract",
    "range": "images whose values do not fit dataset.value_range",
    "orientation": "images with an EXIF orientation, and masks without one",
    "contract": "label contracts that are probably not intended",
    "overlap": "images in two splits",
    "oriented": "images with an EXIF orientation",
    "soft": "masks that are read by ranges of values",
    "left_out": "files without a partner",
    "ignored": "masks without a pixel of any class",
    "duplicate": "images that occur more than once in a split",
    "absent": "classes without a pixel",
    "tiny": "classes with very few pixels",
    "mixed": "images of different sizes",
    "large": "images far larger than most",
}
"""Every kind of finding, with its description in the report."""

WARNINGS = frozenset(
    ("oriented", "soft", "left_out", "ignored", "duplicate", "absent", "tiny", "mixed", "large")
)
"""The kinds that do not prevent training."""

_MAX_SHOWN = 3


class Finding(NamedTuple):
    """One problem of a dataset.

    Attributes:
        kind: A key of :data:`KINDS`.
        file: The file with the problem; empty where it concerns the whole split.
        text: The problem and what to do about it, as an error message.
        sample: The index of the sample; None where it concerns more than one.
        splits: The splits that hold the image, where it occurs more than once.
    """

    kind: str
    file: str
    text: str
    sample: int | None = None
    splits: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether the finding prevents training."""
        return self.kind not in WARNINGS

    @classmethod
    def from_json(cls, plain: Sequence[Any]) -> Finding:
        """Return the finding that JSON made into a list."""
        kind, file, text, sample, splits = plain
        return cls(kind, file, text, sample, tuple(splits))


def summarize(findings: Sequence[Finding], num_files: int) -> str:
    """Return the first finding in full, and the number of the others with some of their files.

    Example:
        >>> found = [Finding("size", name, f"{name}: the mask is too small") for name in "abc"]
        >>> summarize(found, 9)
        'a: the mask is too small (2 more of the 9 masks or their images have problems: b, c)'
    """
    first, *others = findings
    if not others:
        return first.text
    shown = ", ".join(finding.file for finding in others[:_MAX_SHOWN] if finding.file)
    more = ", ..." if len(others) > _MAX_SHOWN else ""
    return (
        f"{first.text} ({len(others)} more of the {num_files} masks or their images have problems:"
        f" {shown}{more})"
    )
