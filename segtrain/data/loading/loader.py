"""Data loaders whose batches are the same with and without worker processes.

A :class:`~segtrain.errors.SegtrainError` in a worker is returned in place of a batch, and
:func:`iterate` raises it in the main process. PyTorch would wrap it in a traceback of the worker,
and the message for the user would be lost in it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from segtrain.data.dataset import SegmentationDataset
from segtrain.data.loading.rare_classes import RareClassOrder
from segtrain.data.loading.sampler import StepSampler
from segtrain.data.loading.seeds import SampleKey, mixing_generator, sample_seed, seeded_globals
from segtrain.data.loading.workers import (
    end_workers,
    signals_held_back,
    start_worker,
    worker_error,
)
from segtrain.data.transforms.evaluation import EvalTransform
from segtrain.data.transforms.mixing import Mixing
from segtrain.data.transforms.tensors import unit_range
from segtrain.data.transforms.training import TrainTransform
from segtrain.errors import DataError, SegtrainError

_B = TypeVar("_B")
Item = dict[str, Any]


class TrainView(Dataset[Item | SegtrainError]):
    """The augmented samples of a dataset, by :data:`~segtrain.data.loading.seeds.SampleKey`.

    Args:
        dataset: The samples.
        transform: Their augmentation.
        seed: The seed of the run; together with the key it determines the augmentation.
        class_of: Returns the class that a sample was drawn for, which its crop should hold; None:
            any crop will do.

    Shape:
        - images: ``(C, h, w)``, uint8, or float32 from 0 to 1. target: ``(h, w)``, or ``(K, h, w)``
          for multi-label data, with the type of the dataset's targets.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        transform: TrainTransform | EvalTransform,
        seed: int,
        class_of: Callable[[SampleKey], int] | None = None,
    ) -> None:
        self.dataset, self.transform, self.seed, self.class_of = dataset, transform, seed, class_of

    def __getitem__(self, key: SampleKey) -> Item | SegtrainError:
        """Return the sample of an epoch and an index, or the error that it raised."""
        try:
            with seeded_globals(self.seed, key):
                sample = self.dataset[key[1]]
            self.dataset.labels.check_ids(sample.target, sample.name)
            seed = sample_seed(self.seed, key)
            wanted = None if self.class_of is None else self.class_of(key)
            images, target = self.transform(sample.image, sample.target, seed, wanted)
        except SegtrainError as error:
            return error
        found = {"images": images, "target": target, "index": key[1], "seed": seed}
        return {**found, "name": sample.name}


class EvalView(Dataset[Item | SegtrainError]):
    """The samples of a dataset for evaluation: without augmentation, with their names.

    Args:
        dataset: The samples.
        transform: The conversion to tensors.

    Shape:
        - images: ``(C, h, w)``, uint8, or float32 from 0 to 1. target: ``(H, W)``, or ``(K, H, W)``
          for multi-label data, with the type of the dataset's targets; ``size`` is its shape.
    """

    def __init__(self, dataset: SegmentationDataset, transform: EvalTransform) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item | SegtrainError:
        """Return the sample at an index, or the error that it raised."""
        try:
            with seeded_globals(0, (index,)):
                sample = self.dataset[index]
            self.dataset.labels.check_ids(sample.target, sample.name)
            images, target = self.transform(sample.image, sample.target)
        except SegtrainError as error:
            return error
        size = tuple(target.shape)
        return {
            "images": images, "target": target, "index": index, "name": sample.name, "size": size
        }  # fmt: skip


class TrainBatch(TypedDict):
    """One micro-batch.

    Shape:
        - images: ``(N, C, h, w)``, uint8, or float32 from 0 to 1. target: ``(N, h, w)``, or
          ``(N, K, h, w)`` for multi-label data, integers, uint8 if it holds every id. index:
          ``(N,)``, int64.
    """

    images: Tensor
    target: Tensor
    index: Tensor
    name: list[str]


class EvalBatch(TypedDict):
    """Samples whose images have one size, and whose targets have one size.

    Shape:
        - images: ``(N, C, h, w)``, uint8, or float32 from 0 to 1. target: ``(N, H, W)``, or
          ``(N, K, H, W)`` for multi-label data, integers, uint8 if it holds every id. index:
          ``(N,)``, int64.
    """

    images: Tensor
    target: Tensor
    index: Tensor
    name: list[str]
    size: tuple[int, int]


def collate_train(
    items: Sequence[Item | SegtrainError], mixing: Mixing | None = None
) -> TrainBatch | SegtrainError:
    """Stack samples and mix them, or return the first error among them."""
    samples = []
    for item in items:
        if isinstance(item, SegtrainError):
            return item
        samples.append(item)
    shapes = sorted({tuple(sample["images"].shape[1:]) for sample in samples})
    if len(shapes) > 1:
        return DataError(
            f"one batch holds images of {_size(shapes[0])} and {_size(shapes[-1])}; set "
            f"augmentation.crop_size to give all images the same size"
        )
    batch = _stack(samples)
    if mixing is None:
        return batch
    rng = mixing_generator(samples[0]["seed"])
    images, target = mixing(batch["images"], batch["target"], rng)
    return {**batch, "images": images, "target": target}


def collate_eval(items: Sequence[Item | SegtrainError]) -> list[EvalBatch] | SegtrainError:
    """Stack samples of equal size, one batch per size, or return the first error among them."""
    groups: dict[tuple[Any, ...], list[Item]] = {}
    for item in items:
        if isinstance(item, SegtrainError):
            return item
        groups.setdefault((*item["images"].shape, *item["size"]), []).append(item)
    return [{**_stack(group), "size": group[0]["size"]} for group in groups.values()]


def _stack(samples: Sequence[Item]) -> TrainBatch:
    images = [sample["images"] for sample in samples]
    if any(one.dtype != images[0].dtype for one in images):  # files of 8 and of 16 bits
        images = [unit_range(one) for one in images]
    return {
        "images": torch.stack(images),
        "target": torch.stack([sample["target"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
        "name": [sample["name"] for sample in samples],
    }


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"


def build_train_loader(
    dataset: SegmentationDataset,
    transform: TrainTransform | EvalTransform,
    sampler: StepSampler,
    *,
    mixing: Mixing | None = None,
    num_workers: int = 0,
    prefetch_factor: int | None = None,
) -> DataLoader[Any]:
    """Return an endless loader of :class:`TrainBatch`; read it through :func:`iterate`.

    Batches depend only on the dataset, the transform and the sampler, not on `num_workers` or on
    the state of a global random generator.

    Args:
        dataset: The samples.
        transform: Their augmentation.
        sampler: The keys of the samples in each batch.
        mixing: The mixing of the samples of a batch; None: no mixing.
        num_workers: Number of worker processes; 0: this process loads.
        prefetch_factor: Batches that each worker loads ahead; None: 2. No effect without workers.
    """
    order = sampler.order
    class_of = order.class_of if isinstance(order, RareClassOrder) else None
    return DataLoader(
        TrainView(dataset, transform, sampler.seed, class_of),
        batch_sampler=sampler,
        collate_fn=partial(collate_train, mixing=mixing),
        **_common(num_workers, prefetch_factor),
    )


def build_eval_loader(
    dataset: SegmentationDataset,
    transform: EvalTransform,
    *,
    batch_size: int = 1,
    max_images: int | None = None,
    world_size: int = 1,
    rank: int = 0,
    nodes: Sequence[int] | None = None,
    num_workers: int = 0,
    prefetch_factor: int | None = None,
) -> DataLoader[Any]:
    """Return a loader of lists of :class:`EvalBatch`; read it through :func:`iterate`.

    Process `rank` gets every `world_size`-th sample, or, of a dataset in shards, its part of the
    shards of its machine. No sample is repeated to fill up a process, so a score does not depend on
    the number of processes. `nodes` has the number of the machine of each process; None: all
    processes are on one.
    """
    length = len(dataset) if max_images is None else min(len(dataset), max_images)
    indices = dataset.evaluation_part(length, rank, nodes or [0] * world_size)
    return DataLoader(
        Subset(EvalView(dataset, transform), indices),
        batch_size=batch_size,
        collate_fn=collate_eval,
        **_common(num_workers, prefetch_factor),
    )


def _common(num_workers: int, prefetch_factor: int | None) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "prefetch_factor": prefetch_factor if num_workers else None,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": start_worker,
        # Without its own generator, a loader draws from the global one each time it is iterated,
        # and a resumed run would no longer equal an uninterrupted one.
        "generator": torch.Generator().manual_seed(0),
    }


def iterate(loader: Iterable[_B | SegtrainError]) -> Generator[_B]:
    """Yield the batches of a loader.

    When an error ends this, or the caller closes it, the worker processes are ended at once.

    Raises:
        SegtrainError: The error of a sample, in a worker or in this process, or the death of a
            worker.
    """
    with signals_held_back():
        batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, SegtrainError):
                raise batch
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        dead = None if isinstance(error, SegtrainError) else worker_error(batches, error)
        end_workers(batches)
        if dead is None:
            raise
        raise dead from error
    except BaseException:
        end_workers(batches)
        raise
