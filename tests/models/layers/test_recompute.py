from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtrain.models import BACKBONES, MODELS
from segtrain.models.backbones.hrnet import HRNet, HRNetVariant
from segtrain.models.layers.recompute import recomputed

TINY = HRNetVariant(8, (1, 1, 1), 1, 2, 16)
IMAGES = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)).double()


def pair(make: Callable[..., nn.Module]) -> tuple[nn.Module, nn.Module]:
    plain, saving = make(activation_checkpointing=False), make(activation_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    return plain.double(), saving.double()


def ocr(**arguments: Any) -> nn.Module:
    return MODELS.build("hrnet_w18_small_v1_ocr", num_classes=3, dropout=0.5, **arguments)


def trunk(**arguments: Any) -> nn.Module:
    return HRNet(TINY, **arguments)


def total(outputs: dict[str, Tensor] | list[Tensor]) -> Tensor:
    tensors = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.stack([tensor.square().mean() for tensor in tensors]).sum()


def kept_bytes(model: nn.Module) -> int:
    """Bytes that a forward pass stores for the backward pass; shared memory counts once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = total(model(IMAGES))
    loss.backward()
    return sum(kept.values())


@pytest.mark.parametrize("make", [trunk, ocr])
def test_gradients_statistics_and_random_numbers_are_those_without_it(
    make: Callable[..., nn.Module],
) -> None:
    plain, saving = pair(make)
    states = []
    for model in (plain, saving):
        torch.manual_seed(1)
        for _ in range(2):
            total(model.train()(IMAGES)).backward()
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), saving.buffers(), strict=True))
    counts = [v for k, v in saving.named_buffers() if k.endswith("num_batches_tracked")]
    assert {count.item() for count in counts} == {2}
    for (name, mine), other in zip(saving.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None, name
        assert torch.equal(mine.grad, other.grad), name


def test_less_is_stored_for_the_backward_pass() -> None:
    plain, saving = pair(lambda **given: HRNet(HRNetVariant(8, (1, 2, 2), 2, 2, 16), **given))
    assert kept_bytes(saving.train()) < 0.5 * kept_bytes(plain.train())


def test_nothing_is_recomputed_without_gradients() -> None:
    _, saving = pair(trunk)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    saving.get_submodule("layer1.0.conv1").register_forward_hook(count)
    with torch.no_grad():
        saving.train()(IMAGES)
    assert calls == 1
    total(saving.eval()(IMAGES)).backward()
    assert calls == 2
    total(saving.train()(IMAGES)).backward()
    assert calls == 4


def test_a_retained_graph_can_be_used_twice() -> None:
    plain, saving = pair(trunk)
    for model in (plain, saving):
        loss = total(model.train()(IMAGES))
        loss.backward(retain_graph=True)
        loss.backward()
    for mine, other in zip(saving.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), saving.buffers(), strict=True))


def test_buffers_are_the_same_objects_afterwards() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 4, kernel_size=1), nn.BatchNorm2d(4)).double()
    before = {name: id(buffer) for name, buffer in layer.named_buffers()}
    recomputed(layer, IMAGES, layers=[layer]).sum().backward()
    assert {name: id(buffer) for name, buffer in layer.named_buffers()} == before


def test_the_recomputation_draws_the_same_random_numbers() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 64, kernel_size=1), nn.Dropout2d(0.5)).double()
    twin = copy.deepcopy(layer)
    torch.manual_seed(2)
    recomputed(layer, IMAGES, layers=[layer]).square().sum().backward()
    torch.manual_seed(2)
    twin(IMAGES).square().sum().backward()
    for mine, other in zip(layer.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)  # type: ignore[arg-type]


def test_it_is_a_key_of_the_backbone_and_of_every_built_in_model() -> None:
    backbone = BACKBONES.build({"name": "hrnet_w18_small_v1", "activation_checkpointing": True})
    assert isinstance(backbone, HRNet)
    assert backbone.activation_checkpointing
    for name in MODELS.names():
        if name.startswith("hrnet_"):
            assert MODELS.schema(name)["activation_checkpointing"].default is False
