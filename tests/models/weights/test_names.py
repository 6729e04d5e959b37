"""Names in weight files of torchvision, timm and SMP, mostly on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, resnet18
from torchvision.models.segmentation import fcn_resnet50, lraspp_mobilenet_v3_large

from segtrain.errors import ConfigError
from segtrain.models import MODELS
from segtrain.models.build import build_model
from segtrain.models.weights import WeightsError, recognise
from segtrain.models.weights.names import ModelNames
from segtrain.models.weights.plan import LoadPlan, plan_loading
from tests.models.weights.helpers import (
    OCR,
    SMALL,
    State,
    assert_equal,
    build,
    imagenet,
    official,
    report_of,
    save,
)


def plan_of(state: Mapping[str, Tensor], name: str, **params: Any) -> LoadPlan:
    """Plan the loading of `state` into a model of 5 classes."""
    with torch.device("meta"):
        model = MODELS.build({"name": name, **params}, num_classes=5)
    return plan_loading(recognise(state, "weights.pth"), ModelNames(model), set())


def modules(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_a_segmentation_file_of_torchvision_needs_no_align_corners(tmp_path: Path) -> None:
    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "lraspp.pth")
    # No key is required: align_corners of this file is known to be false.
    model = build_model(
        "lraspp_mobilenet_v3_large", num_classes=5, weights=str(tmp_path / "lraspp.pth")
    )
    model.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = model(images)["out"]
        full = nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
        torch.testing.assert_close(full, theirs.eval()(images)["out"])


def test_a_classifier_of_torchvision_fills_the_backbone_of_its_segmentation_model() -> None:
    with torch.device("meta"):
        state = mobilenet_v3_large(weights=None).state_dict()
    plan = plan_of(state, "lraspp_mobilenet_v3_large")
    found = {f"backbone.{k.removeprefix('features.')}": v for k, v in state.items() if "feat" in k}
    assert plan.values.keys() == found.keys()
    assert all(plan.values[key] is value for key, value in found.items())
    assert modules(plan.left_out) == {"classifier"}
    assert modules(plan.new) == {"classifier"}
    assert not plan.refused


def test_a_classifier_of_torchvision_fills_its_backbone() -> None:
    with torch.device("meta"):
        state = resnet18(weights=None).state_dict()
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    spec = {"backbone": "torchvision/resnet18", "head": "fcn"}
    plan = plan_of(old, "encoder_decoder", **spec)  # without num_batches_tracked
    assert {key.removeprefix("backbone.") for key in plan.values} == {
        key for key in old if not key.startswith("fc.")
    }
    assert plan.values["backbone.layer4.1.conv2.weight"] is old["layer4.1.conv2.weight"]
    assert set(plan.left_out) == {"fc.weight", "fc.bias"}
    assert len(plan.counts) == 20
    assert not plan.refused
    spec["backbone"] = "torchvision/resnet34"
    assert "not in the file" in plan_of(state, "encoder_decoder", **spec).refused


def test_an_auxiliary_head_that_the_model_does_not_have_is_left_out() -> None:
    with torch.device("meta"):
        theirs = fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    plan = plan_of(theirs.state_dict(), "fcn_resnet50")
    assert not plan.refused
    assert not plan.new
    assert modules(plan.left_out) == {"aux_classifier"}


@pytest.mark.parametrize(
    ("architecture", "left_out"),
    [
        ("convnext_atto", {"head"}),  # stages.0 becomes stages_0
        pytest.param("efficientnet_b0", {"conv_head", "bn2", "classifier"}, marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", {"norm", "head"}, marks=pytest.mark.slow),
    ],
)
def test_a_classifier_of_timm_fills_its_backbone(architecture: str, left_out: set[str]) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model(architecture).state_dict()
    plan = plan_of(state, "encoder_decoder", backbone=f"timm/{architecture}", head="fcn")
    assert not plan.refused
    assert modules(plan.values) == {"backbone"}
    assert modules(plan.new) == {"head"}
    assert modules(plan.left_out) == left_out


@pytest.mark.slow
def test_an_additional_block_of_the_backbone_is_refused() -> None:
    """convnext_small contains all weights of convnext_tiny, in the same shapes."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model("convnext_small").state_dict()
    plan = plan_of(state, "encoder_decoder", backbone="timm/convnext_tiny", head="fcn")
    assert plan.refused.keys() == {"not in the model"}
    assert all(key.startswith("stages.2.") for key in plan.unexpected)


def test_a_file_of_smp_fits_its_model() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        state = smp.Unet("resnet18", encoder_weights=None, classes=5).state_dict()
        spec = {"name": "smp", "arch": "unet", "encoder": "resnet18"}
        model = MODELS.build(spec, num_classes=5)
    plan = plan_loading(recognise(state, "unet.pth"), ModelNames(model), set())
    assert not plan.refused
    assert not plan.is_backbone
    assert plan.values.keys() == model.state_dict().keys()


def test_backbone_files_reach_a_backbone_inside_of_a_model(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    spec = {"backbone": SMALL, "head": "fcn"}
    file = save(imagenet(states(SMALL)), tmp_path / "hrnet.pth")
    model = build(file, "encoder_decoder", backbone=SMALL, head="hrnetv2")
    trunk = [key for key in states(SMALL) if not key.startswith("last_layer.")]
    own = model.state_dict()
    for key in trunk:
        assert torch.equal(own[f"backbone.{key}"], states(SMALL)[key]), key
    assert len(report_of(model).loaded) == len(trunk)
    segmentation = save(official(states(SMALL)), tmp_path / "best.pth")
    with pytest.raises(
        WeightsError, match=r"add model\.reinit=\[head\] to reinitialise and train that part"
    ):
        build(segmentation, "encoder_decoder", align_corners=False, **spec)
    model = build(segmentation, "encoder_decoder", align_corners=False, reinit=["head"], **spec)
    assert len(report_of(model).loaded) == len(trunk)
    assert all(key.startswith("last_layer.") for key in report_of(model).left_out)


@pytest.mark.parametrize(("flat", "head"), [(SMALL, "hrnetv2"), (OCR, "ocr")])
def test_official_files_fit_the_same_head_on_the_same_backbone(
    flat: str, head: str, states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(official(states(flat)), tmp_path / "best.pth")
    model = build(file, "encoder_decoder", backbone=SMALL, head=head, align_corners=True).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = build(file, flat, align_corners=True).eval()(images)["out"]
        assert torch.equal(model(images)["out"], expected)
    # And back.
    back = save({"state_dict": model.state_dict()}, tmp_path / "composed.pth")
    assert_equal(build(back, flat, align_corners=True), states(flat))


@pytest.mark.parametrize(
    ("reinit", "sentence"),
    [
        (["last_lyer"], r"no module 'last_lyer'; did you mean 'last_layer'\? Known: bn1, .*, head"),
        (["stage4.0.brnches"], r"did you mean 'stage4\.0\.branches'"),
        (["aux_head"], r"no module 'aux_head'"),
        (["stage"], r"no module 'stage'"),  # only whole names count
    ],
)
def test_an_unknown_module_is_reported_with_the_closest_one(
    reinit: list[str], sentence: str, states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(states(SMALL), tmp_path / "best.pth")
    with pytest.raises(ConfigError, match=rf"model\.reinit=\[.*\].*{sentence}"):
        build(file, align_corners=False, reinit=reinit)
