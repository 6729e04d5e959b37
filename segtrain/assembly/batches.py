"""The batches that a run trains on."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from segtrain.assembly.class_balance import ClassBalance
from segtrain.assembly.splits import Splits
from segtrain.data import (
    LabelContract,
    Mixing,
    SegmentationDataset,
    StepSampler,
    TrainBatch,
    TrainTransform,
    build_train_loader,
    iterate,
    prefetch_shards,
)
from segtrain.data.loading.sampler import Order
from segtrain.data.transforms.tensors import RGB
from segtrain.engine.distributed import Processes
from segtrain.errors import ResourceError
from segtrain.schema.sections import AugmentationConfig, Config
from segtrain.terminal import logger

_SHARED = Path("/dev/shm")


class Batches:
    """The micro-batches of one process; ``batches(start_step)`` is an endless stream of them.

    Args:
        config: The configuration of the run.
        dataset: The training split.
        processes: This process among those of the run.
        order: The indices of each epoch; None: a random permutation.

    Attributes:
        steps_per_epoch: Optimizer steps in one pass over the training split.

    Raises:
        ConfigError: When the augmentation does not fit the dataset.
        DataError: When the dataset has fewer samples than one step needs.
    """

    def __init__(
        self,
        config: Config,
        dataset: SegmentationDataset,
        processes: Processes,
        order: Order | None = None,
    ) -> None:
        self.config, self.dataset, self.processes, self.order = config, dataset, processes, order
        self.transform = train_transform(config.augmentation, dataset.labels, dataset.channels)
        self.mixing = _mixing(config.augmentation, dataset.labels)
        self.steps_per_epoch = self._sampler(0).steps_per_epoch
        check_shared_memory(config, dataset)

    def __call__(self, start_step: int) -> Generator[TrainBatch]:
        """The micro-batches from optimizer step `start_step` on."""
        sampler = self._sampler(0 if self.config.trainer.overfit else start_step)
        loader = build_train_loader(
            self.dataset,
            self.transform,
            sampler,
            mixing=self.mixing,
            num_workers=self.config.loader.num_workers,
            prefetch_factor=self.config.loader.prefetch_factor,
        )
        with closing(iterate(loader)) as loaded:
            batches = prefetch_shards(loaded, self.dataset, sampler)
            if self.config.trainer.overfit:
                first = list(itertools.islice(batches, self.config.trainer.accumulate))
                yield from itertools.cycle(first)
            yield from batches

    def _sampler(self, start_step: int) -> StepSampler:
        return step_sampler(
            self.config, len(self.dataset), self.processes, self.order, start_step=start_step
        )


def check_shared_memory(config: Config, dataset: SegmentationDataset) -> None:
    """Check that the batches that workers prepare fit into the shared memory.

    Raises:
        ResourceError: When they do not, since a worker would then be killed without a word.
    """
    size, workers = config.augmentation.crop_size, config.loader.num_workers
    if size is None or not workers or not _SHARED.is_dir():
        return
    pixels = config.trainer.batch_size * size[0] * size[1]
    batches = workers * (config.loader.prefetch_factor or 2)
    try:
        free = shutil.disk_usage(_SHARED).free
    except OSError:
        return
    needed = batches * pixels * (4 * dataset.channels + 1)
    if needed > free:  # images of bytes need less; only then is one read
        needed = batches * pixels * (dataset[0].image.itemsize * dataset.channels + 1)
    if needed > free:
        raise ResourceError(
            f"the shared memory {_SHARED} has {free / 1e6:.0f} MB free, but {workers} data workers"
            f" need {needed / 1e6:.0f} MB for their batches; use loader.num_workers=0, a lower"
            " loader.prefetch_factor, or a larger one (docker run --shm-size)"
        )


def step_sampler(
    config: Config,
    length: int,
    processes: Processes,
    order: Order | None = None,
    *,
    start_step: int = 0,
) -> StepSampler:
    """The sampler of a training split of `length` samples.

    Raises:
        DataError: When one step needs more samples than the split has.
    """
    return StepSampler(
        length,
        batch_size=config.trainer.batch_size,
        accumulate=config.trainer.accumulate,
        world_size=processes.world_size,
        rank=processes.rank,
        seed=config.seed,
        start_step=start_step,
        order=order,
    )


def epoch_order(
    config: Config, splits: Splits, balance: ClassBalance, processes: Processes
) -> Order | None:
    """The order of the samples in each epoch; None: a random permutation.

    Raises:
        SegtrainError: When the order depends on pixel counts, and the split cannot be counted.
    """
    by_class = balance.order(config.loader, config.seed)
    return by_class or splits.order(config.seed, config.trainer.batch_size * processes.world_size)


def train_transform(
    augmentation: AugmentationConfig, labels: LabelContract, channels: int
) -> TrainTransform:
    """Return the transform of training samples, without saturation and hue for other than RGB."""
    if channels != RGB and (augmentation.saturation or augmentation.hue):
        logger.warning(
            "images of %d channels have no saturation and no hue, so augmentation.saturation and"
            " augmentation.hue do nothing",
            channels,
        )
        augmentation = replace(augmentation, saturation=0.0, hue=0.0)
    return TrainTransform(labels, augmentation, channels)


def _mixing(augmentation: AugmentationConfig, labels: LabelContract) -> Mixing | None:
    """How samples of a batch are mixed; None: not at all."""
    if augmentation.mix is None:
        return None
    return Mixing(augmentation.mix, augmentation.mix_prob, labels.ignore_label)
