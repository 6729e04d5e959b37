"""Real models agree with their files, at sizes other than that of the trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from segtrain.errors import ConfigError
from segtrain.export import FORMATS, GraphOptions, export_model, format_of
from tests.export.helpers import MODELS, pictures, trained

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
LOGITS = GraphOptions(argmax=False)
SIZES = ((90, 118), (128, 97), (75, 160))


def check(name: str, ending: str, folder: Path, options: GraphOptions = LOGITS) -> None:
    output = folder / f"model{ending}"
    given = trained(MODELS[name])
    exported = export_model(given, output, format_of(output), options, pictures(*SIZES))
    assert exported.agreement.labels >= 0.9999
    assert exported.agreement.logits < 1e-3
    assert len({shape[0] for shape in exported.agreement.shapes}) == 2
    assert len({shape[1:] for shape in exported.agreement.shapes}) == 4


def test_a_model_as_onnx(tmp_path: Path) -> None:
    check("torchvision", ".onnx", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hrnet", "ocr", "timm", "convnext", "unet"])
def test_other_models_as_onnx(name: str, tmp_path: Path) -> None:
    check(name, ".onnx", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hrnet", "ocr", "timm", "convnext", "torchvision", "unet"])
def test_models_as_programs(name: str, tmp_path: Path) -> None:
    check(name, ".pt2", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hrnet", "ocr", "timm", "torchvision", "unet"])
def test_models_as_openvino(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    check(name, ".xml", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ending"),
    [("vit", ".onnx"), ("vit", ".pt2"), ("vit_patch14", ".onnx"), ("vit_rope", ".onnx")],
)
def test_vision_transformers_with_a_pyramid(name: str, ending: str, tmp_path: Path) -> None:
    """Position embeddings are resized in the file, also to more patches than it was built for."""
    given = trained(MODELS[name])
    for key, value in given.predictor.model.named_parameters():
        if key.endswith("pos_embed"):
            value.data.mul_(20)
    output = tmp_path / f"model{ending}"
    images = pictures((90, 118), (128, 97), (240, 210))
    exported = export_model(given, output, format_of(output), LOGITS, images)
    assert exported.agreement.labels >= 0.9999
    assert exported.agreement.logits < 1e-3


@pytest.mark.slow
def test_a_pooling_that_onnx_knows_for_one_size_only(tmp_path: Path) -> None:
    """Adaptive pooling to a grid is refused with the next step, and works with a fixed size."""
    output = tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match=r"dynamic=false size="):
        export_model(trained(MODELS["upernet"]), output, FORMATS["onnx"], LOGITS, pictures(*SIZES))
    assert not list(tmp_path.iterdir())
    fixed = trained(MODELS["upernet"], size=(90, 118))
    exported = export_model(fixed, output, FORMATS["onnx"], LOGITS, pictures(*SIZES), dynamic=False)
    assert exported.agreement.is_enough
