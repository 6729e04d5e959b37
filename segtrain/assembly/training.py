"""A whole run from a checked configuration; what several parts must agree on is checked here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from segtrain.assembly.batches import build_mixing, train_transform
from segtrain.assembly.caching import cache_splits, fill_caches
from segtrain.assembly.class_balance import ClassBalance
from segtrain.assembly.criterion import add_learned, criterion_of
from segtrain.assembly.evaluation import evaluator_of
from segtrain.assembly.metadata import metadata_of
from segtrain.assembly.model import build_model
from segtrain.assembly.splits import Splits, dataset_title, open_splits
from segtrain.assembly.trial import try_criterion, try_model
from segtrain.data import (
    StepSampler,
    TrainBatch,
    build_train_loader,
    iterate,
    prefetch_shards,
)
from segtrain.engine import OPTIMIZERS, SCHEDULERS, Trainer
from segtrain.engine.checkpoint import find_checkpoint, load_checkpoint
from segtrain.engine.distributed import Processes
from segtrain.engine.run_directory import Run, create_run_dir
from segtrain.files import write_text
from segtrain.schema.sections import (
    Config,
)
from segtrain.terminal import logger


def run_name(config: Config) -> str:
    """What a run without a name is called."""
    parts = (dataset_title(config), config.model["name"], config.loss["name"])
    return config.name or "_".join(map(str, parts))


def build_trainer(config: Config, processes: Processes) -> Trainer:
    """Everything that a training run needs, built and checked; nothing has been trained.

    Raises:
        SegtrainError: When the configuration, the data, or the checkpoint to go on from is wrong.
    """
    _seed(config.seed + processes.rank)
    resumed_from = _checkpoint_to_resume(config)
    state = None if resumed_from is None else load_checkpoint(resumed_from)
    splits = open_splits(config, processes)
    train = splits.train
    labels = train.labels
    model = build_model(config.model, labels, state, processes, channels=train.channels)
    outputs = try_model(model, config.model["name"])
    if config.augmentation.crop_size is not None and processes.world_size == 1:
        model.check_norms(
            (config.trainer.batch_size, model.in_channels, *config.augmentation.crop_size)
        )
    known = {} if state is None else state.get("metadata", {})
    balance = ClassBalance(splits, known.get("class_weights"))
    criterion = criterion_of(config, labels, model.align_corners, outputs, balance.weights)
    try_criterion(criterion, outputs, config.loss["name"], multi_label=labels.multi_label)
    sampler = partial(
        StepSampler,
        batch_size=config.trainer.batch_size,
        accumulate=config.trainer.accumulate,
        world_size=processes.world_size,
        rank=processes.rank,
        seed=config.seed,
        order=balance.order(config.loader, config.seed)
        or splits.order(config.seed, config.trainer.batch_size * processes.world_size),
    )
    sampler(len(train))  # a batch that is too large for the data is found before the data is read
    splits.check()
    splits.check_sizes(config.augmentation.crop_size, config.trainer.batch_size)
    sampler = partial(sampler, len(splits.train))
    steps_per_epoch = sampler().steps_per_epoch
    total_steps = config.trainer.max_steps or (config.trainer.epochs or 0) * steps_per_epoch
    model.to(processes.device)
    optimizer = OPTIMIZERS.build(config.optimizer, model=model)
    criterion.to(processes.device)
    add_learned(optimizer, criterion)
    scheduler = SCHEDULERS.build(config.scheduler, optimizer=optimizer, total_steps=total_steps)
    transform = train_transform(config.augmentation, labels, train.channels)
    mixing = build_mixing(config, labels)
    train, val = cache_splits((splits.train, splits.val), config.loader, processes)

    def batches(start_step: int) -> Iterator[TrainBatch]:
        loader = build_train_loader(
            train,
            transform,
            sampler(start_step=start_step),
            mixing=mixing,
            num_workers=config.loader.num_workers,
            prefetch_factor=config.loader.prefetch_factor,
        )
        return prefetch_shards(iterate(loader), train, sampler(start_step=start_step))

    trainer = Trainer(
        config,
        model=model,
        criterion=criterion,
        optimizer=optimizer,
        scheduler=scheduler,
        batches=batches,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        evaluator=evaluator_of(
            config,
            val,
            config.evaluation,
            processes,
            config.loader,
            model.align_corners,
        ),
        processes=processes,
        metadata={**metadata_of(config, labels, model), "class_weights": balance.found},
    )
    if state is not None and resumed_from is not None:
        trainer.load_state(state, resumed_from)
    if processes.is_main:  # last: a run that cannot start writes nothing
        trainer.run = _open_run(config, resumed_from, trainer.step)
        _announce(trainer, splits, resumed_from)
        balance.announce(trainer.run.path)
    fill_caches((train, val), config.loader, processes)
    return trainer


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  for the user's code; ours has its own generators
    torch.manual_seed(seed)


def _checkpoint_to_resume(config: Config) -> Path | None:
    if config.resume is None:
        return None
    if config.resume != "auto":
        return find_checkpoint(config.resume, "last.pt")
    path = Path(str(config.run_dir)) / "checkpoints" / "last.pt"
    return path if path.exists() else None


def _open_run(config: Config, resumed_from: Path | None, step: int) -> Run:
    """The run directory; one that holds a run already is opened for its own continuation only."""
    continues = config.run_dir is not None and (
        config.resume == "auto"
        or (resumed_from is not None and resumed_from.is_relative_to(config.run_dir))
    )
    path = create_run_dir(config.run_dir, run_name(config), resuming=continues)
    return Run(path, config.to_dict(), first_step=step)


def _announce(trainer: Trainer, splits: Splits, resumed_from: Path | None) -> None:
    assert trainer.run is not None
    if splits.left_out:
        path = trainer.run.path / "left_out.txt"
        write_text(path, "".join(f"{text}\n" for text in splits.left_out))
        logger.warning("%d samples are left out, see %s", len(splits.left_out), path)
    millions = sum(parameter.numel() for parameter in trainer.model.parameters()) / 1e6
    parts = [f"dataset {dataset_title(trainer.config)}"] + [
        f"{section} {getattr(trainer.config, section)['name']}"
        for section in ("model", "loss", "mining")
    ]
    logger.info(
        "%s; %.2f M parameters, %d train and %d val images, %d steps on %d x %s",
        ", ".join(parts),
        millions,
        len(splits.train),
        len(splits.val),
        trainer.total_steps,
        trainer.processes.world_size,
        trainer.processes.device,
    )
    logger.info("run directory: %s", trainer.run.path)
    if trainer.model.load_report is not None:
        logger.info("%s", trainer.model.load_report.summary())
    if resumed_from is not None:
        logger.info("going on from %s at step %d", resumed_from, trainer.step)
