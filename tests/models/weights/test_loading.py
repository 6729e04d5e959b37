"""Recognising, renaming and loading: official layouts, built from ours and from the references."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import segtrain
from segtrain.engine.checkpoint import save_checkpoint
from segtrain.errors import CheckpointError, ConfigError
from segtrain.models import MODELS, Segmentor
from segtrain.models.layers.stem import widen
from segtrain.models.weights import LoadReport, WeightsError

SMALL = "hrnet_w18_small_v1"
OCR = f"{SMALL}_ocr"
AFTER_HRNET = ["conv3x3_ocr", "ocr_distri_head", "cls_head"]
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def states() -> Callable[[str], State]:
    """Weights by model name, every one of them random, built once."""
    known: dict[str, State] = {}

    def of(name: str) -> State:
        if name not in known:
            model = MODELS.build(name, num_classes=5)
            generator = torch.Generator().manual_seed(len(name))
            for key, value in model.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.rand(value.shape, generator=generator) * 0.1 - 0.03)
                    if key.endswith("running_var"):
                        value.abs_().add_(0.5)
                else:
                    value.fill_(7)
            known[name] = deepcopy(model.state_dict())
        return known[name]

    return of


def build(file: Path, name: str = SMALL, num_classes: int = 5, **params: Any) -> Segmentor:
    return MODELS.build({"name": name, "weights": str(file), **params}, num_classes=num_classes)


def report_of(model: Segmentor) -> LoadReport:
    assert model.load_report is not None
    return model.load_report


def save(content: Any, file: Path) -> Path:
    torch.save(content, file)
    return file


def official(state: State, *, class_weights: Tensor | None = None, prefix: str = "model.") -> State:
    """The layout in which the official code saves model and loss together."""
    named = {f"{prefix}{key}": value for key, value in state.items()}
    return named if class_weights is None else {**named, "loss.criterion.weight": class_weights}


def imagenet(state: State, heads: tuple[str, ...] = ("last_layer.",)) -> State:
    """The layout of HRNet for classification: the trunk and what turns it into 1000 classes."""
    trunk = {key: value for key, value in state.items() if not key.startswith(heads)}
    extra = {
        "incre_modules.0.0.conv1.weight": torch.rand(32, 16, 1, 1),
        "incre_modules.0.0.bn1.running_var": torch.rand(32),
        "downsamp_modules.0.0.weight": torch.rand(256, 128, 3, 3),
        "final_layer.0.weight": torch.rand(2048, 1024, 1, 1),
        "classifier.weight": torch.rand(1000, 2048),
        "classifier.bias": torch.rand(1000),
    }
    return {**trunk, **extra}


def assert_equal(model: nn.Module, expected: State) -> None:
    own = model.state_dict()
    assert own.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(own[key], value), key


def untouched(build_it: Callable[[], Segmentor], file: Path, **arguments: Any) -> WeightsError:
    """The refusal of `file`, after which the model is as it was before."""
    model = build_it()
    before = deepcopy(model.state_dict())
    with pytest.raises(WeightsError) as caught:
        segtrain.load_weights(model, file, **{"align_corners": False, **arguments})
    assert_equal(model, before)
    assert model.load_report is None
    assert caught.value.report.refused or not caught.value.report.loaded
    assert not caught.value.report.loaded
    return caught.value


# ---------------------------------------------------------------------- official files


def _best(state: State) -> Any:
    return official(state, class_weights=torch.linspace(0.5, 1.5, 5))


def _final_state_without_class_weights(state: State) -> Any:
    return official(state)


def _checkpoint(state: State) -> Any:
    return {"epoch": 7, "best_mIoU": 0.7, "state_dict": _best(state), "optimizer": {"state": {}}}


def _data_parallel(state: State) -> Any:
    return {f"module.{key}": value for key, value in _best(state).items()}


def _compiled(state: State) -> Any:
    return {"model": {f"_orig_mod.{key}": value for key, value in state.items()}}


def _lightning(state: State) -> Any:
    return {
        "state_dict": {f"net.{key}": value for key, value in state.items()},
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
    }


LAYOUTS = [
    _best,
    _final_state_without_class_weights,
    _checkpoint,
    _data_parallel,
    _compiled,
    _lightning,
    dict,
]


@pytest.mark.parametrize(
    ("name", "layout"), [*((SMALL, layout) for layout in LAYOUTS), (OCR, _best), (OCR, _checkpoint)]
)
def test_every_layout_loads_every_weight(
    name: str, layout: Callable[[State], Any], states: Callable[[str], State], tmp_path: Path
) -> None:
    state = states(name)
    model = build(save(layout(state), tmp_path / "best.pth"), name, align_corners=True)
    assert_equal(model, state)
    report = report_of(model)
    assert set(report.loaded) == state.keys()
    assert not any((report.new, report.reinitialised, report.left_out, report.converted))
    assert name in report.kind
    assert report.num_classes == 5


def test_the_word_model_goes_from_the_start_of_a_name_only(tmp_path: Path) -> None:
    class Inside(Segmentor):
        def __init__(self, **common: Any) -> None:
            super().__init__(**common)
            self.sub = nn.ModuleDict({"model": nn.Conv2d(3, self.num_classes, 1)})

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"out": self.sub["model"](images)}

    first, second = Inside(num_classes=2), Inside(num_classes=2)
    file = save(official(first.state_dict()), tmp_path / "best.pth")
    segtrain.load_weights(second, file, align_corners=False)
    assert_equal(second, first.state_dict())


def test_class_weights_of_an_official_file_are_reported(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(_best(states(SMALL)), tmp_path / "best.pth")
    report = report_of(build(file, align_corners=False))
    assert report.class_weights == pytest.approx([0.5, 0.75, 1.0, 1.25, 1.5])
    assert "loss.class_weights=[0.5,0.75,1.0,1.25,1.5]" in str(report)


@pytest.mark.parametrize(("name", "align_corners"), [("seg_hrnet", False), ("seg_hrnet_ocr", True)])
def test_official_references_give_the_official_logits(
    name: str, align_corners: bool, reference: Callable[[str], Any], tmp_path: Path
) -> None:
    values = reference(f"{name}.pt")
    file = save({"state_dict": official(values["state_dict"])}, tmp_path / "checkpoint.pth.tar")
    ours = OCR if name.endswith("ocr") else SMALL
    model = build(file, ours, num_classes=19, align_corners=align_corners).eval()
    with torch.no_grad():
        outputs = model(values["input"])
    assert values["align_corners"] == align_corners
    torch.testing.assert_close(outputs["out"], values["outputs"][-1], rtol=0, atol=1e-4)
    if name.endswith("ocr"):
        torch.testing.assert_close(outputs["aux"], values["outputs"][0], rtol=0, atol=1e-4)


def test_align_corners_is_asked_for_where_the_file_cannot_tell(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    with pytest.raises(
        ConfigError, match=r"model\.align_corners is not set.*seg_hrnet false on Ci"
    ):
        build(file)
    with pytest.raises(ConfigError, match=r"true on ADE20K and COCO-Stuff"):
        build(file)
    with pytest.raises(ConfigError, match=r"^align_corners is not set"):
        segtrain.load_weights(MODELS.build(SMALL, num_classes=5), file)
    assert build(file, align_corners=True).align_corners is True
    chosen = MODELS.build({"name": SMALL, "align_corners": True}, num_classes=5)
    segtrain.load_weights(chosen, file)  # true is nobody's default
    with pytest.raises(ConfigError, match="the model was built with align_corners=True"):
        segtrain.load_weights(chosen, file, align_corners=False)
    ocr = save(official(states(OCR)), tmp_path / "ocr.pth")
    with pytest.raises(ConfigError, match="it is true in every official recipe of HRNet-OCR"):
        build(ocr, OCR)


def test_align_corners_is_asked_for_of_any_head_that_the_file_has(tmp_path: Path) -> None:
    first = _Plain(num_classes=3)
    file = save(first.state_dict(), tmp_path / "plain.pth")
    with pytest.raises(ConfigError, match=r"^align_corners is not set, and .*plain\.pth"):
        segtrain.load_weights(_Plain(num_classes=3), file)
    second = _Plain(num_classes=3)
    segtrain.load_weights(second, file, align_corners=False)
    assert_equal(second, first.state_dict())


# ---------------------------------------------------------------------- PyTorch 0.4.1


class _AbsoluteNorm(nn.Module):
    """Batch norm of InPlaceABN, by its formula."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, var, scale, shift = (
            value[:, None, None]
            for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (features - mean) / (var + 1e-5).sqrt() * (scale.abs() + 1e-5) + shift


def _with_absolute_norms(model: nn.Module) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, _AbsoluteNorm(child))
    return model


@pytest.mark.parametrize("name", [SMALL, OCR])
def test_in_place_abn_files_give_the_logits_of_their_own_formula(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS.build(name, num_classes=5).double().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(-0.5, 1.2)  # some 30 % below zero
                layer.bias.uniform_(-0.2, 0.2)
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.uniform_(-0.2, 0.2)
                layer.running_var.uniform_(0.5, 2.0)
    old = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    file = save(official(old), tmp_path / "best.pth")
    loaded = MODELS.build(name, num_classes=5).double().eval()
    with pytest.raises(ConfigError, match=r"without num_batches_tracked.*set abn=true where"):
        segtrain.load_weights(loaded, file, align_corners=False)
    report = segtrain.load_weights(loaded, file, abn=True, align_corners=False)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = _with_absolute_norms(deepcopy(model))(images)["out"]
        torch.testing.assert_close(loaded(images)["out"], expected, rtol=0, atol=1e-10)
        assert (model(images)["out"] - expected).abs().max() > 1e-3  # the step is not for nothing
    scales = report.converted["InPlaceABN, |weight| + 1e-5"]
    assert len(scales) == sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    counts = [v for k, v in loaded.state_dict().items() if k.endswith("num_batches_tracked")]
    assert counts
    assert not any(counts)


def test_abn_false_takes_old_batch_norms_as_they_are(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    state = states(SMALL)
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    model = build(save(official(old), tmp_path / "best.pth"), align_corners=False, abn=False)
    for key, value in model.state_dict().items():
        assert torch.equal(value, old.get(key, torch.tensor(0))), key
    assert set(report_of(model).loaded) == old.keys()


def test_imagenet_files_are_plain_batch_norm(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    old = {k: v for k, v in imagenet(states(SMALL)).items() if "num_batches" not in k}
    file = save(old, tmp_path / "hrnet_imagenet.pth")
    model = build(file)  # and neither abn nor align_corners is asked for
    assert torch.equal(model.state_dict()["bn1.weight"], old["bn1.weight"])
    assert (old["bn1.weight"] < 0).any()
    with pytest.raises(ConfigError, match=r"model\.abn=true, but .* holds plain batch norms"):
        build(file, abn=True)


# ---------------------------------------------------------------------- backbones


@pytest.mark.parametrize(("name", "layout"), [(SMALL, dict), (SMALL, _data_parallel), (OCR, dict)])
def test_imagenet_files_of_hrnet_fill_the_trunk(
    name: str, layout: Callable[[State], Any], states: Callable[[str], State], tmp_path: Path
) -> None:
    """timm's HRNet files have the same names."""
    file = save(layout(imagenet(states(SMALL))), tmp_path / "hrnet.pth")
    model = build(file, name, num_classes=3)
    report = report_of(model)
    trunk = [key for key in states(SMALL) if not key.startswith("last_layer.")]
    assert list(report.loaded) == trunk
    own = model.state_dict()
    for key in trunk:
        assert torch.equal(own[key], states(SMALL)[key]), key
    assert set(report.new) == own.keys() - set(trunk)
    assert set(report.left_out) == {k for k in imagenet(states(SMALL)) if k not in trunk}
    assert "HRNet for ImageNet" in report.kind


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
    with pytest.raises(WeightsError, match=r"add model\.reinit=\[head\] to train that part anew"):
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
    # And back again.
    back = save({"state_dict": model.state_dict()}, tmp_path / "composed.pth")
    assert_equal(build(back, flat, align_corners=True), states(flat))


@pytest.mark.parametrize(
    ("file_of", "model"),
    [("hrnet_w18", "hrnet_w18_small_v2"), ("hrnet_w18_small_v2", SMALL)],
)
def test_a_trunk_of_another_size_is_refused_with_the_name_that_fits(
    file_of: str, model: str, tmp_path: Path
) -> None:
    """All of w18_small_v2 is in w18, in the same shapes: nothing would be missing."""
    state = imagenet(MODELS.build(file_of, num_classes=2).state_dict())
    error = untouched(
        lambda: MODELS.build(model, num_classes=2), save(state, tmp_path / "hrnet.pth")
    )
    assert f"use model={file_of}" in str(error)
    assert error.report.refused


# ---------------------------------------------------------------------- heads that do not fit


def test_another_number_of_classes(states: Callable[[str], State], tmp_path: Path) -> None:
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    with pytest.raises(WeightsError) as caught:
        build(file, num_classes=19, align_corners=False)
    message = str(caught.value)
    assert "the file has 5 classes, the model 19: add model.reinit=[head]" in message
    assert "last_layer.3.weight (5, 240, 1, 1) in the file, (19, 240, 1, 1) in the mo" in message
    assert caught.value.report.refused.keys() == {"of another shape"}
    model = build(file, num_classes=19, align_corners=False, reinit=["head"])
    report = report_of(model)
    heads = [key for key in model.state_dict() if key.startswith("last_layer.")]
    assert list(report.reinitialised) == heads
    assert set(report.loaded) == model.state_dict().keys() - set(heads)


@pytest.mark.parametrize(
    ("reinit", "kept"),
    [
        (["last_layer.3"], "last_layer.3."),
        (["stage4"], "stage4."),
        (["stage4.0.branches.1", "bn1"], ("stage4.0.branches.1.", "bn1.")),
        (["backbone"], None),
    ],
)
def test_any_module_can_be_reinitialised(
    reinit: list[str], kept: Any, states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(states(SMALL), tmp_path / "best.pth")
    report = report_of(build(file, align_corners=False, reinit=reinit))
    all_keys = set(states(SMALL))
    expected = {
        key
        for key in all_keys
        if (key.startswith(kept) if kept else not key.startswith("last_layer."))
    }
    assert set(report.reinitialised) == expected
    assert set(report.loaded) == all_keys - expected


@pytest.mark.parametrize(
    ("reinit", "sentence"),
    [
        (["last_lyer"], r"no module 'last_lyer'; did you mean 'last_layer'\? Known: bn1, .*, head"),
        (["stage4.0.brnches"], r"did you mean 'stage4\.0\.branches'"),
        (["aux_head"], r"no module 'aux_head'"),
        (["stage"], r"no module 'stage'"),  # a prefix is a whole name
    ],
)
def test_a_module_that_is_none_gets_the_closest_one(
    reinit: list[str], sentence: str, states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(states(SMALL), tmp_path / "best.pth")
    with pytest.raises(ConfigError, match=rf"model\.reinit=\[.*\].*{sentence}"):
        build(file, align_corners=False, reinit=reinit)


def test_a_file_without_ocr_is_refused_by_ocr_and_the_other_way_round(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    plain = save(official(states(SMALL)), tmp_path / "plain.pth")
    ocr = save(official(states(OCR)), tmp_path / "ocr.pth")
    with pytest.raises(WeightsError, match=rf"use model={SMALL}, or to train OCR from it"):
        build(plain, OCR, align_corners=True)
    with pytest.raises(WeightsError, match=rf"use model={OCR}, or for its trunk alone add model\."):
        build(ocr, SMALL, align_corners=True)
    trunk = report_of(build(ocr, SMALL, align_corners=True, reinit=["head"]))
    assert not any(key.startswith("last_layer.") for key in trunk.loaded)
    assert {key.split(".")[0] for key in trunk.left_out} == {"aux_head", *AFTER_HRNET}


def test_ocr_starts_from_hrnet_as_in_the_official_code_when_asked_to(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    """There, last_layer becomes aux_head, and what OCR adds starts anew."""
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    model = build(file, OCR, align_corners=True, reinit=AFTER_HRNET)
    own = model.state_dict()
    for key, value in states(SMALL).items():
        assert torch.equal(own[key.replace("last_layer", "aux_head")], value), key
    report = report_of(model)
    assert len(report.converted["last_layer is aux_head"]) == 9
    assert len(report.loaded) == len(states(SMALL))
    fresh = report_of(build(file, OCR, align_corners=True, reinit=["head"]))
    assert not any(key.startswith("aux_head") for key in fresh.loaded)
    assert not fresh.converted


def test_a_head_that_the_file_has_not(states: Callable[[str], State], tmp_path: Path) -> None:
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    with pytest.raises(
        WeightsError, match=r"9 are not in the file \(aux_head.*reinit=\[aux_head\]"
    ):
        build(file, align_corners=False, aux_head=True)
    report = report_of(build(file, align_corners=False, aux_head=True, reinit=["aux_head"]))
    assert "last_layer.0.weight" in report.loaded


def test_a_missing_or_an_unknown_weight_is_named(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    state = dict(states(SMALL))
    state["stage9.weight"] = state.pop("stage3.0.branches.1.0.conv2.weight")
    file = save(state, tmp_path / "best.pth")
    error = untouched(lambda: MODELS.build(SMALL, num_classes=5), file)
    assert "1 is not in the file (stage3.0.branches.1.0.conv2.weight)" in str(error)
    assert "1 is not in the model (stage9.weight)" in str(error)
    rows = {what: names for what, _, names in error.report.rows()}
    assert rows == {"refused: not in the file": "stage3", "refused: not in the model": "stage9"}


@pytest.mark.parametrize("name", [SMALL, "encoder_decoder"])
def test_loading_nothing_is_an_error(
    name: str, states: Callable[[str], State], tmp_path: Path
) -> None:
    spec: dict[str, Any] = {"name": name}
    if name == "encoder_decoder":
        spec |= {"backbone": SMALL, "head": "hrnetv2"}
    other = save({"a.weight": torch.zeros(2), "b": torch.zeros(1)}, tmp_path / "other.pth")
    error = untouched(lambda: MODELS.build(spec, num_classes=5), other)
    assert "none of its 2 weights has a name that" in str(error)
    file = save(states(SMALL), tmp_path / "best.pth")
    error = untouched(lambda: MODELS.build(spec, num_classes=5), file, reinit=["head", "backbone"])
    assert "all of the model is to be reinitialised; nothing was loaded" in str(error)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.full((8,), float("nan")), "norm.bias holds NaN or infinity; nothing was loaded"),
        (torch.full((8,), float("inf")), "norm.bias holds NaN"),
        (torch.zeros(8).to_sparse(), "norm.bias is no plain tensor of numbers"),
        (torch.zeros(8, dtype=torch.int64), "1 has another shape or type"),
        (torch.zeros(8, dtype=torch.complex64), "1 has another shape or type"),
        (torch.zeros(1).expand(2**40), "1 has another shape or type"),
        (torch.zeros(0), "1 has another shape or type"),
    ],
)
def test_odd_tensors_are_refused_and_nothing_is_loaded(
    value: Tensor, sentence: str, tmp_path: Path
) -> None:
    state = _Plain(num_classes=5).state_dict()
    file = save({**state, "encoder.norm.bias": value}, tmp_path / "best.pth")
    model = _Plain(num_classes=5)
    before = deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=sentence):
        segtrain.load_weights(model, file, align_corners=False)
    assert_equal(model, before)


# ---------------------------------------------------------------------- what is converted


@pytest.mark.parametrize("in_channels", [1, 4, 6])
def test_a_stem_of_three_channels_is_widened(
    in_channels: int, states: Callable[[str], State], tmp_path: Path
) -> None:
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    model = build(file, align_corners=False, in_channels=in_channels)
    expected = widen(states(SMALL)["conv1.weight"], in_channels)
    assert torch.equal(model.state_dict()["conv1.weight"], expected)
    assert report_of(model).converted == {f"stem of 3 channels to {in_channels}": ("conv1.weight",)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_what_the_model_computes_in(
    dtype: torch.dtype, states: Callable[[str], State], tmp_path: Path
) -> None:
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in states(SMALL).items()}
    save_file(half, tmp_path / "model.safetensors")
    model = build(tmp_path / "model.safetensors", align_corners=False)
    own = model.state_dict()
    assert own["conv1.weight"].dtype == torch.float32
    assert torch.equal(own["conv1.weight"], half["conv1.weight"].float())
    (what,) = report_of(model).converted
    assert what == f"from {str(dtype).removeprefix('torch.')}"


# ---------------------------------------------------------------------- segtrain's own checkpoints


def _own_checkpoint(file: Path, state: State, ema: State | None, align_corners: bool) -> Path:
    metadata = {
        "model": {"name": SMALL},
        "num_classes": 5,
        "align_corners": align_corners,
        "class_names": list("abcde"),
    }
    content = {"model": state, "ema": ema, "step": 9, "config": {"a": 1}, "metadata": metadata}
    save_checkpoint(file, content)
    return file


def test_a_checkpoint_of_ours_tells_what_it_was_trained_with(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    average = {key: value + 1 for key, value in states(SMALL).items()}
    run = tmp_path / "outputs" / "demo"
    _own_checkpoint(run / "checkpoints" / "best.pt", states(SMALL), average, align_corners=True)
    model = build(run)
    assert model.align_corners is True
    assert_equal(model, average)
    report = report_of(model)
    assert report.kind == f"checkpoint of segtrain ({SMALL}, step 9, moving average)"
    assert (report.class_names, report.num_classes) == (tuple("abcde"), 5)
    other = build(run, align_corners=False)
    assert other.align_corners is False
    assert report_of(other).notes == ("trained with align_corners=true, used with false",)
    with pytest.raises(ConfigError, match="holds plain batch norms"):
        build(run, abn=True)
    with pytest.raises(WeightsError, match=rf"use model={SMALL}"):
        build(run, "hrnet_w18")
    _own_checkpoint(run / "checkpoints" / "best.pt", states(SMALL), None, align_corners=True)
    assert_equal(build(run), states(SMALL))


# ---------------------------------------------------------------------- users' models, by name


class _Plain(Segmentor):
    """A stem and a head, with ImageNet weights of its own."""

    head_prefixes: ClassVar[tuple[str, ...]] = ("classifier",)
    backbone_prefix = "encoder."
    known: ClassVar[State] = {
        "encoder.conv.weight": torch.arange(24.0).reshape(8, 3, 1, 1),
        "encoder.norm.weight": torch.full((8,), -2.0),
        "encoder.norm.bias": torch.zeros(8),
        "encoder.norm.running_mean": torch.ones(8),
        "encoder.norm.running_var": torch.ones(8),
    }

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        layers = {"conv": nn.Conv2d(self.in_channels, 8, 1, bias=False), "norm": nn.BatchNorm2d(8)}
        self.encoder = nn.ModuleDict(layers)
        self.classifier = nn.Conv2d(8, self.num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.classifier(self.encoder["norm"](self.encoder["conv"](images)))}

    def pretrained_backbone(self) -> State:
        return dict(self.known)


@pytest.mark.parametrize("in_channels", [3, 4])
def test_imagenet_takes_what_the_model_knows(in_channels: int) -> None:
    model = _Plain(num_classes=3, in_channels=in_channels)
    report = segtrain.load_weights(model, "imagenet")
    own = model.state_dict()
    expected = widen(_Plain.known["encoder.conv.weight"], in_channels)
    assert torch.equal(own["encoder.conv.weight"], expected)
    assert torch.equal(own["encoder.norm.weight"], _Plain.known["encoder.norm.weight"])
    assert set(report.loaded) == _Plain.known.keys()
    assert set(report.new) == {"classifier.weight", "classifier.bias"}
    assert report.source == "imagenet"
    with pytest.raises(ConfigError, match="abn: ImageNet weights hold plain batch norms"):
        segtrain.load_weights(model, "imagenet", abn=True)


def test_imagenet_weights_must_be_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_Plain.known, "encoder.norm.bias")
    with pytest.raises(WeightsError, match=r"1 is not in the file \(encoder\.norm\.bias\)"):
        segtrain.load_weights(_Plain(num_classes=3), "imagenet")


def test_a_model_without_imagenet_weights_says_so() -> None:
    class Unknown(Segmentor):
        pass

    with pytest.raises(ConfigError, match="no ImageNet weights for Unknown"):
        segtrain.load_weights(Unknown(num_classes=2), "imagenet")


def test_a_plain_module_loads_its_own_files(tmp_path: Path) -> None:
    """A user's module is wrapped; files that its own training wrote have no wrapper's name."""
    from segtrain.models.registry import ModelRegistry

    models = ModelRegistry()

    @models.register("own")
    def own(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, num_classes, 1))

    module = own(num_classes=2)
    file = save({"state_dict": module.state_dict()}, tmp_path / "own.pth")
    spec = {"name": "own", "weights": str(file), "align_corners": False}
    model = models.build(spec, num_classes=2)
    assert_equal(model, {f"net.{key}": value for key, value in module.state_dict().items()})
    assert models.build(spec, num_classes=2, load=False).load_report is None


def test_keys_that_say_nothing_are_refused() -> None:
    for key, value in (("reinit", ["head"]), ("abn", True), ("abn", False)):
        with pytest.raises(ConfigError, match=rf"model\.{key} says how .* model\.weights is null"):
            MODELS.build({"name": SMALL, key: value}, num_classes=2)
