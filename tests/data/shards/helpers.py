"""Build, write and compare shards in tests."""

import io
import tarfile
from functools import partial

import numpy as np
from PIL import Image

from segtrain.data import DATASETS, StepSampler

NUM, PER_SHARD = 21, 4
CLASSES = 3


def build(root, shards="train-index.jsonl", split="train", **options):
    spec = {"name": "webdataset", "root": str(root), "num_classes": CLASSES, **options}
    return DATASETS.build({**spec, split: {"shards": shards}}, split=split)


def same(one, other):
    by_name = {sample.name: sample for sample in one}
    assert len(one) == len(other) == len(by_name)
    for sample in other:
        np.testing.assert_array_equal(sample.image, by_name[sample.name].image)
        np.testing.assert_array_equal(sample.target, by_name[sample.name].target)


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def foreign(path, keys, mask="mask.png"):
    """Write a shard like those of other programs, with members that are not used here."""
    rng = np.random.default_rng(1)
    members = {}
    for key in keys:
        members[f"{key}.json"] = b"{}"
        members[f"{key}.jpg"] = png(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        members[f"{key}.{mask}"] = png(rng.integers(0, CLASSES, (6, 7), dtype=np.uint8))
    write_tar(path, members)


def samplers(dataset, world_size, batch_size=2, **options):
    order = partial(dataset.epoch_order, 0, group=batch_size * world_size)
    return [
        StepSampler(
            len(dataset), batch_size, world_size=world_size, rank=rank, order=order, **options
        )
        for rank in range(world_size)
    ]
