"""What a user typed to start a run, which its configuration no longer shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The words that a run was started with.

    Attributes:
        overrides: The overrides as typed, such as ``loss=ce_dice`` and ``seed=1``.
        choices: The chosen file or name of each group, such as ``{"loss": "ce_dice"}``.
    """

    overrides: tuple[str, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)

    def choice(self, group: str, spec: Mapping[str, object]) -> str:
        """The chosen name of a group; without a choice, the ``name`` in its section `spec`."""
        return str(self.choices.get(group) or spec["name"])
