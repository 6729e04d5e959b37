from itertools import islice

import numpy as np
import pytest
import torch

from segtrain.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    FileDataset,
    LabelContract,
    ShapesDataset,
    StepSampler,
    TrainTransform,
    TrainView,
    build_eval_loader,
    build_train_loader,
    iterate,
)
from segtrain.data.loading.loader import collate_train
from segtrain.errors import DataError
from segtrain.metrics import ConfusionMatrix
from segtrain.schema.sections import AugmentationConfig

SHAPES = ShapesDataset(size=(48, 48), num_train=12)
AUGMENT = TrainTransform(
    SHAPES.labels, AugmentationConfig(crop_size=(32, 32), brightness=0.3, hue=0.1)
)
PLAIN = EvalTransform(IMAGENET_MEAN, IMAGENET_STD, SHAPES.labels)


@pytest.mark.fault("F17")
def test_augmentation_depends_on_seed_epoch_and_index():
    view = TrainView(SHAPES, AUGMENT, seed=0)
    first = view[0, 1]["images"]
    assert torch.equal(first, view[0, 1]["images"])
    assert not torch.equal(first, view[1, 1]["images"])
    assert not torch.equal(first, TrainView(SHAPES, AUGMENT, seed=1)[0, 1]["images"])
    assert (view[0, 1]["index"], view[0, 1]["target"].dtype) == (1, torch.int64)


def batches(num_workers, start_step=0):
    sampler = StepSampler(len(SHAPES), 4, seed=3, start_step=start_step)
    loader = build_train_loader(SHAPES, AUGMENT, sampler, num_workers=num_workers)
    return list(islice(iterate(loader), 5 - start_step))


@pytest.mark.fault("F12")
def test_batches_do_not_depend_on_workers():
    plain = batches(0)
    for other in (batches(2), [*plain[:2], *batches(0, start_step=2)]):
        for one, two in zip(plain, other, strict=True):
            assert all(torch.equal(one[key], two[key]) for key in ("images", "target", "index"))
    assert plain[0]["images"].shape == (4, 3, 32, 32)


@pytest.mark.fault("F17")
def test_loaders_do_not_use_the_global_generators():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batches(0)
    batches(2)
    list(iterate(build_eval_loader(SHAPES, PLAIN, batch_size=4)))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@pytest.mark.fault("F25")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_arrives_with_its_message(make_files, num_workers):
    files = make_files([[0, 1]], [[0, 9]])
    dataset = FileDataset(LabelContract(2), files)
    transform = EvalTransform(IMAGENET_MEAN, IMAGENET_STD, dataset.labels)
    with pytest.raises(DataError) as direct:
        dataset[1]
    for loader in (
        build_eval_loader(dataset, transform, num_workers=num_workers),
        build_train_loader(dataset, transform, StepSampler(2, 2), num_workers=num_workers),
    ):
        with pytest.raises(DataError) as caught:
            list(islice(iterate(loader), 3))
        assert str(caught.value) == str(direct.value)


@pytest.mark.fault("F29")
def test_images_of_two_sizes_are_refused(make_files):
    dataset = FileDataset(LabelContract(2), make_files(np.eye(4), np.eye(6)))
    loader = build_train_loader(dataset, PLAIN, StepSampler(2, 2))
    with pytest.raises(DataError, match=r"4 x 4.*6 x 6.*crop_size"):
        next(iterate(loader))


def test_evaluation_groups_by_size(make_files):
    dataset = FileDataset(LabelContract(2), make_files(np.eye(4), np.eye(6), np.eye(4)))
    (groups,) = iterate(build_eval_loader(dataset, PLAIN, batch_size=3))
    assert [(g["name"], g["size"], g["index"].tolist()) for g in groups] == [
        (["00", "02"], (4, 4), [0, 2]),
        (["01"], (6, 6), [1]),
    ]
    assert groups[0]["images"].shape == (2, 3, 4, 4)


def test_images_travel_as_bytes_unless_some_are_floats():
    images = [torch.full((3, 2, 2), 255, dtype=torch.uint8), torch.full((3, 2, 2), 0.5)]
    samples = [
        {"images": one, "target": torch.zeros(2, 2), "index": 0, "seed": 0, "name": "a"}
        for one in images
    ]
    assert collate_train(samples[:1])["images"].dtype == torch.uint8
    mixed = collate_train(samples)["images"]
    assert mixed.dtype == torch.float32
    assert mixed.amax((1, 2, 3)).tolist() == [1.0, 0.5]


@pytest.mark.fault("F39")
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_evaluation_sees_every_sample_once(world_size):
    indices = []
    for rank in range(world_size):
        loader = build_eval_loader(SHAPES, PLAIN, batch_size=2, world_size=world_size, rank=rank)
        indices += [i for groups in iterate(loader) for g in groups for i in g["index"].tolist()]
    assert sorted(indices) == list(range(len(SHAPES)))


@pytest.mark.fault("F39")
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_score_is_the_same_to_the_last_pixel_for_any_number_of_processes(
    make_files, world_size, batch_size
):
    """Seven samples are divisible by neither two nor three, and none is counted twice."""
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 3, (4, 5)) for _ in range(7)]
    dataset = FileDataset(LabelContract(3), make_files(*masks))
    transform = EvalTransform((0.5,) * 3, (0.5,) * 3, dataset.labels)
    matrix = ConfusionMatrix(3)
    for rank in range(world_size):
        loader = build_eval_loader(
            dataset, transform, batch_size=batch_size, world_size=world_size, rank=rank
        )
        for groups in iterate(loader):
            for batch in groups:
                matrix.update((batch["images"][:, 0] > 0).long(), batch["target"])
    expected = ConfusionMatrix(3)
    for index in range(7):
        image, target = transform(*dataset[index][:2])
        expected.update((image[None, 0] > 0).long(), target[None])
    assert torch.equal(matrix.matrix(), expected.matrix())
    assert int(matrix.matrix().sum()) == 7 * 20
