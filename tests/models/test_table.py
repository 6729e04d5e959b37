"""The cost of a model, against independent counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segtrain.cli.main import run_command
from segtrain.errors import ConfigError
from segtrain.files import config_dir
from segtrain.models import BACKBONES, HEADS, MODELS, Segmentor
from segtrain.models.table import HEADINGS, ModelRow, count_macs, model_row, model_specs

FAST = ("hrnet_w18_small_v1", "lraspp_mobilenet_v3_large")


def macs_by_hooks(model: nn.Module, images: Tensor) -> int:
    """Multiply-adds of the convolutions, counted per weight."""
    counted: list[int] = []

    def count(layer: nn.Conv2d, _inputs: object, output: Tensor) -> None:
        weights = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        counted.append(output.numel() * weights)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(images)
    return sum(counted)


@pytest.mark.parametrize(
    "spec",
    [
        "hrnet_w18_small_v1",
        "lraspp_mobilenet_v3_large",
        {
            "name": "encoder_decoder",
            "backbone": "torchvision/mobilenet_v3_small",
            "head": {"name": "aspp", "channels": 16},
        },
    ],
)
def test_rows_agree_with_a_count_by_layer(spec: str | dict[str, object]) -> None:
    row = model_row("it", spec)
    with torch.device("meta"):
        model = MODELS.build(spec, num_classes=19)
        assert row.macs == macs_by_hooks(model, torch.zeros(1, 3, *row.size))
    state = {key: item.numel() for key, item in model.state_dict().items()}
    buffers = sum(item.numel() for _, item in model.named_buffers())
    assert row.parameters == sum(state.values()) - buffers
    assert (row.outputs, row.source) == (("out",), model.source)


def test_a_tiny_model_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)
    )
    images = torch.zeros(2, 3, 10, 12)
    assert count_macs(model, images) == 2 * (5 * 6) * (3 * 3 * 3 * 8 + 8 * 2)
    attention = nn.Linear(4, 4, bias=False)
    assert count_macs(attention, torch.zeros(7, 4)) == 7 * 4 * 4


def test_published_numbers_of_the_hrnet_paper() -> None:
    """1.5 million parameters and 31.1 GMACs, in units of 2**30 and at 1024 x 2048."""
    row = model_row("it", "hrnet_w18_small_v1")
    assert row.size == (1024, 2048)
    assert (f"{row.macs / 2**30:.1f}", f"{row.parameters / 1e6:.1f}") == ("31.1", "1.5")


def test_a_row_in_words() -> None:
    row = ModelRow("it", 1_541_000, 33_440_000_000, (1024, 2048), ("out", "aux"), "a paper")
    expected = ("it", "1.54", "33.4", "1024 x 2048", "out, aux", "a paper")
    assert row.cells() == expected
    assert len(HEADINGS) == len(expected)


def test_every_choice_has_a_row(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: smp\narch: fpn\n")
    specs = model_specs(config_dir() / "model", tmp_path)
    files = {file.stem for file in (config_dir() / "model").glob("*.yaml")}
    assert set(specs) == {*MODELS.names(), *files, "mine"}
    assert list(specs) == sorted(specs)
    assert specs["mine"] == {"name": "smp", "arch": "fpn"}
    for name, spec in specs.items():
        MODELS.check(spec, provided=("num_classes",))
        assert name in MODELS.names() or spec["name"] in MODELS.names()
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"broken.yaml is not valid YAML"):
        model_specs(tmp_path)


def test_a_constructor_may_read_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_factories", dict(MODELS._factories))

    @MODELS.register("looks")
    def looks(num_classes: int) -> nn.Module:
        return nn.Conv2d(3, num_classes, round(float(torch.ones(3).sum())))

    assert model_row("looks", "looks").parameters == 19 * (3 * 9 + 1)

    @MODELS.register("needs_numbers")
    class NeedsNumbers(Segmentor):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"out": images * float(images.max())}

    with pytest.raises(ConfigError, match="'needs_numbers' cannot run on the meta device"):
        model_row("needs_numbers", "needs_numbers")


def test_list_models_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = {name: name for name in FAST} | {"nowhere": {"name": "smp", "arch": "unett"}}
    monkeypatch.setattr("segtrain.cli.listing.model_specs", lambda *_folders: specs)
    assert run_command("list", ["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert re.split(r"  +", lines[0].strip()) == list(HEADINGS)
    by_name = {line.split()[0]: line for line in lines[1:]}
    for name in FAST:
        assert re.split(r"  +", by_name[name].strip()) == list(model_row(name, name).cells())
    assert "SMP has no architecture 'unett'; did you mean 'unet'?" in by_name["nowhere"]


def test_list_names_the_parts_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("list", []) == 0
    printed = capsys.readouterr().out
    assert f"model.head: {', '.join(HEADS.names())}\n" in printed
    families = "timm/<name>, torchvision/<name>"
    assert f"model.backbone: {', '.join(BACKBONES.names())}, {families}\n" in printed


def test_list_takes_one_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("list", ["modles"]) == 2
    assert (
        "list takes one group and plugins=[...], got 'modles'; did you mean 'models'?"
        in capsys.readouterr().err
    )


def test_a_users_model_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_factories", dict(MODELS._factories))
    plugin = tmp_path / "tiny_for_the_table.py"
    plugin.write_text(
        "import torch, segtrain\n"
        "@segtrain.register_model('tiny_for_the_table')\n"
        "def tiny(num_classes: int):\n"
        "    return torch.nn.Conv2d(3, num_classes, 1)\n"
    )
    seen: dict[str, object] = {}
    monkeypatch.setattr("segtrain.commands.list_models.list_models", seen.update)
    assert run_command("list", ["models", f"plugins=[{plugin}]"]) == 0
    assert seen["tiny_for_the_table"] == "tiny_for_the_table"
    assert model_row("it", "tiny_for_the_table").parameters == 19 * 4
