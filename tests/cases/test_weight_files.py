"""Files of weights as other code writes them, and damaged ones, tried as a user does."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import segtrain
from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.errors import CheckpointError, ConfigError
from segtrain.models import MODELS
from segtrain.models.weights.files import read_weights
from tests.helpers import THREE_STEPS

AVERAGED = [*THREE_STEPS, "trainer.ema_decay=0.9"]

# ---------------------------------------------------------------------- damaged files


@pytest.fixture
def without_checksums() -> Any:
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


@pytest.mark.usefixtures("without_checksums")
def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    file, weight = tmp_path / "best.pth", torch.rand(4000)
    torch.save({"weight": weight}, file)
    with zipfile.ZipFile(file) as archive:
        assert not any(entry.CRC for entry in archive.infolist())
    assert torch.equal(read_weights(file)["weight"], weight)
    content = {"format": 1, "model": {"w": weight}, "config": {"a": 1}, "metadata": {"b": 2}}
    torch.save({**content, "step": 3}, file)
    assert load_checkpoint(file)["step"] == 3


@pytest.fixture
def run(tmp_path: Path) -> Path:
    assert run_command("train", [*AVERAGED, "run_dir=run"]) == 0
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "a.png")
    return tmp_path / "run"


def _spoil(file: Path, entry: str, value: float) -> None:
    state = torch.load(file, weights_only=True)
    state[entry]["head.weight"][1, 0, 0, 0] = value
    torch.save(state, file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("predict", ["checkpoint=run", "input=in", "output=out", "device=cpu"]),
        ("evaluate", ["checkpoint=run", "device=cpu"]),
        ("train", [*THREE_STEPS, "run_dir=new", "model.weights=run"]),
        ("train", [*AVERAGED, "run_dir=run", "resume=auto", "trainer.max_steps=6"]),
    ],
)
def test_weights_that_are_not_finite_are_refused(
    run: Path, command: str, words: list[str], value: float, last_line: Callable[[], str]
) -> None:
    file = run / "checkpoints" / ("last.pt" if "resume=auto" in words else "best.pt")
    _spoil(file, "ema", value)
    assert run_command(command, words) == 4
    line = last_line()
    assert file.name in line or "run: " in line
    assert "head.weight contains NaN or infinity" in line
    assert "use an earlier checkpoint" in line


def test_resuming_checks_the_weights_and_their_average(
    run: Path, last_line: Callable[[], str]
) -> None:
    _spoil(run / "checkpoints" / "last.pt", "model", float("nan"))
    words = [*AVERAGED, "run_dir=run", "resume=auto", "trainer.max_steps=6"]
    assert run_command("train", words) == 4
    assert "last.pt: head.weight contains NaN" in last_line()


def test_a_predictor_refuses_weights_that_are_not_finite(run: Path) -> None:
    _spoil(run / "checkpoints" / "best.pt", "ema", float("nan"))
    with pytest.raises(CheckpointError, match=r"best\.pt: head\.weight contains NaN or infinity"):
        segtrain.Predictor.from_checkpoint(run, device="cpu")


def test_a_mask_of_the_model_may_be_infinite(tmp_path: Path) -> None:
    class Masked(segtrain.Segmentor):
        def __init__(self, **common: Any) -> None:
            super().__init__(**common)
            self.conv = torch.nn.Conv2d(3, self.num_classes, 1)
            self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    file = tmp_path / "masked.pth"
    torch.save(Masked(num_classes=2).state_dict(), file)
    report = segtrain.load_weights(Masked(num_classes=2), file, align_corners=False)
    assert "mask" in report.loaded


# ---------------------------------------------------------------------- HRNet of timm


def _timm_hrnet(file: Path) -> list[Tensor]:
    """Write the file of an HRNet classifier of timm, and return the features of two images."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("hrnet_w18_small", num_classes=7).eval()
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    torch.save(net.state_dict(), file)
    with torch.no_grad():
        stem = net.act2(net.bn2(net.conv2(net.act1(net.bn1(net.conv1(_images()))))))
        return list(net.stages(stem))


def _images() -> Tensor:
    return torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))


HRNETS = {
    "model": ("hrnet_w18_small_v1", lambda fusion: {"fusion": fusion}),
    "backbone": (
        "encoder_decoder",
        lambda fusion: {"backbone": {"name": "hrnet_w18_small_v1", "fusion": fusion}},
    ),
}


@pytest.mark.parametrize("kind", list(HRNETS))
@pytest.mark.parametrize("fusion", ["nearest", "bilinear"])
def test_an_hrnet_of_timm_gives_its_features_with_nearest_fusion(
    kind: str, fusion: str, tmp_path: Path
) -> None:
    file = tmp_path / "hrnet.pth"
    expected = _timm_hrnet(file)
    name, params = HRNETS[kind]
    model = MODELS.build({"name": name, "weights": str(file), **params(fusion)}, num_classes=3)
    trunk: Any = model.backbone if kind == "backbone" else model
    with torch.no_grad():
        found = trunk.eval().branches(_images())
    difference = max(
        float((ours - theirs).norm() / theirs.norm())
        for ours, theirs in zip(found, expected, strict=True)
    )
    report = model.load_report
    assert report is not None
    assert "HRNet for ImageNet" in report.kind
    if fusion == "nearest":
        assert difference < 1e-4
        assert not report.notes
    else:
        assert difference > 0.05
        assert "trained with fusion=nearest, used with bilinear" in report.notes[0]
        assert "fusion=nearest gives the features of the file" in report.notes[0]


def test_fusion_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    words = ["model=hrnet_w18_small_v1", "dataset.num_classes=5", "model.align_corners=false"]
    torch.save(MODELS.build("hrnet_w18_small_v1", num_classes=5).state_dict(), "all.pth")
    given = [*words, "weights=all.pth", "model.fusion=nearest", "output=own.pt"]
    assert run_command("import", given) == 0
    model = segtrain.Predictor.from_checkpoint("own.pt", device="cpu").model
    assert getattr(model, "fusion") == "nearest"  # noqa: B009
    spec = {"name": "hrnet_w18_small_v1", "weights": "own.pt"}
    report = MODELS.build(spec, num_classes=5).load_report
    assert report is not None
    assert report.notes == (
        "trained with fusion=nearest, used with bilinear; fusion=nearest gives the features of the"
        " file",
    )


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.fusion.*bilinear.*nearest"):
        MODELS.build({"name": "hrnet_w18_small_v1", "fusion": "cubic"}, num_classes=2)
