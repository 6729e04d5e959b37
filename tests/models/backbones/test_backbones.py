"""The backbones of timm and torchvision, and where their weights come from."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from segtrain.errors import CheckpointError, ConfigError, ResourceError
from segtrain.models.backbones import BACKBONES, Backbone
from segtrain.models.backbones.hrnet import VARIANTS, HRNet, HRNetVariant, imagenet_trunk
from segtrain.models.backbones.registry import BackboneRegistry, Family, check_architecture
from segtrain.models.backbones.timm import TimmBackbone, _cut, _join
from segtrain.models.backbones.timm_plan import Options, plan_features
from segtrain.models.backbones.torchvision import imagenet_weights, new_stem
from segtrain.models.unused import unread_features, unused_parameters

TORCHVISION = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
]
QUICK_TORCHVISION = ["resnet18", "resnet50", "wide_resnet50_2", "mobilenet_v2"]
TIMM = ["pvt_v2_b0", "swin_tiny_patch4_window7_224"]
SLOW_TIMM = [  # their kinds are among the miniatures
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenetv3_small_100",
    "regnety_002",
    "resnet18",
    "vit_tiny_patch16_224",
]


def slow(*values: Any) -> list[Any]:
    """Parameters of tests that are left out of the short suite."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


# timm's miniatures: every kind of input that an architecture may want, in seconds.
TINY = ["test_convnext", "test_efficientnet", "test_resnet", "test_vit", "test_vit_relpos"]
SMALL = [f"torchvision/{name}" for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small")]
SMALL += [f"timm/{name}" for name in TINY]


def build(name: str, *, in_channels: int = 3, **params: Any) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build({"name": name, **params}, in_channels=in_channels)


def images_of(*size: int, channels: int = 3, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *size, generator=generator)


def check_shapes(backbone: Backbone, size: tuple[int, int], *, batch: int = 1) -> None:
    with torch.no_grad():
        features = backbone.eval()(images_of(*size, channels=backbone.in_channels, batch=batch))
    shapes = [tuple(feature.shape) for feature in features]
    assert shapes == [
        (batch, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert all(feature.isfinite().all() for feature in features)
    assert list(backbone.strides) == sorted(backbone.strides)


def check_gradients(backbone: Backbone, *size: int) -> None:
    features = backbone.train()(images_of(*size))
    torch.stack([feature.square().mean() for feature in features]).sum().backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


class TestEvery:
    @pytest.mark.parametrize("name", SMALL)
    def test_any_size(self, name: str) -> None:
        backbone = build(name)
        for size in ((43, 70), (1, 1), (33, 64)):
            check_shapes(backbone, size)

    @pytest.mark.parametrize("name", SMALL)
    def test_gradients_reach_every_parameter(self, name: str) -> None:
        backbone = build(name)
        check_gradients(backbone, 40, 72)
        assert all(parameter.requires_grad for parameter in backbone.parameters())

    @pytest.mark.parametrize("in_channels", [1, 4, 6])
    @pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/test_convnext"])
    def test_any_number_of_channels(self, name: str, in_channels: int) -> None:
        check_shapes(build(name, in_channels=in_channels), (33, 40))

    @pytest.mark.parametrize("name", SMALL)
    def test_the_same_numbers_in_channels_last_and_in_a_copy(self, name: str) -> None:
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
    def test_norm_stride_is_where_training_on_one_image_fails(self, name: str) -> None:
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
    def test_activation_checkpointing_changes_no_number(self, name: str) -> None:
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
    def test_activation_checkpointing_keeps_less(self, name: str) -> None:
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
    def test_compiles_without_breaks(self, name: str) -> None:
        backbone = build(name).eval()
        images = images_of(33, 40)
        with torch.no_grad():
            compiled = torch.compile(backbone, fullgraph=True, backend="eager")(images)
            for one, other in zip(compiled, backbone(images), strict=True):
                assert torch.equal(one, other)


class TestTorchvision:
    @pytest.mark.parametrize(
        "architecture",
        [
            *QUICK_TORCHVISION,
            *slow(*(name for name in TORCHVISION if name not in QUICK_TORCHVISION)),
        ],
    )
    def test_names_and_shapes_are_those_of_torchvisions_files(self, architecture: str) -> None:
        from torchvision import models

        with torch.device("meta"):
            backbone = build(f"torchvision/{architecture}")
            theirs = models.get_model(architecture, weights=None).state_dict()
        kept = {key: value.shape for key, value in theirs.items() if not _is_classifier(key)}
        assert {key: value.shape for key, value in backbone.state_dict().items()} == kept
        assert backbone.strides == (4, 8, 16, 32)

    def test_every_resnet_and_mobilenet_is_there(self) -> None:
        with pytest.raises(ConfigError, match=r"it has .*resnet18"):
            check_architecture("torchvision", "alexnet", TORCHVISION)
        from segtrain.models.backbones import torchvision

        assert sorted(torchvision._names()) == sorted(TORCHVISION)

    @pytest.mark.parametrize(
        ("architecture", "nodes"),
        [
            ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
            ("mobilenet_v2", ["features.3", "features.6", "features.13", "features.18"]),
            ("mobilenet_v3_large", ["features.3", "features.6", "features.12", "features.16"]),
        ],
    )
    def test_features_are_torchvisions(self, architecture: str, nodes: list[str]) -> None:
        from torchvision import models
        from torchvision.models.feature_extraction import create_feature_extractor

        torch.manual_seed(0)
        theirs = models.get_model(architecture, weights=None).eval()
        backbone = build(f"torchvision/{architecture}").eval()
        backbone.load_state_dict(backbone.from_library(theirs.state_dict()), strict=True)
        extractor = create_feature_extractor(theirs, nodes)
        images = images_of(75, 117)
        with torch.no_grad():
            for ours, expected in zip(backbone(images), extractor(images).values(), strict=True):
                assert torch.equal(ours, expected)

    @pytest.mark.parametrize("stride", [8, 16])
    def test_dilated_as_by_torchvision(self, stride: int) -> None:
        from torchvision import models

        dilated = [False, stride == 8, True]
        theirs = models.resnet50(weights=None, replace_stride_with_dilation=dilated).eval()
        backbone = build("torchvision/resnet50", output_stride=stride).eval()
        backbone.load_state_dict(backbone.from_library(theirs.state_dict()), strict=True)
        assert backbone.strides == tuple(min(own, stride) for own in (4, 8, 16, 32))
        assert backbone.norm_stride == stride
        theirs.avgpool, theirs.fc = nn.Identity(), nn.Identity()
        images = images_of(40, 48, batch=1)
        with torch.no_grad():
            last = backbone(images)[-1]
            assert torch.equal(last.flatten(1), theirs(images))
        check_shapes(backbone, (33, 65))

    @pytest.mark.parametrize("stride", [8, 16])
    def test_basic_blocks_dilated_as_by_timm(self, stride: int) -> None:
        timm = pytest.importorskip("timm")
        theirs = timm.create_model(
            "resnet18", features_only=True, output_stride=stride, out_indices=(1, 2, 3, 4)
        ).eval()
        backbone = build("torchvision/resnet18", output_stride=stride).eval()
        backbone.load_state_dict(theirs.state_dict(), strict=True)
        images = images_of(40, 48)
        with torch.no_grad():
            for ours, expected in zip(backbone(images), theirs(images), strict=True):
                assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)

    def test_a_stem_for_other_channels(self) -> None:
        conv = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        assert new_stem(conv, 3) is conv
        stem = new_stem(conv, 5)
        assert stem(images_of(9, 9, channels=5)).shape == (2, 64, 5, 5)
        assert stem.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.1)

    def test_mobilenets_cannot_be_dilated(self) -> None:
        with pytest.raises(ConfigError, match=r"backbone\.output_stride of .*v2 can only be 32"):
            build("torchvision/mobilenet_v2", output_stride=8)


def _is_classifier(key: str) -> bool:
    return key.startswith(("fc.", "classifier."))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub folder of torch, and no network."""

    def no_network(url: str, *_: Any, **__: Any) -> None:
        raise URLError("no network in this test")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "hub" / "checkpoints"


class TestTorchvisionWeights:
    def test_come_from_the_hub_folder(self, hub: Path) -> None:
        from torchvision import models

        weights = models.get_model_weights("resnet18").DEFAULT
        state = {
            key: torch.randn(value.shape) if value.is_floating_point() else value
            for key, value in models.resnet18(weights=None).state_dict().items()
        }
        hub.mkdir(parents=True)
        torch.save(state, hub / weights.url.rsplit("/", 1)[-1])
        backbone = build("torchvision/resnet18", in_channels=5)
        loaded = backbone.pretrained()
        assert set(loaded) == set(backbone.state_dict())
        for key, value in loaded.items():
            assert torch.equal(value, state[key]), key
        assert loaded["conv1.weight"].shape[1] == 3  # widening it is the loader's business

    @pytest.mark.parametrize("architecture", ["resnet50", "mobilenet_v3_large"])
    def test_offline_it_is_said_which_file_goes_where(self, hub: Path, architecture: str) -> None:
        from torchvision import models

        url = models.get_model_weights(architecture).DEFAULT.url
        with pytest.raises(ResourceError) as raised:
            imagenet_weights(architecture)
        assert url in str(raised.value)
        assert f"at {hub / url.rsplit('/', 1)[-1]}," in str(raised.value)
        assert "model.weights=<path>" in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_a_damaged_file_is_named(self, hub: Path) -> None:
        from torchvision import models

        name = models.get_model_weights("resnet18").DEFAULT.url.rsplit("/", 1)[-1]
        hub.mkdir(parents=True)
        (hub / name).write_bytes(b"no weights")
        with pytest.raises(CheckpointError, match=rf"{name} holds no weights .* delete it"):
            imagenet_weights("resnet18")


class TestTimm:
    @pytest.mark.parametrize("name", [*TIMM, *slow(*SLOW_TIMM)])
    def test_the_usual_ones(self, name: str) -> None:
        pytest.importorskip("timm")
        backbone = build(f"timm/{name}")
        assert len(backbone.channels) == 4
        assert backbone.strides == ((16,) * 4 if name.startswith("vit") else (4, 8, 16, 32))
        check_shapes(backbone, (33, 70))
        check_shapes(backbone, (1, 1))
        check_gradients(backbone, 33, 40)
        assert all(parameter.requires_grad for parameter in backbone.parameters())

    def test_features_are_timms(self) -> None:
        timm = pytest.importorskip("timm")
        theirs = timm.create_model("test_resnet", features_only=True, out_indices=(1, 2, 3, 4))
        backbone = build("timm/test_resnet")
        assert isinstance(backbone, TimmBackbone)
        backbone.net.load_state_dict(theirs.state_dict(), strict=True)
        images = images_of(75, 117)
        with torch.no_grad():
            found, expected = backbone.eval()(images), theirs.eval()(images)
        assert backbone.plan.divisor == 1
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)

    def test_images_are_padded_where_timm_would_drop_rows(self) -> None:
        pytest.importorskip("timm")
        backbone = build("timm/test_convnext").eval()
        assert isinstance(backbone, TimmBackbone)
        assert backbone.plan.divisor == 32
        images = images_of(40, 33)
        padded = torch.zeros(2, 3, 64, 64)
        padded[..., :40, :33] = images
        with torch.no_grad():
            for stride, one, other in zip(
                backbone.strides, backbone(images), backbone.net(padded), strict=True
            ):
                rows, columns = math.ceil(40 / stride), math.ceil(33 / stride)
                assert torch.equal(one, other[..., :rows, :columns])

    def test_channels_come_second_where_timm_has_them_last(self) -> None:
        pytest.importorskip("timm")
        backbone = build("timm/swin_tiny_patch4_window7_224").eval()
        assert isinstance(backbone, TimmBackbone)
        assert backbone.plan.is_nhwc
        images = images_of(64, 96, batch=1)
        with torch.no_grad():
            for one, other in zip(backbone(images), backbone.net(images), strict=True):
                assert torch.equal(one, other.permute(0, 3, 1, 2))

    def test_one_size_only_means_squares(self) -> None:
        pytest.importorskip("timm")
        backbone = build("timm/test_vit_relpos").eval()
        assert isinstance(backbone, TimmBackbone)
        assert (backbone.plan.is_tiled, backbone.plan.divisor) == (True, 160)
        images = images_of(160, 320, batch=2)
        with torch.no_grad():
            whole = backbone(images)
            left, right = (backbone(images[..., start : start + 160]) for start in (0, 160))
        for one, first, second in zip(whole, left, right, strict=True):
            assert torch.allclose(one, torch.cat([first, second], dim=3), rtol=0, atol=1e-4)

    def test_squares_as_large_as_the_crops(self) -> None:
        pytest.importorskip("timm")
        backbone = build("timm/test_vit_relpos", img_size=64)
        assert isinstance(backbone, TimmBackbone)
        assert backbone.plan.divisor == 64
        check_shapes(backbone, (64, 64))

    def test_cutting_and_joining(self) -> None:
        images = torch.arange(2 * 3 * 6 * 9.0).reshape(2, 3, 6, 9)
        squares = _cut(images, 3)
        assert squares.shape == (12, 3, 3, 3)
        assert torch.equal(squares[1], images[0, :, :3, 3:6])
        assert torch.equal(squares[6 + 5], images[1, :, 3:, 6:])
        assert torch.equal(_join(squares, 2, 3), images)

    def test_options(self) -> None:
        pytest.importorskip("timm")
        dilated = build("timm/test_resnet", output_stride=8)
        assert dilated.strides == (4, 8, 8, 8)
        check_shapes(dilated, (33, 40))
        chosen = build("timm/test_resnet", out_indices=[-1, 0])
        assert chosen.strides == (2, 32)
        check_shapes(chosen, (33, 40))
        layers = build("timm/test_vit", out_indices=[1, 3])
        assert len(layers.channels) == 2

    def test_drop_path_acts_in_training(self) -> None:
        pytest.importorskip("timm")
        backbone = build("timm/test_convnext", drop_path_rate=0.9)
        images = images_of(32, 32)
        with torch.no_grad():
            first, second = (backbone.train()(images)[-1] for _ in range(2))
            assert not torch.equal(first, second)
            first, second = (backbone.eval()(images)[-1] for _ in range(2))
            assert torch.equal(first, second)

    @pytest.mark.parametrize(
        ("name", "params", "message"),
        [
            ("timm/convnext_tinny", {}, "timm has no .*; did you mean timm/convnext_tiny"),
            ("timm/resnet18.a1_in2k", {}, "did you mean timm/resnet18.a1_in1k"),
            ("timm/test_resnet", {"img_size": 64}, r"backbone\.img_size: .* has no such option"),
            (
                "timm/test_resnet",
                {"out_indices": [5]},
                r"backbone\.out_indices must be one .*\[5\]",
            ),
            ("timm/test_resnet", {"out_indices": []}, r"backbone\.out_indices must be one .*\[\]"),
            ("timm/test_resnet", {"output_stride": 4}, r"backbone\.output_stride must be 8 or 16"),
            (
                "timm/test_vit",
                {"output_stride": 8},
                r"backbone\.output_stride: .* has no such option",
            ),
            ("timm/hrnet_w18_small", {"output_stride": 8}, r"\.output_stride of .* cannot be 8"),
            (
                "timm/hrnet_w18_small",
                {"drop_path_rate": 0.1},
                r"\.drop_path_rate: .* has no such option",
            ),
            pytest.param("timm/inception_v4", {}, "do not line up", marks=pytest.mark.slow),
            (
                "timm/test_efficientnet",
                {"activation_checkpointing": True},
                "has no activation_checkpointing that leaves the statistics",
            ),
            ("timm/test_resnet", {"stride": 8}, "no parameter 'stride'"),
            ("tim/resnet18", {}, "did you mean 'timm/resnet18'"),
            ("resnet18", {}, "unknown backbone 'resnet18'.*torchvision/<name>"),
            ("torchvision/resnet5", {}, "did you mean torchvision/resnet50"),
        ],
    )
    def test_mistakes(self, name: str, params: dict[str, Any], message: str) -> None:
        pytest.importorskip("timm")
        with pytest.raises(ConfigError, match=message) as raised:
            build(name, **params)
        assert "\n" not in str(raised.value)

    def test_without_timm_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ConfigError, match=r"pip install 'segtrain\[timm\]'"):
            plan_features("resnet18", Options(img_size=1))
        with pytest.raises(ConfigError, match=r"pip install 'segtrain\[timm\]'"):
            imagenet_trunk(VARIANTS["w18"])


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face hub, and no network."""
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put_weights(cache: Path, architecture: str, *, without: str | None = None) -> dict[str, Tensor]:
    """Random weights of timm's classifier, laid into the cache as the hub's client does."""
    import timm
    from safetensors.torch import save_file

    model = timm.create_model(architecture, pretrained=False)
    generator = torch.Generator().manual_seed(1)
    state = {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
        if key != without
    }
    repository = timm.get_pretrained_cfg(architecture).hf_hub_id
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(state, folder / "snapshots" / ("0" * 40) / "model.safetensors")
    return state


class TestTimmWeights:
    @pytest.mark.parametrize("name", ["test_convnext", "test_vit", *slow("test_resnet", *TIMM)])
    def test_come_from_the_hubs_cache(self, hf_cache: Path, name: str) -> None:
        state = put_weights(hf_cache, name)
        backbone = build(f"timm/{name}", in_channels=5)
        loaded = backbone.pretrained()
        assert set(loaded) == set(backbone.state_dict())
        renamed = backbone.from_library(state)
        assert set(renamed) == set(loaded)
        identities = {id(value) for value in state.values()}
        for key, value in renamed.items():
            assert torch.equal(value, loaded[key]), key
            assert id(value) in identities

    def test_nothing_may_be_missing(self, hf_cache: Path) -> None:
        put_weights(hf_cache, "test_resnet", without="layer1.0.conv1.weight")
        with pytest.raises(CheckpointError, match=r"1 of \d+ .* such as layer1\.0\.conv1\.weight"):
            build("timm/test_resnet").pretrained()

    def test_offline_it_is_said_what_to_do(self, hf_cache: Path) -> None:
        with pytest.raises(ResourceError) as raised:
            build("timm/test_resnet").pretrained()
        for part in (
            "timm/test_resnet",
            "huggingface.co/timm/test_resnet.r160_in1k",
            "HF_HUB_CACHE",
        ):
            assert part in str(raised.value)
        assert "model.weights=<path>" in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_an_architecture_without_weights_says_so(self, hf_cache: Path) -> None:
        backbone = build("timm/convnext_atto_rms")
        with pytest.raises(
            ConfigError, match="no pretrained weights for convnext_atto_rms; give a file"
        ):
            backbone.pretrained()

    @pytest.mark.parametrize("variant", ["w18_small_v1", "w18_small_v2"])
    def test_an_hrnet_takes_timms(self, hf_cache: Path, variant: str) -> None:
        name = {"w18_small_v1": "hrnet_w18_small", "w18_small_v2": "hrnet_w18_small_v2"}[variant]
        state = put_weights(hf_cache, name)
        trunk = HRNet(variant)
        loaded = trunk.pretrained()
        assert list(loaded) == list(trunk.state_dict())
        for key, value in loaded.items():
            assert torch.equal(value, state[key]), key

    @pytest.mark.parametrize("variant", ["w18", "w32", "w48"])
    def test_every_published_hrnet_is_asked_for_by_its_name(
        self, hf_cache: Path, variant: str
    ) -> None:
        with pytest.raises(ResourceError, match=rf"timm/hrnet_{variant}\."):
            imagenet_trunk(VARIANTS[variant])

    def test_an_hrnet_of_your_own_has_none(self) -> None:
        with pytest.raises(ConfigError, match="no ImageNet weights for an HRNet"):
            HRNet(HRNetVariant(8, (1, 1, 1), 1, 1, 16)).pretrained()


class TestRegistry:
    def test_a_backbone_of_your_own(self) -> None:
        registry = BackboneRegistry()

        @registry.register("halves")
        class Halves(Backbone):
            channels, strides = (4,), (2,)

            def __init__(self, *, width: int = 4, **common: Any) -> None:
                super().__init__(**common)
                self.conv = nn.Conv2d(self.in_channels, width, 3, stride=2, padding=1)

            def forward(self, images: Tensor) -> list[Tensor]:
                return [self.conv(images)]

        backbone = registry.build({"name": "halves", "width": 4}, in_channels=2)
        assert backbone(torch.zeros(1, 2, 5, 5))[0].shape == (1, 4, 3, 3)
        with pytest.raises(ConfigError, match="no ImageNet weights for Halves"):
            backbone.pretrained()
        with pytest.raises(ConfigError, match="in_channels must be at least 1, got 0"):
            registry.build("halves", in_channels=0)

    def test_a_family(self) -> None:
        registry = BackboneRegistry()

        def make(*, architecture: str, in_channels: int = 3, width: int = 1) -> Backbone:
            check_architecture("mine", architecture, ["small"])
            return Backbone(in_channels=in_channels)

        registry.register_family("mine", Family(build=make, names=lambda: ["small"]))
        assert set(registry.schema("mine/small")) == {"in_channels", "width"}
        assert registry.build("mine/small").in_channels == 3
        for name, message in (
            ("mine/smal", "mine has no backbone 'smal'; did you mean mine/small"),
            ("mne/small", "did you mean 'mine/small'"),
            ("other", "Known: mine/<name>"),
        ):
            with pytest.raises(ConfigError, match=message):
                registry.build(name)

    def test_a_backbone_without_forward_says_so(self) -> None:
        with pytest.raises(NotImplementedError, match="forward"):
            Backbone()(torch.zeros(1, 3, 8, 8))


class TestUnused:
    @pytest.fixture
    def idle(self) -> nn.Module:
        class Idle(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.used, self.idle = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
                self.norm = nn.BatchNorm2d(4)

            def forward(self, images: Tensor) -> dict[str, Tensor]:
                return {"out": self.norm(self.used(images))}

        return Idle()

    def test_named_and_nothing_is_touched(self, idle: nn.Module) -> None:
        before = copy.deepcopy(idle.state_dict())
        assert unused_parameters(idle, 3) == ("idle.weight", "idle.bias")
        for key, value in idle.state_dict().items():
            assert torch.equal(value, before[key])
        assert all(parameter.grad is None for parameter in idle.parameters())

    def test_a_model_that_needs_numbers_names_none(self) -> None:
        class NeedsNumbers(nn.Conv2d):
            def forward(self, images: Tensor) -> Tensor:
                return super().forward(images) * float(images.mean())

        assert unused_parameters(NeedsNumbers(3, 4, 1), 3) == ()
        assert unread_features(NeedsNumbers(3, 4, 1), (3, 4)) == {0, 1}
