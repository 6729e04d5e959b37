"""A logger for trackio."""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segtrain.engine.hooks.base import HOOKS
from segtrain.engine.hooks.tracker import Tracker, without_secrets


@HOOKS.register("trackio")
class Trackio(Tracker):
    """Log the run to trackio: to a database on this machine, to a server or to a Space.

    trackio finds a run by its name, so the name of each new run gets a random ending.

    Args:
        project: The project of the run.
        space_id: A Space of Hugging Face (``user/name``); null: the variable TRACKIO_SPACE_ID.
        server_url: Your own server, whose token is the variable TRACKIO_WRITE_TOKEN; null: the
            variable TRACKIO_SERVER_URL. Without a space and a server the run is logged on this
            machine, in the folder TRACKIO_DIR.
        group: A name that several runs share, such as those of a sweep.
    """

    package = "trackio"

    def __init__(
        self,
        *,
        project: str = "segtrain",
        space_id: str | None = None,
        server_url: str | None = None,
        group: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.project, self.group = project, group
        self.space_id, self.server_url = space_id, server_url
        self.run: Any = None

    def new_id(self, name: str) -> str | None:
        return f"{name}-{secrets.token_hex(3)}"

    def connect(self, name: str, config: Mapping[str, Any], *, resumes: bool) -> None:  # noqa: ARG002
        with _silent():
            self.run = self.module.init(
                self.project,
                self.id,
                group=self.group,
                space_id=self.space_id,
                server_url=self.server_url,
                config=dict(config),
                resume="allow" if resumes else "never",
                embed=False,
            )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def upload(self, path: Path) -> None:
        self.run.log_artifact(str(path), name=f"{self.id}-best", type="model")

    def finish(self, error: BaseException | None, *, is_done: bool) -> None:  # noqa: ARG002
        with _silent():
            self.run.finish()

    @property
    def place(self) -> str:
        where = self.space_id or self.server_url or str(self.module.utils.TRACKIO_DIR)
        where = without_secrets(where)
        return f"run {self.id} in {where}; `trackio show --project {self.project}` shows it"


def _silent() -> contextlib.AbstractContextManager[object]:
    """Drop what trackio prints on standard output, which is for the result of a command."""
    return contextlib.redirect_stdout(io.StringIO())
