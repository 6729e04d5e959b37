"""Error messages for weights that do not fit, and their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrain.engine.checkpoint import save_checkpoint
from segtrain.errors import CheckpointError, ConfigError, SegtrainError
from segtrain.models import MODELS
from segtrain.models.weights import WeightsError
from tests.models.weights.helpers import (
    AFTER_HRNET,
    OCR,
    SMALL,
    State,
    build,
    imagenet,
    official,
    report_of,
    save,
    untouched,
)


def official_file(tmp_path: Path, name: str = SMALL, num_classes: int = 5) -> str:
    file = tmp_path / f"{name}.pth"
    state = MODELS.build(name, num_classes=num_classes).state_dict()
    torch.save({f"model.{key}": value for key, value in state.items()}, file)
    return str(file)


def refused(name: str, weights: str, **params: Any) -> SegtrainError:
    with pytest.raises(SegtrainError) as caught:
        MODELS.build({"name": name, "weights": weights, **params}, num_classes=5)
    return caught.value


@pytest.mark.fault("F53")
def test_no_key_is_required_for_a_file_that_does_not_fit(tmp_path: Path) -> None:
    error = refused("lraspp_mobilenet_v3_large", official_file(tmp_path))
    assert isinstance(error, CheckpointError)
    assert "align_corners" not in str(error)
    assert f"it fits model={SMALL}" in str(error)
    assert "lraspp_mobilenet_v3_large" in str(error)
    assert isinstance(refused(SMALL, official_file(tmp_path)), ConfigError)


@pytest.mark.fault("F53")
def test_the_next_step_names_the_heads_to_reinitialise(tmp_path: Path) -> None:
    weights = official_file(tmp_path, OCR, num_classes=7)
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


@pytest.mark.fault("F53")
def test_a_checkpoint_of_another_model_names_it(tmp_path: Path) -> None:
    model = MODELS.build("lraspp_mobilenet_v3_large", num_classes=5)
    metadata = {"model": {"name": "lraspp_mobilenet_v3_large"}, "align_corners": False}
    file = tmp_path / "best.pt"
    whole = {"model": model.state_dict(), "config": {"a": 1}, "metadata": metadata, "step": 3}
    save_checkpoint(file, whole)
    error = str(refused(SMALL, str(file)))
    assert "it fits model=lraspp_mobilenet_v3_large" in error
    assert "same keys" not in error


def test_another_align_corners_is_in_the_summary(tmp_path: Path) -> None:
    model = MODELS.build(SMALL, num_classes=5)
    metadata = {"model": {"name": SMALL}, "align_corners": False}
    file = tmp_path / "best.pt"
    whole = {"model": model.state_dict(), "config": {"a": 1}, "metadata": metadata, "step": 3}
    save_checkpoint(file, whole)
    spec = {"name": SMALL, "weights": str(file), "align_corners": True}
    report = MODELS.build(spec, num_classes=5).load_report
    assert report is not None
    assert "trained with align_corners=false, used with true" in report.summary()


@pytest.mark.fault("F53")
@pytest.mark.parametrize(
    ("file_of", "model"),
    [("hrnet_w18", "hrnet_w18_small_v2"), ("hrnet_w18_small_v2", SMALL)],
)
def test_a_trunk_of_another_size_is_refused_with_the_name_that_fits(
    file_of: str, model: str, tmp_path: Path
) -> None:
    """w18 contains all weights of w18_small_v2, in the same shapes: none would be missing."""
    state = imagenet(MODELS.build(file_of, num_classes=2).state_dict())
    error = untouched(
        lambda: MODELS.build(model, num_classes=2), save(state, tmp_path / "hrnet.pth")
    )
    assert f"use model={file_of}" in str(error)
    assert error.report.refused


@pytest.mark.fault("F53")
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


@pytest.mark.fault("F53")
def test_a_file_without_ocr_is_refused_by_ocr_and_the_other_way_round(
    states: Callable[[str], State], tmp_path: Path
) -> None:
    plain = save(official(states(SMALL)), tmp_path / "plain.pth")
    ocr = save(official(states(OCR)), tmp_path / "ocr.pth")
    with pytest.raises(
        WeightsError,
        match=rf"use model={SMALL}, or add model\.reinit=\[conv3x3_ocr,.* to start OCR",
    ):
        build(plain, OCR, align_corners=True)
    with pytest.raises(
        WeightsError, match=rf"use model={OCR}, or add model\.reinit=\[head\] to load only"
    ):
        build(ocr, SMALL, align_corners=True)
    trunk = report_of(build(ocr, SMALL, align_corners=True, reinit=["head"]))
    assert not any(key.startswith("last_layer.") for key in trunk.loaded)
    assert {key.split(".")[0] for key in trunk.left_out} == {"aux_head", *AFTER_HRNET}


@pytest.mark.fault("F53")
def test_a_head_that_is_not_in_the_file(states: Callable[[str], State], tmp_path: Path) -> None:
    file = save(official(states(SMALL)), tmp_path / "best.pth")
    with pytest.raises(
        WeightsError, match=r"9 are not in the file \(aux_head.*reinit=\[aux_head\]"
    ):
        build(file, align_corners=False, aux_head=True)
    report = report_of(build(file, align_corners=False, aux_head=True, reinit=["aux_head"]))
    assert "last_layer.0.weight" in report.loaded


@pytest.mark.fault("F53")
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


@pytest.mark.fault("F53")
@pytest.mark.parametrize("name", [SMALL, "encoder_decoder"])
def test_loading_nothing_is_an_error(
    name: str, states: Callable[[str], State], tmp_path: Path
) -> None:
    spec: dict[str, Any] = {"name": name}
    if name == "encoder_decoder":
        spec |= {"backbone": SMALL, "head": "hrnetv2"}
    other = save({"a.weight": torch.zeros(2), "b": torch.zeros(1)}, tmp_path / "other.pth")
    error = untouched(lambda: MODELS.build(spec, num_classes=5), other)
    assert "none of its 2 weights has the name of a weight of" in str(error)
    file = save(states(SMALL), tmp_path / "best.pth")
    error = untouched(lambda: MODELS.build(spec, num_classes=5), file, reinit=["head", "backbone"])
    assert "reinit selects the whole model; nothing was loaded" in str(error)
