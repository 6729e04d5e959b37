import numpy as np
import pytest
import torch

from segtrain.data import Mixing

SIZE = 24
rng_of = np.random.default_rng


def batch(count=4, classes=(0, 1, 2)):
    target = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    for index in range(count):
        for offset, label in enumerate(classes):
            target[index, :, 8 * offset : 8 * offset + 8] = label
        target[index, 0] = 255
    shown = torch.where(target == 255, 9, target)
    return shown[:, None].float() + 10 * torch.arange(count)[:, None, None, None], target


@pytest.mark.parametrize("mix", ["cutmix", "classmix"])
def test_image_and_target_are_mixed_alike(mix):
    images, target = batch()
    mixed, labels = Mixing(mix, probability=1.0)(images, target, rng_of(3))
    source = (mixed // 10).long()
    for index in range(len(images)):
        other = (index + 1) % len(images)
        assert set(source[index].unique().tolist()) <= {index, other}
    # What a pixel shows is its label, whichever image it is from.
    valid = labels[:, 1:] != 255
    shown = (mixed[:, 0] - 10 * (mixed[:, 0] // 10))[:, 1:]
    assert torch.equal(shown[valid].byte(), labels[:, 1:][valid])
    assert images.equal(batch()[0])  # the given batch stays


@pytest.mark.parametrize("mix", ["cutmix", "classmix"])
def test_a_function_of_the_seed(mix):
    images, target = batch()
    mixing = Mixing(mix, probability=0.5)
    first = mixing(images, target, rng_of(7))
    torch.manual_seed(5)
    again = mixing(images, target, rng_of(7))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert any(
        not torch.equal(first[0], mixing(images, target, rng_of(seed))[0]) for seed in range(8)
    )


def test_classmix_pastes_half_of_the_classes_and_nothing_ignored():
    images, target = batch()
    for seed in range(10):
        mixed, labels = Mixing("classmix", probability=1.0)(images, target, rng_of(seed))
        pasted = (mixed[0, 0] // 10) == 1
        assert not pasted[0].any()  # the ignored row
        assert len(target[1][pasted].unique()) == 2
        assert torch.equal(labels[0][pasted], target[1][pasted])


def test_the_area_of_cutmix_is_that_of_its_box():
    images, target = batch(2)
    shares = []
    for seed in range(400):
        mixed, _ = Mixing("cutmix", probability=1.0)(images, target, rng_of(seed))
        shares.append(float(((mixed[0, 0] // 10) == 1).float().mean()))
    shares = torch.tensor(shares)
    assert 0.25 < shares.mean() < 0.4  # half, less what is cut off at the borders
    assert shares.max() > 0.7
    assert shares.min() < 0.02


def test_probability_and_batches_of_one():
    images, target = batch()
    assert torch.equal(Mixing("cutmix", probability=0.0)(images, target, rng_of(0))[0], images)
    one = Mixing("cutmix", probability=1.0)(images[:1], target[:1], rng_of(0))
    assert torch.equal(one[0], images[:1])


@pytest.mark.parametrize("mix", ["cutmix", "classmix"])
def test_several_classes_per_pixel(mix):
    target = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    target[1, 0, :10] = target[1, 1, 5:15] = 1
    target[:, :, 20:] = 255
    images = torch.stack([torch.zeros(1, SIZE, SIZE), torch.ones(1, SIZE, SIZE)])
    for seed in range(10):
        mixed, labels = Mixing(mix, probability=1.0)(images, target, rng_of(seed))
        pasted = mixed[0, 0] == 1
        assert torch.equal(labels[0][:, pasted], target[1][:, pasted])
        assert torch.equal(labels[0][:, ~pasted], target[0][:, ~pasted])
        assert mix == "cutmix" or (pasted.sum() > 0 and not pasted[20:].any())
