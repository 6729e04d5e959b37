"""The contract of every backbone, on small ones of torchvision and timm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from segtrain.models.backbones import BACKBONES, Backbone
from tests.models.backbones.helpers import (
    build,
    check_gradients,
    check_shapes,
    images_of,
    slow,
)

# Miniature models of timm that cover every kind of restriction on the image size.
TINY = ["test_convnext", "test_efficientnet", "test_resnet", "test_vit", "test_vit_relpos"]
SMALL = [f"torchvision/{name}" for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small")]
SMALL += [f"timm/{name}" for name in TINY]
LARGE = ["hrnet_w18", "hrnet_w18_small_v2", "hrnet_w32", "hrnet_w48"]  # like hrnet_w18_small_v1
SMALL += sorted(set(BACKBONES.names()) - set(LARGE))


def test_the_large_backbones_are_registered() -> None:
    assert set(LARGE) < set(BACKBONES.names())


@pytest.mark.parametrize("name", SMALL)
def test_any_size(name: str) -> None:
    backbone = build(name)
    for size in ((43, 70), (1, 1), (33, 64)):
        check_shapes(backbone, size)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    backbone = build(name)
    check_gradients(backbone, 40, 72)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("in_channels", [1, 4, 6])
@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/test_convnext"])
def test_any_number_of_channels(name: str, in_channels: int) -> None:
    check_shapes(build(name, in_channels=in_channels), (33, 40))


@pytest.mark.parametrize("name", SMALL)
def test_the_same_numbers_in_channels_last_and_in_a_copy(name: str) -> None:
    backbone = build(name).eval()
    twin = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
    images = images_of(40, 72)
    with torch.no_grad():
        plain = backbone(images)
        last = twin(images.contiguous(memory_format=torch.channels_last))
    for one, other in zip(plain, last, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


@pytest.mark.parametrize(
    "name", ["torchvision/resnet18", "torchvision/mobilenet_v3_small", "timm/test_vit"]
)
def test_norm_stride_is_where_training_on_one_image_fails(name: str) -> None:
    backbone = build(name).train()
    if backbone.norm_stride is None:
        backbone(images_of(1, 1, batch=1))
        return
    side = int(backbone.norm_stride)
    backbone(images_of(side + 1, side, batch=1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        backbone(images_of(side, side, batch=1))


@pytest.mark.parametrize(
    "name",
    [
        *("torchvision/resnet18", "timm/test_convnext", "timm/test_vit"),
        *slow("torchvision/mobilenet_v3_small", "timm/test_resnet"),
    ],
)
def test_activation_checkpointing_changes_no_number(name: str) -> None:
    backbones = [build(name, activation_checkpointing=flag).train() for flag in (False, True)]
    backbones[1].load_state_dict(backbones[0].state_dict())
    for backbone in backbones:
        for _ in range(2):
            features = backbone(images_of(40, 72))
            torch.stack([feature.square().mean() for feature in features]).sum().backward()
    plain, checkpointed = (dict(backbone.named_parameters()) for backbone in backbones)
    for key, parameter in plain.items():
        other = checkpointed[key].grad
        assert parameter.grad is not None
        assert other is not None
        assert torch.allclose(parameter.grad, other, rtol=1e-5, atol=1e-7), key
    buffers = dict(backbones[1].named_buffers())
    for key, buffer in backbones[0].named_buffers():
        assert torch.equal(buffer, buffers[key]), key


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/test_convnext"])
def test_activation_checkpointing_stores_less(name: str) -> None:
    def kept(backbone: Backbone) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            features = backbone.train()(images_of(64, 64))
        weights = {weight.untyped_storage().data_ptr() for weight in backbone.parameters()}
        del features
        return sum(size for pointer, size in sizes.items() if pointer not in weights)

    plain, checkpointed = (
        kept(build(name, activation_checkpointing=flag)) for flag in (False, True)
    )
    assert checkpointed < 0.8 * plain


@pytest.mark.parametrize(
    "name",
    ["torchvision/resnet18", *slow("timm/test_convnext")],
)
def test_compiles_without_breaks(name: str) -> None:
    backbone = build(name).eval()
    images = images_of(33, 40)
    with torch.no_grad():
        compiled = torch.compile(backbone, fullgraph=True, backend="eager")(images)
        for one, other in zip(compiled, backbone(images), strict=True):
            assert torch.equal(one, other)


def test_a_backbone_without_forward_raises() -> None:
    with pytest.raises(NotImplementedError, match="forward"):
        Backbone()(torch.zeros(1, 3, 8, 8))
