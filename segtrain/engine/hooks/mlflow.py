"""A logger for MLflow."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segtrain.engine.hooks.base import HOOKS
from segtrain.engine.hooks.tracker import Tracker, exit_code, without_secrets
from segtrain.errors import ConfigError

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_NOT_ALLOWED = re.compile(r"[^\w.\- :/]")  # in the names of parameters and metrics
_LONGEST = 6000  # characters of a parameter
_MOST_METRICS, _MOST_PARAMETERS = 1000, 100  # of one message


@HOOKS.register("mlflow")
class MLflow(Tracker):
    """Log the run to MLflow: to a server, or offline to a database on this machine.

    Args:
        experiment: The experiment of the run; it is created if it does not exist.
        tracking_uri: A server (``http://...``), or a local file (``sqlite:///mlflow.db``); null:
            the variable MLFLOW_TRACKING_URI, or else ``sqlite:///mlflow.db``.
        tags: Tags of the run.
    """

    package = "mlflow"

    def __init__(
        self,
        *,
        experiment: str = "segtrain",
        tracking_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.experiment, self.tags = experiment, dict(tags or {})
        self.tracking_uri = tracking_uri or self.module.get_tracking_uri()
        if not experiment.strip():
            raise ConfigError("experiment is empty; give the experiment a name")
        if not self.tracking_uri.startswith(_DATABASES):
            self.module.MlflowClient(self.tracking_uri)  # refuses an address; connects to nothing
        # It warns of each attempt to reach a server; one warning is enough.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

    def connect(self, name: str, config: Mapping[str, Any], *, resumes: bool) -> None:
        self.client = self.module.MlflowClient(self.tracking_uri)
        known: Mapping[str, str] = {}
        if resumes:
            known = self.client.get_run(self.id).data.params
            self.client.update_run(self.id, status="RUNNING")
        else:
            tags = {"run_dir": config["run_dir"], **self.tags}
            run = self.client.create_run(self._experiment_id(), run_name=name, tags=tags)
            self.id = run.info.run_id
        self._log_config(config, known)

    def _experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(self.experiment))
        except self.module.MlflowException:  # another run has just created it
            found = self.client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _log_config(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Log parameters; those of a resumed run that changed are tags, since MLflow keeps them."""
        given = {_allowed(key): str(value)[:_LONGEST] for key, value in config.items()}
        new = [self.module.entities.Param(*pair) for pair in given.items() if pair[0] not in known]
        for start in range(0, len(new), _MOST_PARAMETERS):
            self.client.log_batch(self.id, params=new[start : start + _MOST_PARAMETERS])
        for key, value in given.items():
            if known.get(key, value) != value:
                self.client.set_tag(self.id, f"resumed.{key}", value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [
            self.module.entities.Metric(_allowed(key), value, now, step)
            for key, value in values.items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            self.client.log_batch(self.id, metrics=metrics[start : start + _MOST_METRICS])

    def upload(self, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), "checkpoints")

    def finish(self, error: BaseException | None, *, is_done: bool) -> None:
        stopped = "FAILED" if exit_code(error) else "KILLED"
        self.client.set_terminated(self.id, "FINISHED" if is_done else stopped)

    @property
    def place(self) -> str:
        return (
            f"run {self.id} of the experiment {self.experiment} in"
            f" {without_secrets(self.tracking_uri)}"
        )


def _allowed(name: str) -> str:
    return _NOT_ALLOWED.sub("_", name)
