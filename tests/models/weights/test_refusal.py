"""What is said of weights that do not fit, and in which order things are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segtrain.engine.checkpoint import load_checkpoint, save_checkpoint
from segtrain.errors import CheckpointError, ConfigError, SegtrainError
from segtrain.models import MODELS, Segmentor
from segtrain.models.registry import ModelRegistry
from segtrain.models.weights.files import read_weights

SMALL = "hrnet_w18_small_v1"
OCR = f"{SMALL}_ocr"


def official(tmp_path: Path, name: str = SMALL, num_classes: int = 5) -> str:
    file = tmp_path / f"{name}.pth"
    state = MODELS.build(name, num_classes=num_classes).state_dict()
    torch.save({f"model.{key}": value for key, value in state.items()}, file)
    return str(file)


def refused(name: str, weights: str, **params: Any) -> SegtrainError:
    with pytest.raises(SegtrainError) as caught:
        MODELS.build({"name": name, "weights": weights, **params}, num_classes=5)
    return caught.value


def flip_a_byte_inside(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_flipped_bit_is_no_weight(tmp_path: Path) -> None:
    file = tmp_path / "best.pth"
    torch.save({"weight": torch.rand(4000)}, file)
    assert read_weights(file)["weight"].shape == (4000,)
    flip_a_byte_inside(file)
    with pytest.raises(CheckpointError, match=r"best\.pth is damaged"):
        read_weights(file)


def test_nor_one_of_our_own_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    whole = {"model": {"weight": torch.rand(4000)}, "config": {"a": 1}, "metadata": {"b": 2}}
    save_checkpoint(file, {**whole, "step": 3})
    assert load_checkpoint(file)["step"] == 3
    flip_a_byte_inside(file)
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        load_checkpoint(file)


def test_nothing_is_asked_of_a_file_that_does_not_fit(tmp_path: Path) -> None:
    error = refused("lraspp_mobilenet_v3_large", official(tmp_path))
    assert isinstance(error, CheckpointError)
    assert "align_corners" not in str(error)
    assert f"it fits model={SMALL}" in str(error)
    assert "lraspp_mobilenet_v3_large" in str(error)
    assert isinstance(refused(SMALL, official(tmp_path)), ConfigError)


def test_a_new_head_is_all_of_it_or_what_is_missing(tmp_path: Path) -> None:
    weights = official(tmp_path, OCR, num_classes=7)
    given = {"align_corners": True}
    assert "model.reinit=[head]" in str(refused(OCR, weights, **given))
    partly = str(refused(OCR, weights, **given, reinit=["cls_head"]))
    (advised,) = (part for part in partly.split() if part.startswith("model.reinit=["))
    modules = advised.removeprefix("model.reinit=[").removesuffix("]").split(",")
    assert set(modules) == {"cls_head", "aux_head"}
    model = MODELS.build(
        {"name": OCR, "weights": weights, **given, "reinit": modules}, num_classes=5
    )
    assert model.load_report is not None
    assert any(key.startswith("conv3x3_ocr.") for key in model.load_report.loaded)


def test_a_checkpoint_of_another_model_names_it(tmp_path: Path) -> None:
    model = MODELS.build("lraspp_mobilenet_v3_large", num_classes=5)
    metadata = {"model": {"name": "lraspp_mobilenet_v3_large"}, "align_corners": False}
    file = tmp_path / "best.pt"
    whole = {"model": model.state_dict(), "config": {"a": 1}, "metadata": metadata, "step": 3}
    save_checkpoint(file, whole)
    error = str(refused(SMALL, str(file)))
    assert "it fits model=lraspp_mobilenet_v3_large" in error
    assert "same keys" not in error


def test_another_convention_is_in_the_line_that_is_logged(tmp_path: Path) -> None:
    model = MODELS.build(SMALL, num_classes=5)
    metadata = {"model": {"name": SMALL}, "align_corners": False}
    file = tmp_path / "best.pt"
    whole = {"model": model.state_dict(), "config": {"a": 1}, "metadata": metadata, "step": 3}
    save_checkpoint(file, whole)
    spec = {"name": SMALL, "weights": str(file), "align_corners": True}
    report = MODELS.build(spec, num_classes=5).load_report
    assert report is not None
    assert "trained with align_corners=false, used with true" in report.summary()


@pytest.fixture
def pooled() -> Segmentor:
    models = ModelRegistry()

    @models.register("pooled")
    def pooled(num_classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, num_classes, 1),
        )

    return models.build("pooled", num_classes=2)


def test_batch_norm_of_a_users_module_is_one_sentence(pooled: Segmentor) -> None:
    with pytest.raises(ConfigError, match=r"batch norm in pooled .*trainer\.batch_size"):
        pooled.train()(torch.rand(1, 3, 8, 8))
    assert pooled.train()(torch.rand(2, 3, 8, 8))["out"].shape == (2, 2, 1, 1)
    assert pooled.eval()(torch.rand(1, 3, 8, 8))["out"].shape == (1, 2, 1, 1)


def test_other_errors_of_a_users_module_stay_what_they_are() -> None:
    models = ModelRegistry()

    class Fails(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise ValueError("of its own")

    @models.register("fails")
    def fails(num_classes: int) -> nn.Module:
        return Fails()

    with pytest.raises(ValueError, match=r"^of its own$"):
        models.build("fails", num_classes=2)(torch.rand(1, 3, 8, 8))


def test_a_users_model_is_called_by_its_name(pooled: Segmentor) -> None:
    with pytest.raises(ConfigError, match="no ImageNet weights for pooled"):
        pooled.pretrained_backbone()
