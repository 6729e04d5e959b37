"""What a look at a dataset brought up, and whether training would go wrong for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

KINDS = {
    "unreadable": "images or masks that are missing or cannot be read",
    "size": "masks of another size than their image",
    "values": "masks with values outside the label contract",
    "contract": "label contracts that cannot be meant",
    "overlap": "images in both splits",
    "left_out": "files without a partner",
    "ignored": "masks without a single pixel of a class",
    "duplicate": "images that are there more than once",
    "absent": "classes without a pixel",
    "tiny": "classes with very few pixels",
    "mixed": "images of several sizes",
    "large": "images far larger than most",
}
"""Every kind of finding, in words."""

WARNINGS = frozenset(("left_out", "ignored", "duplicate", "absent", "tiny", "mixed", "large"))
"""The kinds with which training still makes sense."""

_MOST_SHOWN = 3


class Finding(NamedTuple):
    """One thing that was found.

    Attributes:
        kind: One of :data:`KINDS`.
        file: The file that shows it, empty where it is the whole split.
        text: A sentence that says what was found, and what to do.
        sample: Its index, where it is about one sample.
    """

    kind: str
    file: str
    text: str
    sample: int | None = None

    @property
    def is_error(self) -> bool:
        """Whether training would go wrong."""
        return self.kind not in WARNINGS


def summarize(findings: Sequence[Finding], num_files: int) -> str:
    """The first finding in full, the others counted, with the names of some.

    Example:
        >>> found = [Finding("size", name, f"{name}: the mask is too small") for name in "abc"]
        >>> summarize(found, 9)
        'a: the mask is too small (2 more of the 9 masks or their images have problems: b, c)'
    """
    first, *others = findings
    if not others:
        return first.text
    shown = ", ".join(finding.file for finding in others[:_MOST_SHOWN] if finding.file)
    more = ", ..." if len(others) > _MOST_SHOWN else ""
    return (
        f"{first.text} ({len(others)} more of the {num_files} masks or their images have problems:"
        f" {shown}{more})"
    )
