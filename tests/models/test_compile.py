"""torch.compile makes one graph of every HRNet, and torch.export accepts any size."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from segtrain.models import MODELS
from segtrain.models.backbones.hrnet import HRNetVariant
from segtrain.models.hrnet import HRNetOCRSegmentor, HRNetSegmentor

ALL = [
    f"hrnet_{variant}{head}"
    for variant in ("w18_small_v1", "w18_small_v2", "w18", "w32", "w48")
    for head in ("", "_ocr")
]
# A stride-32 branch of one row or column broadcasts differently and needs another graph.
DYNAMIC = {
    0: Dim("batch", min=1, max=64),
    2: Dim("height", min=33, max=8192),
    3: Dim("width", min=33, max=8192),
}


TINY = HRNetVariant(4, (1, 1, 1), 1, 1, 8)


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def build(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(name, num_classes=3, **arguments)


def images(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def step(model: Any, batch: Tensor) -> dict[str, Tensor]:
    """Return the outputs; compute the gradients of the parameters."""
    torch.manual_seed(1)  # dropout
    outputs: dict[str, Tensor] = model(batch)
    torch.stack([logits.square().mean() for logits in outputs.values()]).sum().backward()
    return outputs


def assert_equal_steps(
    model: nn.Module, backend: str, batch: Tensor, tolerance: float, *, modes: str = "train eval"
) -> None:
    """Check that the model, compiled as one graph per mode, computes the same in `modes`."""
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for mode in modes.split():
        model.train(mode == "train")
        plain.train(mode == "train")
        expected, outputs = step(plain, batch), step(compiled, batch)
        for name, logits in expected.items():
            assert (outputs[name] - logits).abs().max() <= tolerance * logits.abs().max()
    largest = max(parameter.grad.abs().max() for parameter in plain.parameters())  # type: ignore[union-attr]
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert (mine.grad - other.grad).abs().max() <= tolerance * largest  # type: ignore[operator]
    for mine, other in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def assert_equal_export(model: nn.Module, sizes: list[tuple[int, int, int]], **given: Any) -> None:
    model.eval()
    program = export(model, (images(2, 3, 64, 96),), **given).module()
    for count, *size in sizes:
        batch = images(count, 3, *size)
        with torch.no_grad():
            outputs, expected = program(batch), model(batch)
        assert list(outputs) == list(expected)
        for name, logits in expected.items():
            torch.testing.assert_close(outputs[name], logits, rtol=1e-5, atol=1e-5)


# Dynamo takes seconds for a trunk, so the fast suite runs one case only: the training of the OCR
# model, which has the layers of both heads.
@pytest.mark.parametrize(
    ("kind", "mode"),
    [(HRNetOCRSegmentor, "train"), pytest.param(HRNetSegmentor, "eval", marks=pytest.mark.slow)],
)
def test_the_whole_model_is_one_graph(
    kind: type[HRNetSegmentor | HRNetOCRSegmentor], mode: str
) -> None:
    model = kind(variant=TINY, num_classes=3).double()
    assert_equal_steps(model, "aot_eager", images(2, 3, 64, 48).double(), 1e-9, modes=mode)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HRNetSegmentor, HRNetOCRSegmentor])
def test_activation_checkpointing_goes_into_the_graph(
    kind: type[HRNetSegmentor | HRNetOCRSegmentor],
) -> None:
    model = kind(variant=TINY, num_classes=3, activation_checkpointing=True).double()
    assert_equal_steps(model, "aot_eager", images(2, 3, 64, 48).double(), 1e-9, modes="train")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_variant_is_one_graph(name: str) -> None:
    assert_equal_steps(build(name), "eager", images(2, 3, 64, 96), 1e-6)


@pytest.mark.parametrize("name", ["hrnet_w18_small_v1_ocr"])
def test_export_takes_any_batch_height_and_width(name: str) -> None:
    sizes = [(2, 64, 96), (1, 75, 117), (3, 33, 130)]
    assert_equal_export(build(name, align_corners=True), sizes, dynamic_shapes=(DYNAMIC,))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_variant_compiles_with_inductor(name: str) -> None:
    model = build(name).double().to(memory_format=torch.channels_last)
    batch = images(2, 3, 64, 64).double().to(memory_format=torch.channels_last)
    assert_equal_steps(model, "inductor", batch, 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_every_variant_exports(name: str, strict: bool) -> None:
    sizes = [(2, 64, 96), (1, 75, 117)]
    assert_equal_export(build(name), sizes, dynamic_shapes=(DYNAMIC,), strict=strict)
