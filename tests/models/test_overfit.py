"""One model of each kind overfits two images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import segtrain

NUM_CLASSES = 6
MOST_STEPS = 120
CHECKED_EVERY = 10
SMALL = {"name": "encoder_decoder", "backbone": "torchvision/mobilenet_v3_small"}
KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "hrnetv2": ({"name": "hrnet_w18_small_v1"}, 0.01),
    "ocr": (
        {"name": "hrnet_w18_small_v1_ocr", "ocr_channels": 128, "key_channels": 64},
        0.01,
    ),
    "aspp": ({**SMALL, "head": {"name": "aspp", "channels": 64}}, 0.01),
    "upernet": ({**SMALL, "head": {"name": "upernet", "channels": 64}}, 0.01),
    "segformer": ({**SMALL, "head": {"name": "segformer", "channels": 64}}, 0.01),
    "torchvision": ({"name": "lraspp_mobilenet_v3_large"}, 0.01),
    "smp": ({"name": "smp", "arch": "fpn", "encoder": "mobilenet_v2"}, 0.003),
}


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    dataset = segtrain.build_dataset("shapes", num_train=2, size=[64, 64])
    samples = [dataset[index] for index in range(2)]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _, _ in samples])
    target = torch.stack([torch.from_numpy(target).long() for _, target, _ in samples])
    assert set(target.unique().tolist()) == {*range(NUM_CLASSES), 255}
    return (images / 255 - 0.5) / 0.25, target


def accuracy(model: segtrain.Segmentor, images: Tensor, target: Tensor) -> float:
    """Accuracy over the pixels that are not ignored, in eval mode."""
    with torch.no_grad():
        logits = model.eval()(images)["out"]
    model.train()
    size = target.shape[-2:]
    ids = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)
    return float((ids == target)[target != 255].float().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_two_images_are_learned(kind: str, batch: tuple[Tensor, Tensor]) -> None:
    images, target = batch
    spec, rate = KINDS[kind]
    torch.manual_seed(0)
    model = segtrain.build_model(spec, num_classes=NUM_CLASSES).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.3  # too few steps for the default momentum
    outputs = list(model(images))
    assert ("aux" in outputs) == (kind == "ocr")
    criterion = segtrain.build_criterion("cross_entropy", num_classes=NUM_CLASSES, outputs=outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    reached = [accuracy(model, images, target)]
    for step in range(MOST_STEPS):
        report = criterion(model(images), target)
        optimizer.zero_grad()
        report.total.backward()
        optimizer.step()
        if (step + 1) % CHECKED_EVERY == 0:
            reached.append(accuracy(model, images, target))
            if reached[-1] > 0.95:
                break
    assert reached[0] < 0.9
    assert reached[-1] > 0.95, reached
