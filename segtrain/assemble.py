"""A whole run from a checked configuration; what several parts must agree on is checked here."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segtrain.build import build_criterion
from segtrain.caching import cache_splits, fill_caches
from segtrain.check import check_config
from segtrain.config import (
    AugmentationConfig,
    Config,
    EvaluateConfig,
    EvaluationConfig,
    LoaderConfig,
    Spec,
)
from segtrain.criterion import Criterion
from segtrain.data import (
    DATASETS,
    EvalTransform,
    FileDataset,
    LabelContract,
    Mixing,
    SegmentationDataset,
    Statistics,
    StepSampler,
    TrainBatch,
    TrainTransform,
    build_eval_loader,
    build_train_loader,
    fetch_ahead,
    iterate,
)
from segtrain.engine import OPTIMIZERS, SCHEDULERS, Evaluator, Trainer
from segtrain.engine.checkpoint import State, find_checkpoint, load_checkpoint
from segtrain.engine.distributed import Processes
from segtrain.engine.run import Run, create_run_dir
from segtrain.errors import CheckpointError, ConfigError, DataError, SegtrainError
from segtrain.files import write_text
from segtrain.inference.predictor import restore_model
from segtrain.losses.build import is_no_mining
from segtrain.losses.class_weights import AutoWeights
from segtrain.models import Segmentor
from segtrain.splits import Splits, scan_split
from segtrain.starting import build_model, without_weights
from segtrain.terminal import logger
from segtrain.trial import check_channels, try_criterion, try_dataset, try_model
from segtrain.version import __version__
from segtrain.weighting import ClassBalance


def run_name(config: Config) -> str:
    """What a run without a name is called."""
    parts = (dataset_title(config), config.model["name"], config.loss["name"])
    return config.name or "_".join(map(str, parts))


def dataset_title(config: Config) -> str:
    """What the data of a run is called: its title, or the name of its class."""
    return str(config.dataset.get("title") or config.dataset["name"])


def build_trainer(config: Config, processes: Processes) -> Trainer:
    """Everything that a training run needs, built and checked; nothing has been trained.

    Raises:
        SegtrainError: When the configuration, the data, or the checkpoint to go on from is wrong.
    """
    _seed(config.seed + processes.rank)
    resumed_from = _checkpoint_to_resume(config)
    state = None if resumed_from is None else load_checkpoint(resumed_from)
    splits = _open_splits(config, processes)
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
    criterion = _build_criterion(config, labels, model.align_corners, outputs, balance.weights)
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
    _add_learned(optimizer, criterion)
    scheduler = SCHEDULERS.build(config.scheduler, optimizer=optimizer, total_steps=total_steps)
    transform = train_transform(config.augmentation, labels, train.channels)
    mixing = _mixing(config, labels)
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
        return fetch_ahead(iterate(loader), train, sampler(start_step=start_step))

    trainer = Trainer(
        config,
        model=model,
        criterion=criterion,
        optimizer=optimizer,
        scheduler=scheduler,
        batches=batches,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        evaluator=_build_evaluator(
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


def _open_splits(config: Config, processes: Processes) -> Splits:
    _download_once(config.dataset, processes)
    train, val = (DATASETS.build(config.dataset, split=split) for split in ("train", "val"))
    return Splits(train, val, dataset_title(config), processes)


def _download_once(spec: Spec, processes: Processes) -> None:
    """Let the main process download what is to be downloaded, before the others look for it."""
    problem = None
    if spec.get("download") and processes.world_size > 1 and processes.is_main:
        try:
            DATASETS.build(spec, split="train")
        except SegtrainError as error:
            problem = error
    if processes.any(int(problem is not None)):
        raise problem or DataError("the main process could not get the data, see its message")


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


def _build_criterion(
    config: Config,
    labels: LabelContract,
    align_corners: bool,
    outputs: Collection[str],
    auto_weights: AutoWeights,
) -> Criterion:
    mining = None if is_no_mining(config.mining) else config.mining
    given = config.criterion
    for key in ("output_weights", "output_losses", "output_targets"):
        _check_names(getattr(given, key), outputs, key, config.model["name"])
    return build_criterion(
        config.loss,
        num_classes=labels.num_classes,
        ignore_label=labels.ignore_label,
        align_corners=align_corners,
        outputs=list(outputs),
        output_weights=given.output_weights,
        output_losses=given.output_losses,
        output_targets=given.output_targets,
        strip_rows=given.strip_rows,
        mining=mining,
        class_names=labels.names,
        auto_weights=auto_weights,
    )


def _check_names(given: Any, outputs: Collection[str], key: str, model: str) -> None:
    """Refuse an output that the model has not; weights must name every output that it has."""
    if not isinstance(given, dict):
        return
    missing = set(outputs) - set(given) if key == "output_weights" else set()
    if missing or not set(given) <= set(outputs):
        raise ConfigError(
            f"criterion.{key} names {', '.join(given) or 'no output'}, but the outputs of model"
            f" {model!r} are {', '.join(outputs)}"
        )


def _add_learned(optimizer: torch.optim.Optimizer, criterion: Criterion) -> None:
    """Train what the criterion learns, at the learning rate of the backbone and without decay."""
    learned = [parameter for parameter in criterion.parameters() if parameter.requires_grad]
    if learned:
        rate = optimizer.param_groups[0]["lr"]
        optimizer.add_param_group({"params": learned, "lr": rate, "weight_decay": 0.0})


def train_transform(
    augmentation: AugmentationConfig, labels: LabelContract, channels: int
) -> TrainTransform:
    """What training does to each sample."""
    of_batches = ("mix", "mix_prob")
    options = {
        field.name: getattr(augmentation, field.name)
        for field in fields(augmentation)
        if field.name not in of_batches
    }
    if channels != _RGB and (options["saturation"] or options["hue"]):
        logger.warning(
            "images of %d channels have no saturation and no hue, so augmentation.saturation and"
            " augmentation.hue do nothing",
            channels,
        )
        options.update(saturation=0.0, hue=0.0)
    return TrainTransform(labels=labels, channels=channels, **options)


def _mixing(config: Config, labels: LabelContract) -> Mixing | None:
    given = config.augmentation
    return None if given.mix is None else Mixing(given.mix, given.mix_prob, labels.ignore_label)


def _build_evaluator(
    config: Config,
    dataset: SegmentationDataset,
    evaluation: EvaluationConfig,
    processes: Processes,
    loader: LoaderConfig,
    align_corners: bool,
) -> Evaluator:
    given = config.augmentation
    statistics = Statistics(given.mean, given.std, dataset.channels)
    mean, std = statistics.mean, statistics.std
    return Evaluator(
        build_eval_loader(
            dataset,
            EvalTransform(mean, std, dataset.labels, evaluation.size),
            batch_size=evaluation.batch_size,
            world_size=processes.world_size,
            rank=processes.rank,
            num_workers=loader.num_workers,
            prefetch_factor=loader.prefetch_factor,
        ),
        labels=dataset.labels,
        processes=processes,
        align_corners=align_corners,
        precision=config.trainer.precision,
        channels_last=config.trainer.channels_last,
        mean=mean,
        std=std,
        num_pictures=config.trainer.log_images,
    )


_RGB = 3  # channels
_READING = ("value_range", "exif", "max_pixels")  # of the dataset's keys, what files are read by


def metadata_of(config: Config, labels: LabelContract, model: Segmentor) -> State:
    """What a predictor needs beside the weights, in plain values."""
    given = config.augmentation
    statistics = Statistics(given.mean, given.std, model.in_channels)
    return {
        "segtrain": __version__,
        "model": {
            **without_weights(config.model),
            "align_corners": model.align_corners,
            **({"in_channels": model.in_channels} if "in_channels" in config.model else {}),
        },
        "channels": model.in_channels,
        "reading": {key: config.dataset[key] for key in _READING if key in config.dataset},
        "multi_label": labels.multi_label,
        "num_classes": labels.num_classes,
        "ignore_label": labels.ignore_label,
        "class_names": list(labels.names),
        "palette": [list(colour) for colour in labels.colours],
        "mean": list(statistics.mean),
        "std": list(statistics.std),
        "size": None if config.evaluation.size is None else list(config.evaluation.size),
        "align_corners": model.align_corners,
        "precision": config.trainer.precision,
        "channels_last": config.trainer.channels_last,
    }


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


def build_evaluation(
    config: EvaluateConfig, processes: Processes
) -> tuple[Evaluator, Segmentor, State]:
    """What it takes to score a checkpoint: evaluator, model and the checkpoint's state.

    Raises:
        SegtrainError: When the checkpoint, the dataset or the configuration is wrong.
    """
    path = find_checkpoint(config.checkpoint)
    state = load_checkpoint(path)
    model = restore_model(state, path)
    try:
        trained = check_config(state["config"])
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a configuration that is none: {error}") from error
    given = config.dataset or {}
    spec = given if "name" in given else {**trained.dataset, **given}
    _download_once(spec, processes)
    dataset = DATASETS.build(spec, split=config.split)
    if dataset.num_classes != model.num_classes:
        raise ConfigError(
            f"the checkpoint tells {model.num_classes} classes apart, but the dataset has"
            f" {dataset.num_classes}"
        )
    if dataset.labels.multi_label != bool(state["metadata"].get("multi_label")):
        raise ConfigError(
            f"dataset.multi_label={str(dataset.labels.multi_label).lower()} is not what the"
            " checkpoint was trained with"
        )
    check_channels(model, dataset.channels)
    if isinstance(dataset, FileDataset):  # in every process, so that all leave out the same
        _, dataset = scan_split(dataset)
    try_dataset(dataset, str(spec["name"]))
    evaluator = _build_evaluator(
        trained,
        dataset,
        config.evaluation or trained.evaluation,
        processes,
        config.loader,
        model.align_corners,
    )
    return evaluator, model.to(processes.device), state
