"""What is exported by choice, what is refused, and what stands beside the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segtrain.errors import ConfigError, NumericError
from segtrain.export import FORMATS, Exported, Format, Graph, GraphOptions, export_model, format_of
from segtrain.export.graph import Normalization
from segtrain.export.onnx import OnnxFormat
from segtrain.export.verify import Agreement, probes
from segtrain.models import MODELS
from segtrain.schema.plugins import load_plugins
from tests.export.helpers import MEAN, STD, pictures, trained
from tests.helpers import TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(autouse=True, scope="module")
def _plugin() -> None:
    load_plugins([str(TINY)])


def export(
    folder: Path,
    *,
    ending: str = ".onnx",
    options: GraphOptions | None = None,
    align_corners: bool = False,
    num_classes: int = 5,
    multi_label: bool = False,
    **more: Any,
) -> Exported:
    output = folder / f"model{ending}"
    spec = {"name": "tiny", "align_corners": align_corners}
    given = trained(spec, num_classes, multi_label=multi_label, size=more.pop("size", None))
    return export_model(
        given,
        output,
        format_of(output),
        options or GraphOptions(),
        pictures((40, 52), (33, 61)),
        **more,
    )


def contract(exported: Exported) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(exported.contract.read_text())
    return content


@pytest.mark.parametrize(
    "ending",
    [".onnx", ".pt2", pytest.param(".xml", marks=pytest.mark.slow)],  # loads OpenVINO
)
def test_each_format_agrees(ending: str, tmp_path: Path) -> None:
    if ending == ".xml":
        pytest.importorskip("openvino")
    exported = export(tmp_path, ending=ending)
    assert exported.agreement.labels >= 0.9999
    assert exported.agreement.logits < 1e-4
    kept = {f"model{ending}.json", f"model{ending}"} | (
        {"model.bin"} if ending == ".xml" else set()
    )
    assert {path.name for path in tmp_path.iterdir()} == kept
    found = contract(exported)
    assert found["bytes"] == {
        name: (tmp_path / name).stat().st_size
        for name in sorted(kept)
        if not name.endswith(".json")
    }
    assert found["settings"] == format_of(exported.path).settings


def test_the_contract(tmp_path: Path) -> None:
    found = contract(export(tmp_path, opset=18))
    assert found["opset"] == 18
    assert found["input"] == {
        "name": "images",
        "dtype": "float32",
        "layout": "NCHW",
        "shape": ["batch", 3, "height", "width"],
        "channels": "RGB",
        "range": [0.0, 1.0],
        "mean": pytest.approx(MEAN),
        "std": pytest.approx(STD),
        "normalization": "in the model",
        "resize_to": None,
        "multiple_of": 1,
    }
    assert found["output"]["name"] == "ids"
    assert found["output"]["dtype"] == "uint8"
    assert len(found["classes"]) == len(found["palette"]) == 5
    assert (found["step"], found["checkpoint"]) == (3, "best.pt")
    assert found["agreement"]["labels"] == 1
    assert found["agreement"]["batches"] == [[1, 40, 52], [1, 33, 61], [2, 23, 37]]


@pytest.mark.parametrize("align_corners", [False, True])
def test_corners_are_aligned_as_in_the_model(align_corners: bool, tmp_path: Path) -> None:
    options = GraphOptions(argmax=False)
    exported = export(tmp_path, options=options, align_corners=align_corners)
    assert exported.agreement.logits < 1e-4
    run = FORMATS["onnx"].load(exported.path)
    assert run(np.zeros((3, 3, 20, 31), np.float32)).shape == (3, 5, 20, 31)


def test_the_parts_are_left_out_by_choice(tmp_path: Path) -> None:
    options = GraphOptions(normalize=False, upsample=False, argmax=False)
    exported = export(tmp_path, options=options)
    found = contract(exported)
    assert found["input"]["range"] is None
    assert found["input"]["normalization"] == "before the model"
    run = FORMATS["onnx"].load(exported.path)
    assert run(np.zeros((1, 3, 20, 30), np.float32)).shape == (1, 5, 10, 15)
    with pytest.raises(ConfigError, match="argmax=true needs upsample=true"):
        GraphOptions(upsample=False)


@pytest.mark.parametrize(("classes", "multi_label"), [(1, False), (3, True)])
def test_logits_are_compared_with_0(classes: int, multi_label: bool, tmp_path: Path) -> None:
    exported = export(tmp_path, num_classes=classes, multi_label=multi_label)
    assert exported.agreement.labels >= 0.9999
    found = FORMATS["onnx"].load(exported.path)(np.zeros((1, 3, 20, 30), np.float32))
    assert found.dtype == np.uint8
    assert found.shape == ((1, 3, 20, 30) if multi_label else (1, 20, 30))


def test_thresholds_of_the_checkpoint_are_part_of_the_graph() -> None:
    model = MODELS.build("hrnet_w18_small_v1", num_classes=1)
    plain, strict = (
        Graph(model, Normalization([0.5] * 3, [0.5] * 3), options, thresholds=thresholds)
        for options, thresholds in ((GraphOptions(argmax=False), None), (GraphOptions(), [0.6]))
    )
    images = torch.rand(1, 3, 33, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = plain(images)[:, 0]
        assert strict.limits.sigmoid().item() == pytest.approx(0.6)
        strict.limits.fill_(logits.median())
        assert torch.equal(strict(images), (logits > logits.median()).byte())


def test_a_fixed_size(tmp_path: Path) -> None:
    exported = export(tmp_path, dynamic=False, size=(24, 40))
    assert contract(exported)["input"]["shape"] == [1, 3, 24, 40]
    assert exported.agreement.shapes == [(1, 24, 40), (1, 24, 40)]


class _Broken(Graph):
    def forward(self, images: Tensor) -> Tensor:
        found = super().forward(images)
        return found.roll(1, dims=-1)


def test_a_broken_graph_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segtrain.export.export.Graph", _Broken)
    (tmp_path / "model.onnx").write_text("the last export")
    with pytest.raises(NumericError, match=r"label agreement \d.*largest logit difference \d"):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "the last export"


def test_logits_that_are_nan_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results(self: Format, path: Path, batches: list[Any]) -> Iterator[Any]:
        for batch in batches:
            found = self.load(path)(batch)
            yield np.full_like(found, np.nan) if found.dtype == np.float32 else found

    monkeypatch.setattr(OnnxFormat, "results", results)
    with pytest.raises(NumericError, match="difference inf"):
        export(tmp_path)
    assert not list(tmp_path.iterdir())


def test_endings_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"\.onnx \(ONNX\), \.pt2 .*, \.xml \(OpenVINO\)"):
        format_of(Path("model.engine"))
    monkeypatch.setattr(OnnxFormat, "packages", ("onnx", "no_such_package"))
    with pytest.raises(ConfigError, match=r"need no_such_package: pip install 'segtrain\[onnx\]'"):
        format_of(Path("model.onnx"))


def test_an_opset_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="opset=18 is for"):
        export(tmp_path, ending=".pt2", opset=18)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_the_limit_of_onnx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("segtrain.export.onnx._LARGEST", 100)
    with pytest.raises(ConfigError, match="a file of ONNX holds at most 2 GB"):
        export(tmp_path)


def test_agreement_is_rounded_down() -> None:
    found = Agreement(0.99989999, 0.5, 10, [])
    assert "99.9899 %" in str(found)
    assert not found.is_enough
    assert not Agreement(1.0, float("inf"), 10, []).is_enough


def test_one_image_makes_a_batch_of_two() -> None:
    given = trained({"name": "tiny"}).batch(pictures((40, 52))[0][1])
    shapes = [one.shape for one in probes([given], dynamic=True)]
    assert shapes == [(1, 40, 52), (2, 29, 37)]
    assert torch.equal(probes([given], dynamic=True)[1].pixels[1], given.pixels[0, :, -29:, -37:])
