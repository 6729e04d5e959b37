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
from segtrain.errors import ConfigError, DataError
from segtrain.metrics import ConfusionMatrix
from segtrain.schema.sections import AugmentationConfig

SHAPES = ShapesDataset(size=(48, 48), num_train=12)
AUGMENT = TrainTransform(
    SHAPES.labels, AugmentationConfig(crop_size=(32, 32), brightness=0.3, hue=0.1)
)
PLAIN = EvalTransform(IMAGENET_MEAN, IMAGENET_STD, SHAPES.labels)


def take(count, *arguments, **keywords):
    return list(islice(StepSampler(*arguments, **keywords), count))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "world_size"), [(4, 1, 1), (2, 1, 2), (1, 2, 2)]
)
def test_an_epoch_covers_every_sample_once(batch_size, accumulate, world_size):
    keys = []
    for rank in range(world_size):
        sampler = StepSampler(12, batch_size, accumulate, world_size, rank)
        assert sampler.steps_per_epoch == 3
        keys += [key for batch in islice(sampler, 3 * accumulate) for key in batch]
    assert sorted(keys) == [(0, index) for index in range(12)]


def test_a_step_is_the_same_set_however_it_is_split():
    def steps(batch_size, accumulate, world_size):
        ranks = [take(6 * accumulate, 17, batch_size, accumulate, world_size, r, seed=5)
                 for r in range(world_size)]  # fmt: skip
        return [
            {key for rank in ranks for batch in rank[s * accumulate : (s + 1) * accumulate]
             for key in batch}
            for s in range(6)
        ]  # fmt: skip

    assert steps(4, 1, 1) == steps(2, 2, 1) == steps(2, 1, 2) == steps(1, 2, 2)


def test_a_restart_is_the_tail():
    whole = take(20, 10, 3, 2, seed=1)
    for step in (0, 1, 5, 9):
        assert take(20 - 2 * step, 10, 3, 2, seed=1, start_step=step) == whole[2 * step :]


def test_orders_differ_between_epochs_and_seeds():
    def order(seed, step):
        return [index for _, index in take(1, 64, 64, seed=seed, start_step=step)[0]]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_too_few_samples():
    with pytest.raises(DataError) as caught:
        StepSampler(3, 8, 1, 2)
    for part in ("3 samples", "batch_size 8", "accumulate 1", "processes 2", "= 16"):
        assert part in str(caught.value)


def test_numbers_out_of_range():
    with pytest.raises(ConfigError, match="batch_size"):
        StepSampler(3, 0)
    with pytest.raises(ConfigError, match="rank"):
        StepSampler(3, 1, world_size=2, rank=2)


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


def test_workers_change_nothing():
    plain = batches(0)
    for other in (batches(2), [*plain[:2], *batches(0, start_step=2)]):
        for one, two in zip(plain, other, strict=True):
            assert all(torch.equal(one[key], two[key]) for key in ("images", "target", "index"))
    assert plain[0]["images"].shape == (4, 3, 32, 32)


def test_loaders_leave_the_global_generators_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batches(0)
    batches(2)
    list(iterate(build_eval_loader(SHAPES, PLAIN, batch_size=4)))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_arrives_as_its_sentence(make_files, num_workers):
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


def test_images_of_two_sizes_cannot_be_one_batch(make_files):
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


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_evaluation_sees_every_sample_once(world_size):
    indices = []
    for rank in range(world_size):
        loader = build_eval_loader(SHAPES, PLAIN, batch_size=2, world_size=world_size, rank=rank)
        indices += [i for groups in iterate(loader) for g in groups for i in g["index"].tolist()]
    assert sorted(indices) == list(range(len(SHAPES)))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_score_is_the_same_to_the_last_pixel_for_any_number_of_processes(
    make_files, world_size, batch_size
):
    """F39: seven samples divide by neither two nor three, and none is counted twice."""
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
