"""Build a training run from a checked configuration."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler

from segtrain.assembly.batches import Batches, epoch_order, step_sampler
from segtrain.assembly.caching import cache_splits, fill_caches
from segtrain.assembly.class_balance import ClassBalance
from segtrain.assembly.criterion import add_learned_parameters, criterion_for_model
from segtrain.assembly.evaluation import build_evaluator, check_scores
from segtrain.assembly.metadata import checkpoint_metadata, samples_digest
from segtrain.assembly.model import starting_model
from segtrain.assembly.opening import dataset_title
from segtrain.assembly.record import loss_label, run_record
from segtrain.assembly.splits import Splits, open_splits, open_test_split
from segtrain.assembly.starting_point import open_checkpoint
from segtrain.criterion import Criterion
from segtrain.engine import OPTIMIZERS, SCHEDULERS, Trainer
from segtrain.engine.device import is_slow
from segtrain.engine.disk import check_writable
from segtrain.engine.distributed import Processes
from segtrain.engine.moving_average import MovingAverage
from segtrain.engine.parallel import Parallel
from segtrain.engine.resume import resume
from segtrain.engine.run_directory import Run, check_name, check_unused, create_run_dir
from segtrain.files import write_text
from segtrain.models import Segmentor
from segtrain.schema.origin import Origin
from segtrain.schema.sections import Config, TrainerConfig
from segtrain.terminal import logger


def build_trainer(config: Config, processes: Processes, origin: Origin | None = None) -> Trainer:
    """Build and check everything that a training run needs, without training a step.

    The run directory is created last, so a run that cannot start writes nothing.

    Args:
        config: The configuration of the run.
        processes: The processes of the run.
        origin: What the user typed, which names the run.

    Raises:
        SegtrainError: When the configuration, the data, or the checkpoint to resume is wrong.
    """
    _seed_global_generators(config.seed + processes.rank)
    if processes.is_main:
        _check_run_dir(config, origin or Origin())
    resumed = open_checkpoint(config, processes)
    splits = open_splits(config, processes)
    check_scores(config, splits.train.labels)
    step_sampler(config, len(splits.train), processes)  # a batch that is too large fails early
    model, outputs = starting_model(config, splits.train, resumed.state, processes)
    balance = ClassBalance(splits, resumed.class_weights)
    criterion = criterion_for_model(config, splits.train.labels, model, outputs, balance.weights)
    splits.check()
    together = processes.world_size if criterion.is_global else 1  # they exchange maps of one size
    splits.check_sizes(config.augmentation.crop_size, together * config.trainer.batch_size)
    test = open_test_split(config, splits.opened, processes)
    order = epoch_order(config, splits, balance, processes)
    train, val = cache_splits((splits.train, splits.val), config.loader, processes)
    batches = Batches(config, train, processes, order)
    total_steps = config.trainer.max_steps or (config.trainer.epochs or 0) * batches.steps_per_epoch
    parallel = _parallel(processes, config.trainer)
    moving_average = _place(config, model, criterion, parallel)
    optimizer, scheduler = _optimization(config, model, criterion, total_steps)
    evaluator = partial(
        build_evaluator, config, processes=processes, align_corners=model.align_corners
    )
    trainer = Trainer(
        config,
        model=model,
        moving_average=moving_average,
        parallel=parallel,
        criterion=criterion,
        optimizer=optimizer,
        scheduler=scheduler,
        batches=batches,
        steps_per_epoch=batches.steps_per_epoch,
        total_steps=total_steps,
        normalization=batches.transform.normalization,
        evaluator=evaluator(val),
        test_evaluator=None if test is None else evaluator(test),
        processes=processes,
        metadata=checkpoint_metadata(
            config,
            splits.train.labels,
            model,
            balance.found,
            splits.image_values,
            samples_digest(splits.train),
        ),
    )
    if resumed.path is not None:
        resume(trainer, resumed.state, resumed.path)
    fill_caches((train, val), config.loader, processes)
    if processes.is_main:
        origin = origin or Origin()
        data = {"train": splits.train, "val": splits.val, **({"test": test} if test else {})}
        record = run_record(config, origin, data, processes)
        path = _open_run_dir(config, origin, resumed.path)
        name = shown_name(config, origin)
        trainer.run = Run(path, config.to_dict(), record, name=name, first_step=trainer.step)
        _announce(trainer, splits, resumed.path)
        balance.announce(trainer.run.path)
    return trainer


def run_name(config: Config, origin: Origin) -> str:
    """The name of a run: `config.name`, or dataset, model and loss as the user typed them."""
    if config.name:
        return check_name("name", config.name)
    _title(config)
    return shown_name(config, origin)


def shown_name(config: Config, origin: Origin) -> str:
    """The name of a run where it is no part of a path, such as in a logger."""
    model = origin.choice("model", config.model)
    return config.name or f"{dataset_title(config)}_{model}_{loss_label(config, origin)}"


def sweep_name(config: Config) -> str:
    """The name of a sweep whose first run has this configuration."""
    if config.name:
        return check_name("name", config.name)
    return f"{_title(config)}_{config.model['name']}"


def _title(config: Config) -> str:
    return check_name("dataset.title", dataset_title(config))


def _seed_global_generators(seed: int) -> None:
    """Seed what models and the user's code draw from; segtrain's data has its own generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the global generator is meant
    torch.manual_seed(seed)


def _parallel(processes: Processes, options: TrainerConfig) -> Parallel:
    """How the processes share the model; one process always has all of it."""
    if options.parallel == "ddp" or processes.world_size == 1:
        return Parallel(processes, options)
    from segtrain.engine.fully_sharded import FullySharded  # noqa: PLC0415  slow to import

    return FullySharded(processes, options)


def _place(
    config: Config, model: Segmentor, criterion: Criterion, parallel: Parallel
) -> MovingAverage | None:
    """Move model and criterion to the device; return the moving average of the weights."""
    model.to(parallel.processes.device)
    criterion.to(parallel.processes.device)
    # Each process has drawn its own weights.
    parallel.processes.broadcast(
        value.detach() for value in (*model.parameters(), *model.buffers())
    )
    decay = config.trainer.ema_decay
    average = MovingAverage(model, decay) if decay else None  # sharded weights cannot be copied
    for one in (model, *([] if average is None else [average.module])):
        parallel.place(one)
    return average


def _optimization(
    config: Config, model: Segmentor, criterion: Criterion, total_steps: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """Return the optimizer of model and criterion, and its schedule."""
    optimizer = OPTIMIZERS.build(config.optimizer, model=model)
    add_learned_parameters(optimizer, criterion)
    scheduler = SCHEDULERS.build(config.scheduler, optimizer=optimizer, total_steps=total_steps)
    return optimizer, scheduler


def _check_run_dir(config: Config, origin: Origin) -> None:
    """Find a run directory that cannot be used before the data is read; write nothing."""
    if config.run_dir is None:
        run_name(config, origin)
        check_writable(Path("outputs"), "run_dir")
        return
    check_writable(Path(config.run_dir), "run_dir")
    if config.resume is None:
        check_unused(Path(config.run_dir))


def _open_run_dir(config: Config, origin: Origin, resumed_from: Path | None) -> Path:
    """Create the run directory; one that already holds a run is used only to resume that run."""
    resumes_in_place = config.run_dir is not None and (
        config.resume == "auto"
        or (resumed_from is not None and resumed_from.is_relative_to(config.run_dir))
    )
    name = run_name(config, origin) if config.run_dir is None else ""
    return create_run_dir(config.run_dir, name, resuming=resumes_in_place)


def _size(model: Segmentor) -> str:
    """The number of parameters, and of those that are trained if a part is frozen."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    part = "" if trained == total else f", {trained / 1e6:.2f} M of them trained"
    return f"{total / 1e6:.2f} M parameters{part}"


def _announce(trainer: Trainer, splits: Splits, resumed_from: Path | None) -> None:
    """Log what is about to be trained, and where it is written."""
    assert trainer.run is not None
    if splits.left_out:
        path = trainer.run.path / "left_out.txt"
        write_text(path, "".join(f"{text}\n" for text in splits.left_out))
        logger.warning("%d samples are left out, see %s", len(splits.left_out), path)
    logger.info(
        "dataset %s, model %s, loss %s; %s, %d train and %d val images, %d steps on %d x %s",
        dataset_title(trainer.config),
        trainer.config.model["name"],
        trainer.run.record["preset"],
        _size(trainer.model),
        len(splits.train),
        len(splits.val),
        trainer.total_steps,
        trainer.processes.world_size,
        trainer.processes.device,
    )
    if is_slow(trainer.processes.device, trainer.options.precision):
        logger.warning(
            "this processor has no instructions for trainer.precision=%s, which is much slower than"
            " trainer.precision=fp32",
            trainer.options.precision,
        )
    if trainer.ema is not None:
        logger.info(
            "scores and best.pt are those of the moving average of the weights, with a decay of at"
            " most %g; trainer.ema_decay=null scores the weights themselves",
            trainer.ema.decay,
        )
    logger.info("run directory: %s", trainer.run.path)
    if trainer.model.load_report is not None:
        logger.info("%s", trainer.model.load_report.summary())
    if resumed_from is not None:
        logger.info("resuming from %s at step %d", resumed_from, trainer.step)
