"""What every registered model promises. A new model is tested by its registration alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtrain.errors import ConfigError
from segtrain.models import MODELS, Segmentor
from segtrain.registry import Registry

NUM_CLASSES = 5
LARGE = {
    "hrnet_w32",
    "hrnet_w48",
}  # tens of millions of parameters: shapes only, on the meta device
SMALL = [name for name in MODELS.names() if name not in LARGE]
WITH_AUX = [name for name in MODELS.names() if "aux_head" in MODELS.schema(name)]


def build(name: str, **arguments: Any) -> Segmentor:
    with torch.device("meta" if name in LARGE else "cpu"):
        return MODELS.build(name, **{"num_classes": NUM_CLASSES, **arguments})


def images_for(name: str, *size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, *size, generator=generator).to("meta" if name in LARGE else "cpu")


@pytest.mark.parametrize("size", [(64, 64), (75, 117), (32, 32)])
@pytest.mark.parametrize("name", MODELS.names())
def test_output_is_a_dict_of_logits_at_a_quarter_of_the_size(
    name: str, size: tuple[int, int]
) -> None:
    with torch.no_grad():
        outputs = build(name).train()(images_for(name, *size))
    assert "out" in outputs
    expected = (2, NUM_CLASSES, -(-size[0] // 4), -(-size[1] // 4))
    assert {tuple(logits.shape) for logits in outputs.values()} == {expected}


@pytest.mark.parametrize("name", WITH_AUX)
def test_aux_head_adds_the_output_aux(name: str) -> None:
    images = images_for(name, 64, 64)
    with torch.no_grad():
        assert set(build(name)(images)) == {"out"}
        assert set(build(name, aux_head=True)(images)) == {"out", "aux"}


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    arguments = {"aux_head": True} if name in WITH_AUX else {}
    model = build(name, **arguments).train()
    outputs = model(images_for(name, 64, 64))
    torch.stack([logits.square().mean() for logits in outputs.values()]).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", SMALL)
def test_state_dict_round_trip_gives_the_same_outputs(name: str) -> None:
    images = images_for(name, 64, 64)
    first, second = build(name), build(name)
    with torch.no_grad():
        first.train()(images)  # moves the running statistics away from their start
        second.load_state_dict(first.state_dict(), strict=True)
        assert torch.equal(first.eval()(images)["out"], second.eval()(images)["out"])


@pytest.mark.parametrize("name", MODELS.names())
def test_parameter_groups_hold_every_parameter_once(name: str) -> None:
    model = build(name)
    groups = model.parameter_groups()
    assert set(groups) == {"backbone", "head"}
    assert groups["backbone"]
    assert groups["head"]
    grouped = Counter(id(parameter) for group in groups.values() for parameter in group)
    assert grouped == Counter(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS.names())
def test_attributes_say_how_it_was_built(name: str) -> None:
    model = build(name, align_corners=True)
    assert (model.num_classes, model.align_corners) == (NUM_CLASSES, True)
    assert build(name).align_corners is False


@pytest.mark.parametrize("name", MODELS.names())
def test_images_of_the_wrong_shape_or_dtype_are_refused(name: str) -> None:
    model = build(name)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), got \(2, 1, 64, 64\)"):
        model(images_for(name, 64, 64)[:, :1])
    with pytest.raises(ValueError, match=r"got \(3, 64, 64\)"):
        model(images_for(name, 64, 64)[0])
    with pytest.raises(TypeError, match=r"torch\.uint8"):
        model(images_for(name, 64, 64).to(torch.uint8))


@pytest.mark.parametrize("name", MODELS.names())
def test_bad_arguments_are_refused_before_anything_is_built(name: str) -> None:
    with pytest.raises(ConfigError, match="num_classes must be at least 1, got 0"):
        build(name, num_classes=0)
    with pytest.raises(ConfigError, match="align_cornres"):
        MODELS.build({"name": name, "align_cornres": True}, num_classes=NUM_CLASSES)


class Linear(Segmentor):
    """A user's model of one convolution."""

    def __init__(self, *, num_classes: int, align_corners: bool = False) -> None:
        super().__init__(num_classes=num_classes, align_corners=align_corners)
        self.classifier = nn.Conv2d(3, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(images)}


def test_a_users_model_is_all_backbone_unless_it_says_otherwise() -> None:
    class WithHead(Linear):
        head_prefixes = ("classifier",)

    class WithTypo(Linear):
        head_prefixes = ("clasifier",)

    sizes = {name: len(group) for name, group in Linear(num_classes=2).parameter_groups().items()}
    assert sizes == {"backbone": 2, "head": 0}
    sizes = {name: len(group) for name, group in WithHead(num_classes=2).parameter_groups().items()}
    assert sizes == {"backbone": 0, "head": 2}
    with pytest.raises(ConfigError, match="clasifier"):
        WithTypo(num_classes=2).parameter_groups()


def test_a_prefix_is_a_whole_name() -> None:
    class Similar(Linear):
        head_prefixes = ("class",)

    with pytest.raises(ConfigError, match="match no parameter"):
        Similar(num_classes=2).parameter_groups()


def test_a_users_model_is_built_by_name() -> None:
    models = Registry[Segmentor]("model")  # not the global one: other tests enumerate it
    models.register("linear")(Linear)
    assert isinstance(models.build("linear", num_classes=2), Linear)


def test_a_model_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="forward"):
        Segmentor(num_classes=2)(torch.zeros(1, 3, 8, 8))
