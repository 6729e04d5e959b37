"""A logger for Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from segtrain.engine.hooks.base import HOOKS
from segtrain.engine.hooks.tracker import Tracker, exit_code
from segtrain.errors import ConfigError, describe_error
from segtrain.terminal import logger

_LONGEST_START = 30  # seconds until a run that cannot reach the server is recorded offline


@HOOKS.register("wandb")
class Wandb(Tracker):
    """Log the run to Weights & Biases, or offline to files that ``wandb sync`` sends later.

    A run that cannot reach the server when it starts is recorded offline.

    Args:
        project: The project of the run.
        entity: The user or team that owns the project; null: your default.
        mode: ``online`` or ``offline``; null: the variable WANDB_MODE, or else ``online``.
        group: A name that several runs share, such as those of a sweep.
        tags: Tags of the run.
    """

    package = "wandb"

    def __init__(
        self,
        *,
        project: str = "segtrain",
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.project, self.entity, self.group, self.tags = project, entity, group, list(tags)
        self.module.Settings(project=project, entity=entity, run_tags=tuple(tags))  # refuses names
        self.mode = mode or self.module.setup().settings.mode
        # It would ask for the key on a terminal, and so wait.
        if self.mode == "online" and not self.module.login(prompt=False, verify=False):
            raise ConfigError(
                "the hook wandb finds no API key: run `wandb login`, set WANDB_API_KEY, or use"
                " {name: wandb, mode: offline}"
            )
        self.run: Any = None

    def new_id(self, name: str) -> str | None:  # noqa: ARG002
        return secrets.token_hex(4)

    def connect(self, name: str, config: Mapping[str, Any], *, resumes: bool) -> None:
        try:
            self.run = self._init(name, config, resumes=resumes)
        except self.module.errors.CommError as error:
            if self.mode != "online":
                raise
            text = "wandb: the server does not start a run (%s); the run is recorded offline"
            logger.warning(text, describe_error(error))
            self.mode = "offline"
            self.module.teardown()  # the id is in use until then
            self.run = self._init(name, config, resumes=resumes)
        self.run.define_metric("*", step_metric="step")

    def _init(self, name: str, config: Mapping[str, Any], *, resumes: bool) -> Any:
        settings = {"console": "off", "silent": True, "init_timeout": _LONGEST_START}
        return self.module.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            group=self.group,
            tags=self.tags,
            id=self.id,
            name=name,
            dir=config["run_dir"],
            config=dict(config),
            allow_val_change=True,
            resume="allow" if resumes else None,
            reinit="create_new",
            settings=self.module.Settings(**settings),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def upload(self, path: Path) -> None:
        artifact = self.module.Artifact(f"run-{self.id}-best", type="model")
        artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def finish(self, error: BaseException | None, *, is_done: bool) -> None:  # noqa: ARG002
        self.run.finish(exit_code=exit_code(error))

    @property
    def place(self) -> str:
        return str(self.run.url) if self.mode == "online" else f"offline; {self.recovery}"

    @property
    def recovery(self) -> str:
        return "" if self.run is None else f"`wandb sync {Path(self.run.dir).parent}` sends the run"
