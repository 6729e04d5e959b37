"""What a user types, and what comes back: a run, or one sentence and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segtrain.assembly.check import SECTIONS, check_config
from segtrain.cli import main as cli
from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.commands import train as commands
from segtrain.data import DATASETS
from segtrain.errors import SegtrainError
from segtrain.files import config_dir
from segtrain.losses import LOSSES
from segtrain.models import MODELS
from tests.helpers import ROOT, TINY

SMALL = [
    *(f"plugins=[{TINY}]", "model=tiny", "dataset.size=[48,48]", "dataset.num_train=16"),
    *("dataset.num_val=4", "trainer.batch_size=4", "trainer.max_steps=3", "trainer.device=cpu"),
    *("trainer.log_every=1", "loader.num_workers=0"),
]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def last_line(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def read() -> str:
        return capsys.readouterr().err.strip().splitlines()[-1]

    return read


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["+loss.gama=3", "loss=focal"], 2, "no parameter 'gama'; did you mean 'gamma'?"),
        (["loss.gama=3", "loss=focal"], 2, "no parameter 'gama'; did you mean 'gamma'?"),
        (["loss=[cross_entropy,focal]"], 2, "-m loss=cross_entropy,focal"),
        (["lr=abc"], 2, "unknown key lr; did you mean optimizer.lr?"),
        (["optimizer.lr=abc"], 2, "optimizer.lr must be a number, got 'abc'"),
        (["optimizer.lr=-1"], 2, "optimizer.lr"),
        (["loss.name=focal"], 2, "choose a loss with loss=focal"),
        (["loss.name=focal", "loss.label_smoothing=0.1"], 2, "choose a loss with loss=focal"),
        (["loss=focall"], 2, "unknown loss 'focall'; did you mean 'focal'?"),
        (["model=hrnet_w84"], 2, "did you mean 'hrnet_w48'?"),
        (["mining=ohm"], 2, "did you mean 'ohem'?"),
        (["optimizer=adam"], 2, "did you mean 'adamw'?"),
        (["optimizer.name=adam"], 2, "did you mean 'adamw'?"),
        (["experiment=camvid"], 2, "did you mean 'camvid_cpu'?"),
        (["trainer.max_step=3"], 2, "did you mean 'max_steps'?"),
        (["trainer.max_steps=0"], 2, "trainer.max_steps must be above 0"),
        (["trainer.precision=fp8"], 2, "'fp32' or 'bf16' or 'fp16'"),
        (["loss=dice", "mining=ohem"], 2, "is not a pixel loss"),
        (["loss.mining=ohem", "mining=ohem"], 2, "set twice"),
        (["loss=focal", "loss.gamma=-1"], 2, "error: loss.gamma must be finite"),
        (["loss=sum", "loss.terms=[dice]"], 2, "error: loss.terms is a mapping of keys, so no"),
        (["loss=sum", "loss.terms=3"], 2, "error: loss.terms must be a mapping by name, got 3"),
        (["loss=ce_dice", "loss.terms.cross_entropy.mining=ohm"], 2, "error: loss.terms.cross_ent"),
        (["loss.class_weights=autoo"], 2, "error: loss.class_weights: autoo cannot be read"),
        (["criterion.output_losses={aux: dise}"], 2, "error: criterion.output_losses.aux: unkno"),
        (["criterion.output_losses={out: dice}"], 2, "error: criterion.output_losses.out: the ma"),
        (
            ["model=hrnet_w18_small_v1", "model.task_heads={edge: 1}"],
            2,
            "output 'edge' has 1 channel, but learns the class ids, of which there are 6; name its",
        ),
        (["loss.class_weights=[1,2]"], 2, "class_weights has 2 values, but num_classes is 6"),
        (["model.num_classes=3"], 2, "model.num_classes"),
        (["dataset.ignore_label=2"], 2, "ignore_label"),
        (["criterion.output_weights={out:1,aux:0.4}", "model=hrnet_w18_small_v1"], 2, "aux"),
        (["criterion.strip_rows=0"], 2, "strip_rows"),
        (["~loss"], 2, "choose one of"),
        (["loss="], 2, "unknown loss ''"),
        (["loss={gamma:3}"], 2, "loss takes one name"),
        (["nonsense"], 2, "key=value"),
        (["plugins=my_losses.py"], 2, "plugins must be a list"),
        (["plugins=[absent.py]"], 2, "absent.py"),
        (["resume=auto"], 2, "run_dir"),
        (["trainer.device=gpu"], 2, "device 'gpu'"),
        (["trainer.batch_size=2000"], 3, "2000"),
        (["dataset=camvid", "dataset.root=nowhere"], 3, "nowhere"),
        (["dataset=folder"], 2, "num_classes"),
        (["resume=absent.pt"], 4, "absent.pt"),
        (["scheduler.warmup_steps=99999", "scheduler=poly"], 2, "warmup_steps"),
    ],
)
def test_a_mistake_gets_one_sentence(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_command("train", words) == code
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].startswith("error: ")
    assert sentence in error.strip().splitlines()[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "outputs").exists()  # nothing half-written


def test_the_traceback_is_there_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGTRAIN_DEBUG", "1")
    assert run_command("train", ["loss=focall"]) == 2
    assert "Traceback" in capsys.readouterr().err


GENERIC = ("folder", "list", "coco", "webdataset")  # they know nothing of the classes


def every_config() -> list[tuple[str, str]]:
    groups = [*SECTIONS, *cli.PLAIN_GROUPS]
    return [
        (group, path.stem) for group in groups for path in (config_dir() / group).glob("*.yaml")
    ]


@pytest.mark.parametrize(("group", "name"), sorted(every_config()))
def test_every_config_file_is_valid(group: str, name: str) -> None:
    extra = ["dataset.num_classes=3"] if name in GENERIC else []
    config = check_config(compose_config([f"{group}={name}", *extra]))
    if group in SECTIONS:
        found = getattr(config, group)["name"]
        # A preset chooses a part under a name of its own, which no other part has.
        assert found == name or name not in SECTIONS[group][0].names()


@pytest.mark.parametrize("section", SECTIONS)
def test_every_registered_name_can_be_chosen(section: str) -> None:
    for name in SECTIONS[section][0].names():
        extra = ["dataset.num_classes=3"] if name in GENERIC else []
        assert (
            getattr(check_config(compose_config([f"{section}={name}", *extra])), section)["name"]
            == name
        )


def test_values_arrive_with_their_types() -> None:
    config = check_config(
        compose_config(
            [
                *("loss=focal", "loss.gamma=3", "optimizer.name=SGD", "+optimizer.lr=1e-2"),
                *("dataset=folder", "dataset.num_classes=2", "dataset.label_map={0:0,255:1}"),
                *("dataset.class_names=[road,sky]", "criterion.output_weights={out:1,aux:0.4}"),
                *("augmentation.crop_size=[64,96]", "dataset.train.images='img/*.png'"),
            ]
        )
    )
    assert config.loss["gamma"] == 3.0
    assert (config.optimizer["name"], config.optimizer["lr"]) == ("sgd", 0.01)
    assert config.dataset["label_map"] == {0: 0, 255: 1}
    assert config.dataset["class_names"] == ["road", "sky"]
    assert config.dataset["train"] == {"images": "img/*.png", "masks": "masks/train"}
    assert config.criterion.output_weights == {"out": 1.0, "aux": 0.4}
    assert config.augmentation.crop_size == (64, 96)


def test_cfg_prints_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("train", ["loss=focal", "--cfg"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    expected = {"name": "focal", "gamma": 2.0, "alpha": 1.0}
    assert shown["loss"] == {**expected, "class_weights": None, "mining": None}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["loss=focal", "loss.gamma=-1"], "error: loss.gamma must be"),
        (["mining=ohem", "mining.threshold=5"], "error: mining.threshold must be"),
        (["loss.class_weights=[1,2]"], "error: loss.class_weights has 2 values, but num_classes"),
        (
            [
                "criterion.output_targets={edge:boundary}",
                "criterion.output_losses={edge:cross_entropy}",
            ],
            "error: criterion.output_losses.edge: num_classes is 1",
        ),
    ],
)
def test_cfg_tries_the_losses(
    words: list[str], sentence: str, last_line: Callable[[], str]
) -> None:
    assert run_command("train", [*words, "--cfg"]) == 2
    assert last_line().startswith(sentence)


def test_cfg_needs_no_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset=camvid", "dataset.root=nowhere", "loss.class_weights=[1,2]"]
    assert run_command("train", [*words, "--cfg"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["loss"]["class_weights"] == [1.0, 2.0]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(command, ["--help"], f"segtrain {command}")
    assert stop.value.code == 0
    assert f"segtrain {command}" in capsys.readouterr().out


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("list", []) == 0
    assert f"loss: {', '.join(cli.group_choices('loss'))}\n" in capsys.readouterr().out


# ------------------------------------------------------------------ runs


def test_a_loss_of_the_users_own(tmp_path: Path, last_line: Callable[[], str]) -> None:
    (tmp_path / "my_losses.py").write_text(
        "import segtrain\n\n\n"
        '@segtrain.register_loss("mine_in_test")\n'
        "def mine(logits, target, *, power: float = 2.0):\n"
        "    return (1 - logits.softmax(1).gather(1, target[:, None])[:, 0]) ** power\n"
    )
    words = [*SMALL[1:], f"plugins=[my_losses.py,{TINY}]", "loss=mine_in_test", "run_dir=run"]
    assert run_command("train", [*words, "loss.pwr=3"]) == 2
    assert "did you mean 'power'?" in last_line()
    assert run_command("train", [*words, "loss.power=abc"]) == 2
    assert "loss.power must be a number" in last_line()
    mined = ["mining=ohem", "mining.min_kept=50", "criterion.strip_rows=7"]
    assert run_command("train", [*words, "loss.power=3", *mined]) == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["loss"]["power"] == 3.0


def test_a_run_writes_its_directory(tmp_path: Path) -> None:
    assert (
        run_command("train", [*SMALL, "name=mine", "criterion.output_weights={out:1,aux:0.2}"]) == 0
    )
    (run,) = (tmp_path / "outputs" / "mine").iterdir()
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    expected = {"checkpoints/last.pt", "checkpoints/best.pt", "config.yaml", "metrics.jsonl"}
    assert expected | {"results.json", "train.log"} <= found
    assert any(name.startswith("tensorboard/") for name in found)
    result = json.loads((run / "results.json").read_text())
    assert result["step"] == 3
    assert list(result["per_class_iou"]) == ["background", "disc", "box", "line", "ring", "dot"]
    assert {"mIoU", "pixel_accuracy", "mean_accuracy", "seconds"} <= result.keys()
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["parts"].keys() == {"out/cross_entropy", "aux/cross_entropy"}
    assert first["loss"] == pytest.approx(
        first["parts"]["out/cross_entropy"] + 0.2 * first["parts"]["aux/cross_entropy"], rel=1e-5
    )


def test_a_sweep_is_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert run_command("train", [*SMALL, "-m", "loss=cross_entropy,focal,dice"]) == 0
    runs = sorted(tmp_path.glob("outputs/shapes_tiny_*/*/results.json"))
    names = [path.parent.parent.name.removeprefix("shapes_tiny_") for path in runs]
    assert names == ["cross_entropy", "dice", "focal"]


def test_a_sweep_is_checked_before_it_starts(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*SMALL, "-m", "loss=cross_entropy,focal", "loss.gamma=2"]) == 2
    assert "'cross_entropy' has no parameter 'gamma'" in last_line()
    assert run_command("train", [*SMALL, "-m", "loss=cross_entropy,focall"]) == 2
    assert "did you mean 'focal'?" in last_line()
    assert not (tmp_path / "outputs").exists()


def test_evaluate_gives_the_number_of_training(tmp_path: Path) -> None:
    words = ["run_dir=run", "trainer.ema_decay=0.5", "trainer.precision=bf16"]
    assert run_command("train", [*SMALL, *words]) == 0
    trained = json.loads(Path("run/results.json").read_text())
    for checkpoint in ("run", "run/checkpoints/last.pt"):
        given = [f"checkpoint={checkpoint}", "split=val", "output=scores.json", "device=cpu"]
        assert run_command("evaluate", given) == 0
        scores = json.loads(Path("scores.json").read_text())
        assert scores["mIoU"] == trained["mIoU"]
        assert scores["per_class_iou"] == trained["per_class_iou"]


def test_evaluate_on_another_dataset(last_line: Callable[[], str]) -> None:
    assert run_command("train", [*SMALL, "run_dir=run"]) == 0
    assert run_command("evaluate", ["checkpoint=run", "dataset.num_val=2", "device=cpu"]) == 0
    assert (
        run_command("evaluate", ["checkpoint=run", "dataset=folder", "dataset.num_classes=2"]) == 3
    )
    assert run_command("evaluate", ["checkpoint=nothing"]) == 4
    assert "nothing" in last_line()
    assert run_command("evaluate", []) == 2
    assert "checkpoint" in last_line()
    assert run_command("evaluate", ["checkpoint=run", "spilt=val"]) == 2
    assert "did you mean 'split'?" in last_line()


def test_predict_writes_masks_at_the_size_of_the_images(tmp_path: Path) -> None:
    assert run_command("train", [*SMALL, "run_dir=run"]) == 0
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (50, 70)), ("b.png", (33, 31))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(
            tmp_path / "in" / name
        )
    assert run_command("predict", ["checkpoint=run", "input=in", "output=out", "device=cpu"]) == 0
    for stem, size in (("a", (50, 70)), ("b", (33, 31))):
        ids = np.array(Image.open(tmp_path / "out" / "ids" / f"{stem}.png"))
        colours = Image.open(tmp_path / "out" / "color" / f"{stem}.png")
        overlay = np.array(Image.open(tmp_path / "out" / "overlay" / f"{stem}.png"))
        assert ids.shape == size
        assert ids.max() < 6
        assert colours.mode == "P"
        assert np.array_equal(np.array(colours), ids)
        assert overlay.shape == (*size, 3)


def test_predict_says_what_is_missing(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*SMALL, "run_dir=run"]) == 0
    assert run_command("predict", ["checkpoint=run", "input=absent", "output=out"]) == 3
    assert "absent" in last_line()
    (tmp_path / "empty").mkdir()
    assert run_command("predict", ["checkpoint=run", "input=empty", "output=out"]) == 3
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ what ends a run


def test_a_loss_that_is_not_finite_ends_the_run_before_the_step(
    tmp_path: Path, last_line: Callable[[], str]
) -> None:
    (tmp_path / "bad.py").write_text(
        "import segtrain\n\ncalls = []\n\n\n"
        '@segtrain.register_loss("nan_in_test")\n'
        "def bad(logits, target):\n"
        "    calls.append(1)\n"  # three trials come first, then one call for each step
        "    return logits.pow(2).mean(1) * (float('nan') if len(calls) == 7 else 1.0)\n"
    )
    words = [
        *SMALL[1:],
        f"plugins=[bad.py,{TINY}]",
        "loss=nan_in_test",
        "run_dir=run",
        "model.aux=false",
    ]
    words += ["trainer.max_steps=9", "trainer.checkpoint_every=1", "criterion.strip_rows=null"]
    assert run_command("train", words) == 5
    assert "at step" in last_line()
    from segtrain.engine.checkpoint import load_checkpoint

    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert all(weights.isfinite().all() for weights in state["model"].values())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_the_run(tmp_path: Path, number: int, code: int) -> None:
    words = [*SMALL, "run_dir=run", "trainer.max_steps=100000", "trainer.evaluate_every=100000"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "train.py"), *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "resume=auto" in error.strip().splitlines()[-1]
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()


def test_torchvision_of_another_build_is_explained(
    monkeypatch: pytest.MonkeyPatch, last_line: Callable[[], str], tmp_path: Path
) -> None:
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_command("train", []) == 6
    assert "torchvision::nms" in last_line()


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = [error.exit_code for error in SegtrainError.__subclasses__()]
    assert sorted(set(codes) - {1}) == [2, 3, 4, 5, 6, 7]


def test_a_wrong_label_stops_before_training(tmp_path: Path, last_line: Callable[[], str]) -> None:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(4):
            pixels = np.full((40, 40, 3), index * 20 + (split == "val"), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / split / f"{index}.png")
            mask = np.zeros((40, 40), dtype=np.uint8)
            mask[:2, :3] = 7 if (split, index) == ("val", 2) else 1
            Image.fromarray(mask).save(tmp_path / "masks" / split / f"{index}.png")
    words = [*(word for word in SMALL if not word.startswith("dataset.")), "dataset=folder"]
    assert run_command("train", [*words, "dataset.num_classes=2", "run_dir=run"]) == 3
    message = last_line()
    assert "masks/val/2.png" in message
    assert "7" in message
    assert "6 pixels" in message
    assert not (tmp_path / "run").exists()
    assert (
        run_command("train", [*words, "dataset.num_classes=2", "dataset.label_map={0:0,1:1,7:1}"])
        == 0
    )


def test_commands_can_be_used_without_a_shell(tmp_path: Path) -> None:
    result = commands.train(check_config(compose_config([*SMALL, "run_dir=run"])))
    assert result["run_dir"] == "run"
    assert 0 <= result["mIoU"] <= 1


# ------------------------------------------------------------------ parts that a user wrote wrong


@pytest.mark.parametrize(
    ("code", "words", "exit_code", "sentence"),
    [
        ("def part(logits, target):\n    return logits.argmax(1).float()", [], 2, "trial batch"),
        ("def part(logits, target):\n    raise KeyError('x')", [], 2, "KeyError"),
        (
            "class part(segtrain.PixelLoss):\n    def pixel_loss(self, logits, target):\n"
            "        return logits.mean()",
            [],
            2,
            "must return a map",
        ),
        ("class part(segtrain.PixelLoss):\n    pass", [], 2, "cannot be built"),
    ],
)
def test_a_wrong_loss_is_found_before_training(
    tmp_path: Path,
    last_line: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    words: list[str],
    exit_code: int,
    sentence: str,
) -> None:
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))
    source = f'import segtrain\n\n\n@segtrain.register_loss("wrong")\n{code}\n'
    (tmp_path / "wrong.py").write_text(source)
    given = [*SMALL[1:], f"plugins=[wrong.py,{TINY}]", "loss=wrong", "run_dir=run", *words]
    assert run_command("train", given) == exit_code
    assert sentence in last_line()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise RuntimeError('no')", "failed on a trial image: RuntimeError: no"),
        ("return images", "must return a dict of logits"),
        ("return {'out': images}", "must return logits (N, 6, h, w), got (1, 3, 64, 64)"),
    ],
)
def test_a_wrong_model_is_found_before_training(
    tmp_path: Path,
    last_line: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(MODELS, "_factories", dict(MODELS._factories))
    (tmp_path / "wrong.py").write_text(
        'import segtrain\n\n\n@segtrain.register_model("wrong")\nclass Wrong(segtrain.Segmentor):\n'
        f"    def forward(self, images):\n        {body}\n"
    )
    assert run_command("train", [*SMALL[2:], "plugins=[wrong.py]", "model=wrong"]) == 2
    assert sentence in last_line()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return np.zeros((8, 8)), np.zeros((8, 8)), 'a'", "images (H, W, 3), uint8"),
        ("raise KeyError(index)", "failed on its first sample"),
        (
            "return segtrain.Sample(np.zeros((8, 8, 3), np.uint8),"
            " np.full((8, 8), 9 if index else 0), 'late')",
            "sample 'late': its target holds 9",
        ),
    ],
)
def test_a_wrong_dataset_is_a_data_error(
    tmp_path: Path,
    last_line: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(DATASETS, "_factories", dict(DATASETS._factories))
    (tmp_path / "wrong.py").write_text(
        "import numpy as np\nimport segtrain\n\n\n"
        '@segtrain.register_dataset("wrong")\nclass Wrong(segtrain.SegmentationDataset):\n'
        "    def __init__(self, split='train'):\n"
        "        super().__init__(segtrain.LabelContract(num_classes=2))\n\n"
        "    def __len__(self):\n        return 8\n\n"
        f"    def __getitem__(self, index):\n        {body}\n"
    )
    words = [word for word in SMALL[1:] if not word.startswith("dataset.")]
    given = [*words, f"plugins=[wrong.py,{TINY}]", "dataset=wrong", "run_dir=run"]
    assert run_command("train", given) == 3
    assert sentence in last_line()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["optimizer.betas=[1,2]"], 2, "optimizer 'adamw' cannot be built"),
        (
            ["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"],
            2,
            "cannot be built",
        ),
        (["scheduler.div_factor=0"], 2, "cannot be built"),
        (["scheduler=poly", "scheduler.power=-3"], 2, "scheduler.power must be above 0"),
        (["seed=99999999999999999999"], 2, "seed must be from 0"),
        (["criterion.output_weights={out:-1,aux:1}"], 2, "output_weights.out"),
        (["loss=cross_entropy,focal"], 2, "add -m"),
        (["-m", "--cfg", "loss=cross_entropy,focal"], 2, "leave -m out"),
        (["-m", "optimizer.lr=interval(0.1,1)"], 2, "INTERVAL_SWEEP"),
        (["=focal"], 2, "no key"),
        (["loss.mining=foo"], 2, "unknown mining 'foo'"),
        (["loss=sum", "loss.terms.dice.smooth=a"], 2, "loss.terms.dice.smooth must be a number"),
        (["evaluation.size=[0,0]"], 2, "evaluation.size"),
        (["run_dir=file"], 6, "file"),
    ],
)
def test_values_that_only_their_part_can_judge(
    words: list[str],
    code: int,
    sentence: str,
    last_line: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    (tmp_path / "file").write_text("")
    given = [*SMALL, *words] if "run_dir=file" in words else [*SMALL, "run_dir=run", *words]
    assert run_command("train", given) == code
    assert sentence in last_line()
    assert not (tmp_path / "run").exists()


def test_experiment_null_is_no_experiment() -> None:
    assert compose_config(["experiment=null"]) == compose_config([])


@pytest.mark.parametrize("text", ["plugins: 3", "- a", "a: [", "plugins: two.py"])
def test_a_broken_experiment_is_named(
    text: str, tmp_path: Path, last_line: Callable[[], str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "broken.yaml").write_text(text)
    assert run_command("train", [f"--config-dir={tmp_path}", "experiment=broken"]) == 2
    assert "broken.yaml" in last_line()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"format": 1}, "lacks 'model'"),
        ({"format": 2}, "format 2"),
        ({"weights": 1}, "not written by segtrain"),
        (b"junk", "damaged or no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    command: str, content: object, sentence: str, tmp_path: Path, last_line: Callable[[], str]
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "a.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "a.pt")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "a.png")
    words = ["checkpoint=a.pt", *(["input=in", "output=out"] if command == "predict" else [])]
    assert run_command(command, words) == 4
    assert sentence in last_line()


def test_a_checkpoint_with_code_is_refused(tmp_path: Path, last_line: Callable[[], str]) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    torch.save({"format": 1, "model": Payload()}, tmp_path / "evil.pt")
    assert run_command("evaluate", ["checkpoint=evil.pt"]) == 4
    assert "could run code" in last_line()
    assert not (tmp_path / "canary").exists()


def test_a_plugin_model_is_asked_for_by_name(
    tmp_path: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_command("train", [*SMALL, "run_dir=run"]) == 0
    monkeypatch.setattr(
        MODELS, "_factories", {k: v for k, v in MODELS._factories.items() if k != "tiny"}
    )
    assert run_command("evaluate", ["checkpoint=run"]) == 4
    assert f"plugins=[{TINY}]" in last_line()


def test_a_refused_resume_leaves_the_run_as_it_was(
    tmp_path: Path, last_line: Callable[[], str]
) -> None:
    assert run_command("train", [*SMALL, "run_dir=run"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    assert run_command("train", [*SMALL, "run_dir=run", "resume=auto", "model.aux=false"]) == 4
    assert run_command("train", [*SMALL, "run_dir=run", "resume=auto", "trainer.max_steps=2"]) == 2
    assert "past the budget" in last_line()
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}


def test_another_runs_directory_is_not_taken_over(last_line: Callable[[], str]) -> None:
    for name in ("one", "two"):
        assert run_command("train", [*SMALL, f"run_dir={name}"]) == 0
    words = ["run_dir=two", "resume=one/checkpoints/last.pt"]
    assert run_command("train", [*SMALL, *words]) == 7
    assert "two" in last_line()


def test_two_processes_cannot_write_one_run(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*SMALL, "run_dir=run"]) == 0
    from segtrain.engine.run_directory import Run

    first = Run(tmp_path / "run", {})
    assert run_command("train", [*SMALL, "run_dir=run", "resume=auto"]) == 7
    assert "in use" in last_line()
    first.close()
    assert run_command("train", [*SMALL, "run_dir=run", "resume=auto"]) == 0


def test_precision_may_change_on_resume() -> None:
    assert run_command("train", [*SMALL, "run_dir=run", "trainer.stop_after=2"]) == 0
    words = ["run_dir=run", "resume=auto", "trainer.precision=fp16"]
    assert run_command("train", [*SMALL, *words]) == 0


def test_images_of_one_stem_are_refused(tmp_path: Path, last_line: Callable[[], str]) -> None:
    assert run_command("train", [*SMALL, "run_dir=run"]) == 0
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    assert run_command("predict", ["checkpoint=run", "input=in", "output=out"]) == 3
    assert "a.jpg and a.png" in last_line()


@pytest.mark.parametrize(
    "words",
    [
        ["augmentation.crop_size=[16,16]"],
        ["model=encoder_decoder", "model.backbone=hrnet_w18_small_v1", "model.head=aspp"],
    ],
)
def test_a_batch_too_small_for_batch_norm_is_one_sentence(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    small = ["trainer.batch_size=1", "trainer.max_steps=1", "loader.num_workers=0"]
    size = ["dataset.num_train=2", "dataset.num_val=1", f"run_dir={run_dir}"]
    assert cli.run_command("train", [*small, *size, *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "one value per channel" in error
    assert "trainer.batch_size" in error
    if "crop_size" in words[0]:
        assert not run_dir.exists()


def test_a_label_map_takes_the_place_of_the_one_in_a_config() -> None:
    words = ["dataset=camvid", "dataset.label_map={0-10:0-10,11:ignore,12:car}"]
    assert compose_config(words)["dataset"]["label_map"] == {
        "0-10": "0-10",
        11: "ignore",
        12: "car",
    }
    assert compose_config(["dataset=camvid"])["dataset"]["label_map"] == {
        "0-10": "0-10",
        11: "ignore",
    }
