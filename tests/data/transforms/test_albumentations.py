import numpy as np
import pytest
import torch

from segtrain.data import LabelContract, TrainTransform
from segtrain.errors import ConfigError
from segtrain.schema.sections import AugmentationConfig

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
TARGET = RNG.integers(1, 5, (40, 60)).astype(np.int64)


def transform_of(ignore_label=255, num_classes=6, **keys):
    return TrainTransform(LabelContract(num_classes, ignore_label), AugmentationConfig(**keys))


CHAIN = [
    {"name": "GaussianBlur", "p": 0.5},
    {"name": "CoarseDropout", "p": 1.0, "num_holes_range": [2, 2], "hole_height_range": [5, 5],
     "hole_width_range": [5, 5]},
    {"name": "Affine", "p": 1.0, "rotate": [20, 40]},
]  # fmt: skip


@pytest.mark.parametrize(("num_classes", "ignore_label"), [(6, 255), (6, -1), (400, 500)])
def test_transforms_of_albumentations_by_name(num_classes, ignore_label):
    transform = transform_of(ignore_label, num_classes, transforms=CHAIN)
    first = transform(IMAGE, TARGET, 1)
    again = transform_of(ignore_label, num_classes, transforms=CHAIN)(IMAGE, TARGET, 1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert set(first[1].unique().tolist()) == {1, 2, 3, 4, ignore_label}  # never 0
    others = [transform(IMAGE, TARGET, seed)[1] for seed in range(2, 5)]
    assert all(not torch.equal(first[1], other) for other in others)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "GausianBlur"}, "did you mean 'GaussianBlur'"),
        ({"name": "Compose"}, "has no transform 'Compose'"),
        ({"p": 1}, "must be a mapping with a name"),
        ({"name": "Blur", "blur_limits": 3}, r"\[0\]\.blur_limits: Blur has no .* did you"),
        ({"name": "Blur", "blur_limit": -3}, r"\[0\] \(Blur\): albumentations refuses the"),
        ({"name": "RandomCrop", "height": 8, "width": 8, "p": 1}, r"the size is set by"),
        ({"name": "Affine", "rotate": [45, 45], "mask_interpolation": 1, "p": 1}, "writes labels"),
        ({"name": "Affine", "rotate": [9, 9], "fill_mask": 0}, r"fill_mask: .* remove the key$"),
        ({"name": "CoarseDropout", "fill_mask": 0}, r"fill_mask: .* null to keep the labels$"),
        ({"name": "Transpose", "p": 0.01}, r"the size is set by"),
        ({"name": "Normalize"}, r"uint8 became float32"),
        ({"name": "ToTensorV2"}, r"has no transform|the size is set by"),
        ({"name": "GridElasticDeform", "num_grid_xy": [4, 4], "magnitude": 10}, "writes labels"),
        ({"name": "PixelDropout", "mask_drop_value": 0}, "writes labels"),
    ],
)  # fmt: skip
def test_transforms_by_name_are_checked(spec, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        transform_of(transforms=[spec])
    assert "augmentation.transforms[0]" in str(caught.value)


def test_transforms_that_restore_the_size_are_allowed():
    spec = {"name": "RandomSizedCrop", "min_max_height": [20, 30], "size": [32, 48]}
    images, _ = transform_of(crop_size=(32, 48), transforms=[spec])(IMAGE, TARGET, 0)
    assert images.shape == (3, 32, 48)
    turn = {"name": "RandomRotate90", "p": 1.0}
    images, _ = transform_of(crop_size=(32, 32), transforms=[turn])(IMAGE, TARGET, 0)
    assert images.shape == (3, 32, 32)
    with pytest.raises(ConfigError, match="the size is set by"):
        transform_of(crop_size=(32, 48), transforms=[turn])


@pytest.mark.parametrize("keep", [True, False])
def test_labels_under_a_hole(keep):
    spec = {"name": "CoarseDropout", "p": 1.0, "fill": 255, **({"fill_mask": None} if keep else {})}
    transform = transform_of(scale=(1, 1), flip=0, transforms=[spec])
    _, found = transform(np.zeros((40, 60, 3), np.uint8), TARGET, 0)
    assert bool((found == 255).any()) != keep


def test_mirrors_are_refused_with_flip_pairs():
    labels = LabelContract(4, flip_pairs=[[1, 2]])
    with pytest.raises(ConfigError, match=r"transforms\[0\] \(D4\) mirrors .*augmentation\.flip"):
        TrainTransform(labels, AugmentationConfig(crop_size=(32, 32), transforms=[{"name": "D4"}]))


def test_the_given_probability_is_kept():
    spec = {"name": "InvertImg", "p": 0.5}
    transform = transform_of(scale=(1, 1), flip=0, mean=(0,) * 3, std=(1,) * 3, transforms=[spec])
    image = np.zeros((8, 8, 3), np.uint8)
    inverted = [float(transform(image, TARGET[:8, :8], seed)[0].max()) / 255 for seed in range(200)]
    assert 0.35 < np.mean(inverted) < 0.65
