"""Weights in whole runs: importing, fine-tuning, resuming, and the error messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

import segtrain
from segtrain.assembly.check import check_config
from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.errors import ConfigError
from segtrain.models import MODELS
from tests.helpers import TINY

SMALL = "hrnet_w18_small_v1"
RUN = [
    *("dataset.size=[48,48]", "dataset.num_train=8", "dataset.num_val=2", "trainer.batch_size=4"),
    *("trainer.max_steps=2", "trainer.device=cpu", "trainer.log_every=1", "loader.num_workers=0"),
]
TINY_RUN = [f"plugins=[{TINY}]", "model=tiny", *RUN]
SHAPES = 6  # classes of the dataset `shapes`


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def last_line(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def read() -> str:
        return capsys.readouterr().err.strip().splitlines()[-1]

    return read


def official_file(name: str = "best.pth", classes: int = SHAPES, **more: Any) -> dict[str, Tensor]:
    """Write a file as the official code does; return the weights without its prefix."""
    torch.manual_seed(0)
    state = MODELS.build(SMALL, num_classes=classes).state_dict()
    torch.save({**{f"model.{key}": value for key, value in state.items()}, **more}, name)
    return state


def metadata(path: str) -> dict[str, Any]:
    found: dict[str, Any] = load_checkpoint(Path(path))["metadata"]
    return found


# ---------------------------------------------------------------------- import


def test_an_official_file_becomes_a_checkpoint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    weights = {"loss.criterion.weight": torch.tensor([0.5, 1.0, 1.5, 0.25, 1.0, 2.0])}
    state = official_file(**weights)
    words = ["weights=best.pth", f"model={SMALL}", "model.align_corners=true", "dataset=shapes"]
    norm = ["augmentation.mean=[0.4,0.5,0.6]", "evaluation.size=[64,64]"]
    assert run_command("import", [*words, *norm, "output=out/imported.pt"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "loss.class_weights=[0.5,1.0,1.5,0.25,1.0,2.0]\n"
    assert "HRNetV2 for segmentation (hrnet_w18_small_v1)" in printed.err
    assert "435" in printed.err
    found = metadata("out/imported.pt")
    assert found["model"]["align_corners"] is True
    assert not {"weights", "reinit", "abn"} & found["model"].keys()
    assert found["mean"] == [0.4, 0.5, 0.6]
    assert found["class_names"][0] == "background"

    Path("best.pth").unlink()  # from here on, the checkpoint alone is enough
    given = ["dataset.num_val=2", "dataset.size=[48,48]", "device=cpu", "output=scores.json"]
    assert run_command("evaluate", ["checkpoint=out/imported.pt", *given]) == 0
    assert json.loads(Path("scores.json").read_text())["step"] == 0
    Path("images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("images/a.png")
    words = ["checkpoint=out/imported.pt", "input=images", "output=masks", "device=cpu"]
    assert run_command("predict", words) == 0
    expected = MODELS.build({"name": SMALL, "align_corners": True}, num_classes=SHAPES)
    expected.load_state_dict(state)
    predictor = segtrain.Predictor(
        expected,
        segtrain.LabelContract(SHAPES),
        mean=(0.4, 0.5, 0.6),
        std=(0.229, 0.224, 0.225),
        size=(64, 64),
        device="cpu",
    )
    ids = np.asarray(Image.open("masks/ids/a.png"))
    assert np.array_equal(ids, predictor(pixels))


def test_without_a_dataset_the_file_determines_the_number_of_classes() -> None:
    official_file(classes=4)
    words = ["weights=best.pth", f"model={SMALL}", "model.align_corners=false", "output=a.pt"]
    assert run_command("import", words) == 0
    assert metadata("a.pt")["num_classes"] == 4
    names = "dataset.class_names=[road,car,sky,person]"
    assert run_command("import", [*words, names]) == 0
    assert metadata("a.pt")["class_names"] == ["road", "car", "sky", "person"]
    model = segtrain.build_model(SMALL, num_classes=4, weights="a.pt")
    assert model.load_report is not None
    assert model.load_report.class_names == ("road", "car", "sky", "person")


def test_a_checkpoint_of_ours_is_imported_with_its_class_names() -> None:
    assert run_command("train", [*TINY_RUN, "run_dir=run"]) == 0
    words = ["weights=run", "model=tiny", f"plugins=[{TINY}]", "output=a.pt"]
    assert run_command("import", words) == 0
    assert metadata("a.pt")["class_names"] == metadata("run/checkpoints/best.pt")["class_names"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["model.align_corners=false"], 2, f"the file fits model={SMALL}"),
        ([f"model={SMALL}"], 2, "error: model.align_corners is not set"),
        (["model=hrnet_w18", "model.align_corners=false"], 4, f"use model={SMALL}"),
        ([f"model={SMALL}", "model.align_corners=false", "model.reinit=[head]"], 2, "untrained"),
        ([f"model={SMALL}", "model.weights=a.pth"], 2, "model.weights is not set here"),
        (
            [f"model={SMALL}", "model.align_corners=false", "dataset=shapes", "output=a.pth"],
            2,
            ".pt",
        ),
        ([f"model={SMALL}", "weights=none.pth"], 4, "weights=none.pth: no such file"),
        ([f"model={SMALL}", "weights=imagenet"], 2, "names a backbone, not a whole model"),
        ([f"model={SMALL}", "wieghts=a.pth"], 2, "did you mean"),
        (
            [f"model={SMALL}", "model.align_corners=false", "model.in_channels=4"],
            2,
            "model.in_channels=4, but the images have dataset.channels=3",
        ),
        (
            [f"model={SMALL}", "model.align_corners=false", "dataset.num_classes=9"],
            4,
            "the file has 6 classes, the model 9",
        ),
    ],
)
def test_an_import_that_fails_has_a_clear_message(
    words: list[str], code: int, message: str, last_line: Callable[[], str], tmp_path: Path
) -> None:
    official_file()
    assert run_command("import", ["weights=best.pth", "output=imported.pt", *words]) == code
    line = last_line()
    assert line.startswith("error: ")
    assert message in line
    assert not Path("imported.pt").exists()


def test_a_backbone_cannot_be_imported(last_line: Callable[[], str]) -> None:
    state = {k: v for k, v in official_file().items() if not k.startswith("last_layer")}
    torch.save(state, "trunk.pth")
    words = [f"model={SMALL}", "dataset=shapes", "output=a.pt"]
    assert run_command("import", ["weights=trunk.pth", *words]) == 4
    assert "a backbone without a head" in last_line()
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), "resnet18.pth")
    words = ["model=encoder_decoder", "model.backbone=torchvision/resnet18", "dataset=shapes"]
    assert run_command("import", ["weights=resnet18.pth", *words, "output=a.pt"]) == 4
    assert "has no head" in last_line()
    assert not Path("a.pt").exists()


# ---------------------------------------------------------------------- training


def test_a_run_starts_from_another_run_and_resumes_without_its_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_command("train", [*TINY_RUN, "model.align_corners=true", "run_dir=first"]) == 0
    words = [*TINY_RUN, "model.weights=first", "model.align_corners=true", "run_dir=second"]
    capsys.readouterr()
    assert run_command("train", [*words, "trainer.stop_after=1"]) == 0
    assert "checkpoint of segtrain (tiny, step 2" in capsys.readouterr().err
    assert "loaded" in Path("second/train.log").read_text()
    stored = yaml.safe_load(Path("second/config.yaml").read_text())["model"]
    assert stored["weights"] == "first"
    found = metadata("second/checkpoints/last.pt")
    assert found["model"]["align_corners"] is True
    assert not {"weights", "reinit", "abn"} & found["model"].keys()
    for file in Path("first").rglob("*.pt"):
        file.unlink()
    assert run_command("train", [*words, "resume=auto"]) == 0
    assert json.loads(Path("second/results.json").read_text())["step"] == 2
    assert run_command("evaluate", ["checkpoint=second", "device=cpu", f"plugins=[{TINY}]"]) == 0


def test_training_starts_from_the_weights_of_the_file() -> None:
    state = official_file()
    words = [*RUN, f"model={SMALL}", "model.weights=best.pth", "model.align_corners=true"]
    frozen = ["optimizer.lr=1e-30", "run_dir=run", "trainer.max_steps=1"]
    assert run_command("train", [*words, *frozen]) == 0
    trained = load_checkpoint(Path("run/checkpoints/last.pt"))["model"]
    for key in ("conv1.weight", "stage4.0.branches.3.1.conv2.weight", "last_layer.3.weight"):
        assert torch.equal(trained[key], state[key]), key


def test_align_corners_of_a_checkpoint_survives_resuming(tmp_path: Path) -> None:
    """The key was not typed: it comes from the first file, which is deleted."""
    official_file()
    words = ["weights=best.pth", f"model={SMALL}", "model.align_corners=true", "dataset=shapes"]
    assert run_command("import", [*words, "output=start.pt"]) == 0
    words = [*RUN, f"model={SMALL}", "model.weights=start.pt", "run_dir=run"]
    assert run_command("train", [*words, "trainer.stop_after=1"]) == 0
    assert metadata("run/checkpoints/last.pt")["align_corners"] is True
    Path("start.pt").unlink()
    assert run_command("train", [*words, "resume=auto"]) == 0
    for name in ("last", "best"):
        found = metadata(f"run/checkpoints/{name}.pt")
        assert found["align_corners"] is found["model"]["align_corners"] is True


def test_other_class_names_are_warned_about(messages: list[str]) -> None:
    official_file()
    words = ["weights=best.pth", f"model={SMALL}", "model.align_corners=true", "output=a.pt"]
    names = "dataset.class_names=[a,b,c,d,e,f]"
    assert run_command("import", [*words, names]) == 0
    words = [*RUN, f"model={SMALL}", "model.weights=a.pt", "trainer.max_steps=1"]
    assert run_command("train", words) == 0
    assert "was trained for the classes a, b, c, d, e, f, the dataset has b" in "".join(messages)
    messages.clear()
    assert run_command("train", [*words, "model.reinit=[head]"]) == 0
    assert "a.pt: checkpoint of segtrain" in "".join(messages)
    assert "was trained for the classes" not in "".join(messages)


@pytest.mark.fault("F53")
def test_weights_that_do_not_fit_are_shown_in_a_table_and_in_the_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    official_file(classes=19)
    words = [*RUN, f"model={SMALL}", "model.weights=best.pth", "model.align_corners=true"]
    assert run_command("train", [*words, "run_dir=run"]) == 4
    printed = capsys.readouterr().err
    assert "refused: of another shape" in printed
    line = printed.strip().splitlines()[-1]
    assert "the file has 19 classes, the model 6: add model.reinit=[head]" in line
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.reinit=[head]"], "model.reinit applies to loading weights"),
        (["model.weights=hf://name"], "not of the form hf://owner/name"),
        (["model.weights=a.pth", "model.reinit=head"], "model.reinit must be a list of (a text)"),
        (["model.weights=a.pth", "model.abn=1"], "model.abn must be true or false or null"),
        (["model.weight=a.pth"], "did you mean 'weights'?"),
    ],
)
def test_a_wrong_key_of_weights_is_found_before_building(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(compose_config([f"model={SMALL}", *words]))
    assert message in str(caught.value)


def test_a_hub_address_needs_no_quotes() -> None:
    words = [f"model={SMALL}", "model.weights=hf://owner/name-1.0/best.pth@v1"]
    assert compose_config(words)["model"]["weights"] == "hf://owner/name-1.0/best.pth@v1"


@pytest.mark.fault("F53")
def test_another_number_of_channels_is_refused_before_training(
    last_line: Callable[[], str],
) -> None:
    assert run_command("train", [*RUN, f"model={SMALL}", "model.in_channels=4", "run_dir=r"]) == 2
    assert "model.in_channels=4, but the images have dataset.channels=3" in last_line()
    assert not Path("r").exists()
