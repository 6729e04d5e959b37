"""Low-rank adapters: what is trained, what stays, and what they compute."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segtrain
from segtrain.engine.freezing import Frozen
from segtrain.engine.optimization.groups import Rates, parameter_groups
from segtrain.errors import CheckpointError, ConfigError
from segtrain.models import MODELS, Segmentor
from segtrain.models.adapters import ADAPTERS, LoRA, add_adapter
from segtrain.models.weights import load_weights

VIT = "timm/test_vit"
RESNET = "timm/resnet18"
LORA = {"name": "lora", "rank": 2}


@pytest.fixture(autouse=True)
def libraries() -> None:
    pytest.importorskip("peft")
    pytest.importorskip("timm")


def model(
    backbone: str = VIT, adapter: str | dict[str, Any] | None = None, **keywords: Any
) -> Segmentor:
    torch.manual_seed(0)
    spec = {"name": "encoder_decoder", "backbone": backbone, "head": "fcn", **keywords}
    return MODELS.build({**spec, "adapter": adapter}, num_classes=3)


def trained(built: nn.Module) -> set[str]:
    return {name for name, parameter in built.named_parameters() if parameter.requires_grad}


def disturb(built: nn.Module) -> None:
    """Give the adapters an effect: their second matrix is 0 at the start."""
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)


def logits(built: Segmentor) -> Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return built.eval()(torch.randn(2, 3, 64, 96))["out"]


@pytest.mark.parametrize("backbone", [VIT, RESNET, "hrnet_w18_small_v1", "timm/convnext_atto"])
def test_only_adapters_and_head_are_trained(backbone: str) -> None:
    plain, built = model(backbone), model(backbone, LORA)
    torch.testing.assert_close(logits(built), logits(plain), rtol=0, atol=0)
    names = trained(built)
    assert {name for name in names if name.startswith("head")} == {
        name for name in trained(plain) if name.startswith("head")
    }
    rest = {name for name in names if not name.startswith("head")}
    assert rest
    assert all(".lora_" in name for name in rest)
    built.train()
    built(torch.randn(2, 3, 64, 64))["out"].square().sum().backward()
    without = [name for name, p in built.named_parameters() if name in names and p.grad is None]
    assert without == []
    assert all(p.grad is None for name, p in built.named_parameters() if name not in names)


def test_attention_that_calls_no_layer_is_passed_over() -> None:
    """BEiT multiplies with the weight of qkv itself, and an adapter there would do nothing."""
    spec = {"name": "timm/beit_base_patch16_224", "out_indices": [0], "img_size": 64}
    built = model(spec, LORA)  # type: ignore[arg-type]
    found = {name.split(".lora_")[0].split(".", 5)[-1] for name in trained(built) if "lora" in name}
    assert found == {"attn.proj", "mlp.fc1", "mlp.fc2"}


def test_batch_norms_of_the_backbone_keep_their_statistics() -> None:
    built = model(RESNET, LORA).train()
    before = {name: value.clone() for name, value in built.named_buffers()}
    built(torch.randn(2, 3, 64, 64) + 3)
    changed = {name for name, value in built.named_buffers() if not value.equal(before[name])}
    assert changed
    assert all(name.startswith("head") for name in changed)
    frozen = Frozen(built, ["head"])
    assert not any(built.get_submodule(name).training for name in built.held_norms)
    held = len(built.held_norms)
    frozen.thaw()
    assert 0 < len(built.held_norms) < held


@pytest.mark.parametrize(
    ("targets", "wanted"),
    [
        (["qkv"], {"attn.qkv"}),
        (["attn.*"], {"attn.qkv", "attn.proj"}),
        (["mlp"], {"mlp.fc1", "mlp.fc2"}),
        (["fc[12]", "proj"], {"mlp.fc1", "mlp.fc2", "attn.proj", "patch_embed.proj"}),
    ],
)
def test_targets(targets: list[str], wanted: set[str]) -> None:
    names = trained(model(adapter={**LORA, "targets": targets}))
    layers = {name.split(".lora_")[0] for name in names if "lora" in name}
    assert {".".join(name.split(".")[-2:]) for name in layers} == wanted


@pytest.mark.parametrize("backbone", [VIT, RESNET])
def test_merged_weights_compute_the_same(backbone: str) -> None:
    adapter = LoRA(rank=2, alpha=6)
    built = model(backbone, {"name": "lora", "rank": 2, "alpha": 6})
    disturb(built)
    plain = model(backbone)
    before = logits(plain)
    plain.load_state_dict(adapter.merged(built.state_dict()))
    torch.testing.assert_close(logits(plain), logits(built), rtol=1e-4, atol=1e-4)
    assert (logits(plain) - before).abs().max() > 0.01


def test_weights_are_loaded_before_the_adapter(tmp_path: Path) -> None:
    source = model()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.normal_(std=0.02)
    torch.save(source.state_dict(), tmp_path / "whole.pth")
    torch.save(source.backbone.state_dict(), tmp_path / "backbone.pth")  # type: ignore[union-attr]
    built = model(adapter=LORA, weights=str(tmp_path / "whole.pth"), align_corners=False)
    assert torch.equal(logits(built), logits(source))
    built = model(adapter=LORA, weights=str(tmp_path / "backbone.pth"))
    found = built.get_parameter("backbone.net.model.blocks.0.attn.qkv.base_layer.weight")
    assert torch.equal(found, source.get_parameter("backbone.net.model.blocks.0.attn.qkv.weight"))


def test_weights_are_not_loaded_after_the_adapter(tmp_path: Path) -> None:
    torch.save(model().state_dict(), tmp_path / "whole.pth")
    with pytest.raises(ConfigError, match="pass weights= and adapter= to build_model"):
        load_weights(model(adapter=LORA), tmp_path / "whole.pth", align_corners=False)


def test_the_optimizer_gets_what_is_trained() -> None:
    built = model(adapter=LORA)
    groups = parameter_groups(built, Rates(lr=1.0, weight_decay=0.0, layer_decay=0.5))
    given = {id(parameter) for group in groups for parameter in group["params"]}
    assert given == {id(p) for name, p in built.named_parameters() if name in trained(built)}
    rates = {
        group["lr"]: {
            name for name, p in built.named_parameters() for q in group["params"] if p is q
        }
        for group in groups
    }
    blocks = len(built.backbone.net.model.blocks)  # type: ignore[union-attr]
    assert len(rates) == blocks + 1  # the head has a rate of its own
    assert all("blocks.0." in name for name in rates[0.5**blocks])


def test_recomputed_activations_give_the_same_gradients() -> None:
    found = []
    for recompute in (False, True):
        built = model(adapter=LORA, activation_checkpointing=recompute).train()
        disturb(built)
        torch.manual_seed(3)
        built(torch.randn(1, 3, 64, 64))["out"].square().sum().backward()
        found.append({name: p.grad for name, p in built.named_parameters() if p.requires_grad})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


class Headless(Segmentor):
    def __init__(self, *, num_classes: int) -> None:
        super().__init__(num_classes=num_classes)
        self.conv = nn.Conv2d(3, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.conv(images)}


class Grouped(Headless):
    head_prefixes = ("conv",)

    def __init__(self) -> None:
        super().__init__(num_classes=3)
        self.first = nn.Conv2d(3, 3, 1, groups=3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.conv(self.first(images))}


def test_a_model_without_a_head_or_without_plain_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Headless does not say which .* set head_prefixes"):
        add_adapter(Headless(num_classes=3), LoRA())
    with pytest.raises(ConfigError, match="Grouped has no linear layer and no plain convolution"):
        add_adapter(Grouped(), LoRA())


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("lore", "model.adapter: unknown adapter 'lore'; did you mean 'lora'"),
        ({"name": "lora", "rnk": 4}, "model.adapter.rnk.*did you mean 'rank'"),
        ({"name": "lora", "rank": 0}, "model.adapter.rank must be at least 1, got 0"),
        ({"name": "lora", "dropout": 1.0}, "model.adapter.dropout must be at least 0 and below 1"),
        ({"name": "lora", "targets": []}, "model.adapter.targets must name at least one layer"),
        (
            {"name": "lora", "targets": ["attn.qkw"]},
            r"model.adapter.targets: .* matches 'attn.qkw'; did you mean 'attn.qkv'\? Known: ",
        ),
    ],
)
def test_wrong_values_are_refused(adapter: str | dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model(adapter=adapter)


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "peft":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"No module named 'peft'\): pip install 'segtrain\[peft"):
        model(adapter="lora")


def test_a_damaged_adapter_is_a_checkpoint_error() -> None:
    adapter = ADAPTERS.build("lora")
    state = {
        "fc.base_layer.weight": torch.zeros(2, 3),
        "fc.lora_A.default.weight": torch.zeros(2, 4),
    }
    with pytest.raises(CheckpointError, match="the adapter of fc are incomplete"):
        adapter.merged(state)
    with pytest.raises(CheckpointError, match=r"the adapter of fc do not fit it: .* \(2, 3\)"):
        adapter.merged({**state, "fc.lora_B.default.weight": torch.zeros(2, 2)})
    down, up = torch.zeros(2, 3), torch.zeros(1, 2)  # the sum would broadcast
    weights = {"fc.lora_A.default.weight": down, "fc.lora_B.default.weight": up}
    with pytest.raises(CheckpointError, match="the adapter of fc do not fit it"):
        adapter.merged({**state, **weights})
    other = {"net.base_layer.weight": torch.zeros(1)}  # a name of the model itself
    assert adapter.merged(other) == other


def test_the_key_is_reserved() -> None:
    with pytest.raises(ConfigError, match=r"model\.adapter is reserved for adapters"):
        segtrain.register_model("with_adapter")(
            lambda *, num_classes, adapter=None: nn.Conv2d(3, num_classes, 1)
        )
