"""Compare the configuration of a run with that of the checkpoint that it resumes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from segtrain.engine.checkpoint import State, entry
from segtrain.engine.resume_changes import SAMPLES, Change, changes, shown, sides
from segtrain.engine.trainer import Trainer
from segtrain.errors import CheckpointError, ConfigError
from segtrain.terminal import cell, console, logger

_MAX_LISTED = 6  # changes in an error message
_ALLOWED_BY = {SAMPLES: "dataset", "optimizer": "optimizer"}


def check_resumable(trainer: Trainer, state: State, path: Path) -> None:
    """Refuse a configuration that would make another run; show and warn of every other change.

    Args:
        trainer: The trainer, at the step of the checkpoint.
        state: The checkpoint.
        path: The file that it was loaded from, for messages.

    Raises:
        CheckpointError: When a change needs ``resume_allow``.
        ConfigError: When the run is finished, so that a change would only relabel it.
    """
    found = _changes(trainer, state, path)
    if found and trainer.step == trainer.total_steps:
        raise ConfigError(
            f"{path} is finished, but this configuration differs from its own:"
            f" {', '.join(map(str, found))}; choose another run_dir to train with it"
        )
    steps = Change("total steps", entry(state, "total_steps", path), trainer.total_steps)
    listed = [*found, *([steps] if steps.before != steps.now else [])]
    if listed and trainer.processes.is_main:
        console.print(_table(listed, trainer.config.resume_allow))
    allowed = trainer.config.resume_allow
    refused = [one for one in found if not one.is_allowed(allowed)]
    if not (refused or _explains(found, allowed) or moments_fit(trainer, state, path)):
        refused = [one for one in found if one.section == "optimizer"]
        if not refused:
            raise CheckpointError(
                f"{path} does not fit this configuration: its optimizer groups other parameters;"
                " add resume_allow=[optimizer] to resume without its moments"
            )
    if refused:
        raise _refusal(path, refused)
    if listed:
        logger.warning(
            "%s was trained with other values; the new ones are used: %s",
            path,
            ", ".join(map(str, listed)),
        )


def _explains(found: Sequence[Change], allowed: Sequence[str]) -> bool:
    """Whether the user allowed something, which may change the parameters that are optimized."""
    return "optimizer" in allowed or any(
        one.section in allowed or one.key in allowed for one in found
    )


def fitting_moments(trainer: Trainer, state: State, path: Path) -> int:
    """How many of the first parameters of the optimizer have their moments in a checkpoint.

    The moments go by the position of a parameter, so they would reach other parameters if the
    parameters were grouped in another way. Those of a learned loss come last.
    """
    specs = (entry(state, "config", path)["optimizer"], trainer.config.optimizer)
    kinds = [(spec["name"], bool(spec.get("momentum"))) for spec in specs]
    groups = (entry(state, "optimizer", path)["param_groups"], trainer.optimizer.param_groups)
    before, now = ([len(group["params"]) for group in part] for part in groups)
    if kinds[0] != kinds[1]:
        return 0
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
    return sum(count for count, _ in same)


def moments_fit(trainer: Trainer, state: State, path: Path) -> bool:
    """Whether every parameter of the model has its moments in a checkpoint."""
    learned = sum(parameter.requires_grad for parameter in trainer.criterion.parameters())
    of_model = len(trainer.parameters) - learned
    return fitting_moments(trainer, state, path) >= of_model


def describe_world_size(before: int, now: int, samples: tuple[int, int]) -> str:
    """What is exact, and what is not, after a change of the number of processes.

    Args:
        before: Processes of the checkpoint.
        now: Processes of this run.
        samples: Samples per step of all processes, before and now.
    """
    text = (
        f"the run had {before} processes before, now {now}: weights, optimizer and schedule are"
        " exact; random numbers in layers such as dropout are not, nor are averages that each"
        " process keeps"
    )
    if samples[0] == samples[1]:
        return text
    return (
        f"{text}; a step had {samples[0]} samples and has {samples[1]}, so the"
        " order of the samples differs as well (trainer.batch_size and trainer.accumulate can keep"
        " their number)"
    )


def _changes(trainer: Trainer, state: State, path: Path) -> list[Change]:
    """The changes of the configuration, and of the training samples."""
    found = changes(entry(state, "config", path), trainer.config.to_dict())
    before, now = (data.get("samples") for data in (state["metadata"], trainer.metadata))
    if before is None or now is None:  # the dataset does not list its samples
        return found
    if before == now:  # the same samples at another place
        return [change for change in found if change.key != "dataset.root"]
    if any(change.section == "dataset" for change in found):
        return found
    counts = [f"{count} with names of digest {digest}" for count, digest in (before, now)]
    return [*found, Change(SAMPLES, *counts)]


def _table(found: Sequence[Change], allowed: Sequence[str]) -> Table:
    table = Table("key", "checkpoint", "now", "effect: the run ...", title_justify="left")
    for change in found:
        is_allowed = change.key == "total steps" or change.is_allowed(allowed)
        effect = change.effect if change.key != "total steps" else "has another schedule"
        values = (change.shown_key, shown(change.before), shown(change.now))
        table.add_row(*map(cell, values), effect, style=None if is_allowed else "red")
    return table


def _refusal(path: Path, refused: Sequence[Change]) -> CheckpointError:
    before, now = sides(refused[:_MAX_LISTED])
    more = "" if len(refused) <= _MAX_LISTED else f" and {len(refused) - _MAX_LISTED} more changes"
    names = [
        _ALLOWED_BY.get(one.key, _ALLOWED_BY.get(one.section, one.shown_key)) for one in refused
    ]
    sections = [one.section for one in refused]
    wanted = dict.fromkeys(
        section if sections.count(section) > 1 and section != "trainer" else name
        for section, name in zip(sections, names, strict=True)
    )
    return CheckpointError(
        f"{path} was trained with {before or 'other keys'}, but the configuration has"
        f" {now or 'none of these'}{more}; resume with the former, add"
        f" resume_allow=[{','.join(wanted)}] to change it in mid-run, or start a new run from the"
        f" weights alone: leave out resume=, choose another run_dir and set model.weights={path}"
    )
