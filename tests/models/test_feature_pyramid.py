"""A plain vision transformer under any head: four levels, any size, all of it trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segtrain.engine.freezing import Frozen
from segtrain.errors import ConfigError
from segtrain.models import MODELS, Segmentor
from segtrain.models.layers.feature_pyramid import SimpleFeaturePyramid

pytest.importorskip("timm")

VITS = ["timm/test_vit", "timm/vit_small_patch16_dinov3"]
PYRAMID_HEADS = ["hrnetv2", "segformer", "upernet"]


def model(
    backbone: str | dict[str, Any] = VITS[0], head: str = "hrnetv2", **keywords: Any
) -> Segmentor:
    spec = {"name": "encoder_decoder", "backbone": backbone, "head": head, **keywords}
    return MODELS.build(spec, num_classes=3)


@pytest.mark.parametrize("backbone", VITS)
@pytest.mark.parametrize("head", PYRAMID_HEADS)
def test_a_pyramid_head_predicts_at_a_quarter_of_the_size(backbone: str, head: str) -> None:
    built = model(backbone, head).eval()
    with torch.no_grad():
        logits = built(torch.randn(1, 3, 97, 130))["out"]
    assert logits.shape == (1, 3, 25, 33)  # rounded up
    assert torch.isfinite(logits).all()


def test_it_can_be_turned_off_and_is_left_out_where_nothing_reads_it() -> None:
    images = torch.randn(1, 3, 64, 96)
    for built in (model(pyramid=False), model(head="fcn")):
        assert built.pyramid is None
        with torch.no_grad():
            assert built.eval()(images)["out"].shape == (1, 3, 4, 6)
    assert model(head="fcn", pyramid=True).pyramid is not None
    with pytest.raises(ConfigError, match="pyramid=true needs feature maps of one stride"):
        model("torchvision/resnet18", pyramid=True)


@pytest.mark.parametrize("head", PYRAMID_HEADS)
def test_gradients_reach_every_trained_parameter(head: str) -> None:
    built = model(head=head)
    built(torch.randn(2, 3, 64, 64))["out"].square().sum().backward()
    without = [
        name
        for name, parameter in built.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    # The key of attention has no gradient from its bias: softmax does not change.
    assert [name for name in without if "qkv.bias" not in name] == []


def test_position_embeddings_are_resized() -> None:
    built = model().eval()
    with torch.no_grad():
        sizes = ((64, 64), (48, 160), (224, 224), (33, 65))
        found = {size: built(torch.randn(1, 3, *size))["out"].shape[2:] for size in sizes}
    assert found == {size: tuple(-(-side // 4) for side in size) for size in found}


def test_learned_position_embeddings_are_resized_as_in_a_model_built_for_the_size() -> None:
    """A ViT for 160 x 160 gives at 96 x 96 what one for 96 x 96 gives with resized embeddings."""
    from timm.layers import resample_abs_pos_embed

    key = "backbone.net.model.pos_embed"
    large = model().eval()
    small = model({"name": VITS[0], "img_size": 96}).eval()
    state = large.state_dict()
    state[key] = 20 * torch.randn_like(state[key])
    large.load_state_dict(state)
    tokens = small.get_parameter(key).shape[1]
    assert tokens < state[key].shape[1]
    small.load_state_dict({**state, key: resample_abs_pos_embed(state[key], [6, 6], [10, 10])})
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(large(images)["out"], small(images)["out"])


def test_a_frozen_backbone_stores_no_activations_and_the_pyramid_is_trained() -> None:
    built = model("timm/vit_tiny_patch16_224")

    def stored() -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            built(torch.zeros(1, 3, 128, 128))
        return sum(sizes)

    before = stored()
    Frozen(built, ["backbone"])
    assert stored() < 0.6 * before
    trained = {name.partition(".")[0] for name, p in built.named_parameters() if p.requires_grad}
    assert trained == {"pyramid", "head"}
    assert {id(p) for p in built.parameter_groups()["head"]} >= {
        id(p)
        for p in built.pyramid.parameters()  # type: ignore[union-attr, operator]
    }


STRIDES = {8: (4, 8, 16, 32), 14: (3.5, 7, 14, 28), 16: (4, 8, 16, 32), 32: (4, 8, 16, 32)}


@pytest.mark.parametrize(("stride", "strides"), STRIDES.items())
def test_strides_of_the_levels(stride: int, strides: tuple[float, ...]) -> None:
    pyramid = SimpleFeaturePyramid(in_channels=32, stride=stride, channels=16)
    assert pyramid.strides == strides
    side = 8
    found = [level.shape[-1] for level in pyramid(torch.zeros(1, 32, side, side))]
    assert found == [int(side * stride / one) for one in strides]
    assert all(one == 16 for one in pyramid.channels)


def test_auxiliary_heads_read_the_levels() -> None:
    built = model(aux_heads={"aux": {"name": "fcn", "stage": 1}}).eval()
    with torch.no_grad():
        outputs = built(torch.zeros(1, 3, 64, 64))
    assert outputs["aux"].shape == (1, 3, 8, 8)
    assert outputs["out"].shape == (1, 3, 16, 16)
