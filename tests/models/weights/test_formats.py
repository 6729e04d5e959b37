"""Recognition of weight files: wrappers, the official layouts, checkpoints of segtrain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segtrain
from segtrain.engine.checkpoint import save_checkpoint
from segtrain.errors import ConfigError
from segtrain.models import Segmentor
from segtrain.models.weights import WeightsError
from tests.models.weights.helpers import (
    OCR,
    SMALL,
    State,
    assert_equal,
    build,
    data_parallel,
    official,
    report_of,
    save,
    with_class_weights,
)


def _final_state_without_class_weights(state: State) -> Any:
    return official(state)


def _checkpoint(state: State) -> Any:
    return {
        "epoch": 7,
        "best_mIoU": 0.7,
        "state_dict": with_class_weights(state),
        "optimizer": {"state": {}},
    }


def _compiled(state: State) -> Any:
    return {"model": {f"_orig_mod.{key}": value for key, value in state.items()}}


def _lightning(state: State) -> Any:
    return {
        "state_dict": {f"net.{key}": value for key, value in state.items()},
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
    }


LAYOUTS = [
    with_class_weights,
    _final_state_without_class_weights,
    _checkpoint,
    data_parallel,
    _compiled,
    _lightning,
    dict,
]


@pytest.mark.parametrize(
    ("name", "layout"),
    [*((SMALL, layout) for layout in LAYOUTS), (OCR, with_class_weights), (OCR, _checkpoint)],
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
    file = save(with_class_weights(states(SMALL)), tmp_path / "best.pth")
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


def test_a_checkpoint_of_segtrain_contains_its_conventions(
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
    with pytest.raises(ConfigError, match="has plain batch norms"):
        build(run, abn=True)
    with pytest.raises(WeightsError, match=rf"use model={SMALL}"):
        build(run, "hrnet_w18")
    _own_checkpoint(run / "checkpoints" / "best.pt", states(SMALL), None, align_corners=True)
    assert_equal(build(run), states(SMALL))
