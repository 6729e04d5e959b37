"""What a run of a sweep must know about the launcher that starts it."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from segtrain.errors import ConfigError, ResourceError
from segtrain.schema.values import did_you_mean
from segtrain.terminal import start_logging

READY = "ready_"
"""What the names of our own configs of launchers and sweepers begin with."""
# The plugin of Hydra that provides each choice, and how to install it.
_PLUGINS = {
    "hydra/launcher=joblib": ("hydra_joblib_launcher", "segtrain[sweep]"),
    "hydra/launcher=submitit_local": ("hydra_submitit_launcher", "segtrain[sweep]"),
    "hydra/launcher=submitit_slurm": ("hydra_submitit_launcher", "segtrain[sweep]"),
    "hydra/launcher=ray": ("hydra_ray_launcher", "hydra-ray-launcher"),
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "segtrain[sweep]"),
}


def ready_config(choice: str) -> str:
    """Replace a launcher or a sweeper by our config of it, which completes that of its plugin.

    Args:
        choice: An override, such as ``hydra/launcher=joblib``; others are returned as they are.

    Raises:
        ResourceError: When the plugin is missing; the message names the command that installs it.
    """
    if choice not in _PLUGINS:
        return choice
    module, package = _PLUGINS[choice]
    if importlib.util.find_spec(f"hydra_plugins.{module}") is None:
        distribution = module.replace("_", "-")
        raise ResourceError(f"{choice} needs the package {distribution}: pip install '{package}'")
    return choice.replace("=", f"={READY}")


def check_launcher(group: str, name: str, options: Sequence[str]) -> None:
    """Check that Hydra has a launcher or a sweeper.

    Args:
        group: ``hydra/launcher`` or ``hydra/sweeper``.
        name: The choice.
        options: The choices that Hydra finds.

    Raises:
        ConfigError: When it has none of this name.
    """
    if name not in options:
        known = {option for option in options if not option.startswith(READY)}
        known |= {choice.partition("=")[2] for choice in _PLUGINS if choice.startswith(group)}
        raise ConfigError(f"unknown {group} {name!r}{did_you_mean(name, sorted(known))}")


def threads_per_run(launcher: Mapping[str, Any], runs: int, cores: int) -> int | None:
    """The number of CPU threads of a run that shares the machine with others.

    Args:
        launcher: The section ``hydra.launcher``.
        runs: The number of runs of the sweep.
        cores: The number of CPU cores.

    Returns:
        The threads; None if the run has the machine to itself.

    Example:
        >>> threads_per_run({"_target_": "x.JoblibLauncher", "n_jobs": 4}, runs=9, cores=16)
        4
        >>> threads_per_run({"_target_": "x.BasicLauncher"}, runs=9, cores=16)
    """
    kind = str(launcher.get("_target_", "")).rpartition(".")[2]
    if kind == "JoblibLauncher":
        jobs = int(launcher.get("n_jobs") or -1)
        side_by_side = cores + 1 + jobs if jobs < 0 else jobs
        return max(cores // max(min(side_by_side, runs), 1), 1)
    if kind in ("LocalLauncher", "SlurmLauncher"):
        return int(launcher.get("cpus_per_task") or 1)
    if kind == "RayLauncher":
        return max(int(launcher.get("ray", {}).get("remote", {}).get("num_cpus") or 1), 1)
    return None


def usable_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def enter_worker(launcher: Mapping[str, Any], runs: int) -> None:
    """Prepare the process of a run: its output, its threads, and its rank among several."""
    threads = threads_per_run(launcher, runs, usable_cores())
    start_logging(only_warnings=threads is not None)
    if threads is not None:
        torch.set_num_threads(threads)
    if multiprocessing.get_start_method(allow_none=True) == "loky":
        # joblib's own way to start processes, in which the loader cannot start its workers
        multiprocessing.set_start_method(None, force=True)
    if "submitit" in sys.modules:
        _enter_submitit()


def _enter_submitit() -> None:
    """Tell torch.distributed what submitit knows about the processes of this run."""
    import submitit  # noqa: PLC0415  an extra, loaded by its launcher

    try:
        job = submitit.JobEnvironment()
    except RuntimeError:  # this process is not a job
        return
    if job.num_tasks == 1:
        return
    number = int("".join(filter(str.isdigit, job.job_id)) or 0)
    os.environ.update(
        RANK=str(job.global_rank),
        LOCAL_RANK=str(job.local_rank),
        WORLD_SIZE=str(job.num_tasks),
        MASTER_ADDR=job.hostnames[0],
        MASTER_PORT=str(20_000 + number % 20_000),
    )
