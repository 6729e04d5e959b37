"""Checkpoints that do not fit what they are used for, tried by words of a command line."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import run_command
from segtrain.engine.checkpoint import load_checkpoint, save_checkpoint
from segtrain.inference import Predictor
from tests.helpers import THREE_STEPS, TINY

NAMES = ("road", "traffic light", "car")
MOVED = ("car", "road", "traffic light")  # the same classes in another order
IDS = (2, 0, 1)  # in NAMES, of each name in MOVED
COLOURS = ([0, 0, 0], [0, 0, 1], [200, 9, 9])  # of NAMES; 0x000001 could be the raw value 1
RUN = [
    *(f"plugins=[{TINY}]", "model=tiny", "trainer.batch_size=2", "trainer.max_steps=2"),
    *("trainer.device=cpu", "trainer.log_images=0", "loader.num_workers=0", "run_dir=run"),
]
_WORD = re.compile(r"'dataset\.[^']+'|dataset\.\w+=\S+")


def folder(root: str, number: int = 3) -> list[str]:
    """The words for a folder of images, which has the same files in both splits."""
    places = [
        f"dataset.{split}.{kind}={kind}"
        for split in ("train", "val")
        for kind in ("images", "masks")
    ]
    size = [f"dataset.num_classes={number}"]
    return ["dataset=folder", f"dataset.root={root}", "dataset.allow_overlap=true", *places, *size]


def masks(number: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, number, (24, 32), dtype=np.uint8) for _ in range(4)]


def write(root: str, files: Sequence[np.ndarray], kind: str = "masks") -> None:
    for name in ("images", kind):
        (Path(root) / name).mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(files):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{root}/images/{index}.png")
        Image.fromarray(mask).save(f"{root}/{kind}/{index}.png")


def names(chosen: Sequence[str]) -> str:
    quoted = ",".join(f'"{name}"' for name in chosen)
    return f"dataset.class_names=[{quoted}]"


def evaluate(*words: str) -> tuple[int, dict[str, Any]]:
    """Score the run with these words; return the exit code and the IoU of each class."""
    Path("scores.json").unlink(missing_ok=True)
    code = run_command("evaluate", ["checkpoint=run", "device=cpu", "output=scores.json", *words])
    written = Path("scores.json")
    return code, json.loads(written.read_text())["per_class_iou"] if written.is_file() else {}


def pasted(line: str) -> list[str]:
    """The words that a message offers, as a shell would split them."""
    return [shlex.split(word)[0] for word in _WORD.findall(line.rpartition("; ")[2])]


def check_refused_and_repaired(
    words: Sequence[str], last_line: Callable[[], str], expected: dict[str, Any]
) -> list[str]:
    """Check that an evaluation is refused, and that its advice gives the expected scores."""
    assert evaluate(*words) == (2, {})
    line = last_line()
    assert "'car' is class 0 of the dataset and class 2 of the checkpoint" in line
    advice = pasted(line)
    code, scores = evaluate(*words, *advice)
    assert code == 0
    assert scores == expected
    return advice


def train_folder(*words: str) -> dict[str, Any]:
    """Train on masks of class ids; return the IoU of each class."""
    write("ids", masks())
    assert run_command("train", [*RUN, *folder("ids"), names(NAMES), *words]) == 0
    code, scores = evaluate()
    assert code == 0
    assert len({round(score, 9) for score in scores.values()}) == 3  # a swap is noticed
    return scores


# ------------------------------------------------------------ the same classes in another order


def test_ids_in_another_order(last_line: Callable[[], str]) -> None:
    expected = train_folder()
    write("moved", [np.argsort(IDS).astype(np.uint8)[mask] for mask in masks()])
    words = [*folder("moved"), names(MOVED)]
    advice = check_refused_and_repaired(words, last_line, expected)
    assert advice == [
        'dataset.class_names=[road,"traffic light",car]',
        "dataset.label_map={0:2,1:0,2:1}",
    ]


def test_a_label_map_in_another_order(last_line: Callable[[], str]) -> None:
    expected = train_folder()
    raw = np.array([20, 10, 30], np.uint8)  # of NAMES
    files = [raw[mask] for mask in masks()]
    files[0][:3] = 7  # ignored, and so no error for the class that the model predicts
    write("moved", files)
    words = [*folder("moved"), names(MOVED), "dataset.label_map={30:car,20:road,10:2,7:ignore}"]
    with_ignored = [*folder("moved"), names(NAMES), "dataset.label_map={20:0,10:1,30:2,7:ignore}"]
    code, scores = evaluate(*with_ignored)
    assert code == 0
    assert scores != expected
    check_refused_and_repaired(words, last_line, scores)


def test_other_values_in_another_order(last_line: Callable[[], str]) -> None:
    expected = train_folder()
    raw = np.array([9, 10, 30], np.uint8)  # of NAMES
    files = [raw[mask] for mask in masks()]
    write("moved", files)
    words = [*folder("moved"), names(MOVED), "dataset.label_map={30:0,other:1,10:2}"]
    advice = check_refused_and_repaired(words, last_line, expected)
    assert "dataset.label_map={10:1,30:2,other:0}" in advice


@pytest.mark.parametrize("more", [[], ["dataset.label_map={0x090909:ignore,0x00FF00:car}"]])
def test_a_palette_in_another_order(more: list[str], last_line: Callable[[], str]) -> None:
    train_folder()
    files = [np.array(COLOURS, np.uint8)[mask] for mask in masks()]
    if more:
        files[0][:4], files[1][:4] = (9, 9, 9), (0, 255, 0)
    write("moved", files)

    def palette(ids: Sequence[int]) -> str:
        return f"dataset.palette={[COLOURS[index] for index in ids]}".replace(" ", "")

    code, expected = evaluate(*folder("moved"), names(NAMES), palette((0, 1, 2)), *more)
    assert code == 0
    words = [*folder("moved"), names(MOVED), palette((2, 0, 1)), *more]
    advice = check_refused_and_repaired(words, last_line, expected)
    assert palette((0, 1, 2)) in advice
    assert len(advice) == 2 + len(more)


def test_a_palette_for_drawing_in_another_order(last_line: Callable[[], str]) -> None:
    expected = train_folder()
    write("moved", [np.argsort(IDS).astype(np.uint8)[mask] for mask in masks()])
    words = [*folder("moved"), names(MOVED), "dataset.palette=[[0,0,0],[0,0,1],[200,9,9]]"]
    check_refused_and_repaired(words, last_line, expected)


def test_many_classes_in_another_order(last_line: Callable[[], str]) -> None:
    chosen = [f"part_{index}" for index in range(12)]
    write("ids", masks(12))
    assert run_command("train", [*RUN, *folder("ids", 12), names(chosen)]) == 0
    _, expected = evaluate()
    write("moved", [(mask + 1) % 12 for mask in masks(12)])
    words = [*folder("moved", 12), names([chosen[-1], *chosen[:-1]])]
    assert evaluate(*words)[0] == 2
    advice = pasted(last_line())
    assert "dataset.label_map={0:11,1-11:0-10}" in advice
    assert evaluate(*words, *advice) == (0, expected)


def test_one_logit_in_another_order(last_line: Callable[[], str]) -> None:
    write("ids", masks(2))
    binary = "dataset.class_names=[field,house]"
    assert run_command("train", [*RUN, "loss=bce", *folder("ids", 1), binary]) == 0
    _, expected = evaluate()
    assert expected["field"] != expected["house"]
    write("moved", [1 - mask for mask in masks(2)])
    words = [*folder("moved", 1), "dataset.class_names=[house,field]"]
    assert evaluate(*words)[0] == 2
    advice = pasted(last_line())
    assert "dataset.label_map={0:1,1:0}" in advice
    assert evaluate(*words, *advice) == (0, expected)


def multi_label(root: str, chosen: Sequence[str], *, per_class: bool) -> list[str]:
    words = [word for word in folder(root, 2) if per_class is False or ".masks=" not in word]
    if per_class:
        each = ",".join(f"{name}:{name}" for name in chosen)
        words += [f"dataset.{split}.masks={{{each}}}" for split in ("train", "val")]
    return [*words, "dataset.multi_label=true", f"dataset.class_names=[{','.join(chosen)}]"]


def test_masks_per_class_in_another_order(last_line: Callable[[], str]) -> None:
    for index, name in enumerate(("hat", "bag")):
        write("ids", [(mask == index).astype(np.uint8) for mask in masks()], name)
    words = multi_label("ids", ("hat", "bag"), per_class=True)
    assert run_command("train", [*RUN, "loss=bce", *words]) == 0
    _, expected = evaluate()
    assert expected["hat"] != expected["bag"]
    moved = multi_label("ids", ("bag", "hat"), per_class=True)
    assert evaluate(*moved)[0] == 2
    advice = pasted(last_line())
    assert advice == ["dataset.class_names=[hat,bag]"]
    assert evaluate(*moved, *advice) == (0, expected)


def test_channels_in_another_order(last_line: Callable[[], str]) -> None:
    for folder_name in ("images", "masks"):
        (Path("ids") / folder_name).mkdir(parents=True, exist_ok=True)
    write("ids", masks())
    for index, mask in enumerate(masks()):
        np.save(f"ids/masks/{index}.npy", np.stack([mask == 0, mask == 1], 2).astype(np.uint8))
        Path(f"ids/masks/{index}.png").unlink()
    words = multi_label("ids", ("hat", "bag"), per_class=False)
    assert run_command("train", [*RUN, "loss=bce", *words]) == 0
    moved = multi_label("ids", ("bag", "hat"), per_class=False)
    assert evaluate(*moved)[0] == 2
    assert "change dataset 'folder' so that its classes are hat, bag, in this order" in last_line()


# ------------------------------------------------------------------------------- other names


def test_names_that_differ_in_case_only() -> None:
    expected = train_folder()
    code, scores = evaluate("dataset.class_names=[Road,traffic_light,CAR]")
    assert code == 0
    assert list(scores.values()) == list(expected.values())


def test_names_that_nobody_chose_are_not_compared() -> None:
    expected = train_folder()
    code, scores = evaluate("dataset.class_names=null")
    assert code == 0
    assert list(scores) == ["class_0", "class_1", "class_2"]
    assert list(scores.values()) == list(expected.values())


def test_other_names(last_line: Callable[[], str]) -> None:
    expected = train_folder()
    words = ["dataset.class_names=[road,sign,vehicle]"]
    assert evaluate(*words) == (2, {})
    line = last_line()
    assert "only the dataset has 'sign' and 'vehicle'" in line
    assert "only the checkpoint has 'traffic light' and 'car'" in line
    assert "if 'sign' means 'traffic light' and 'vehicle' means 'car', add" in line
    assert pasted(line) == ['dataset.class_names=[road,"traffic light",car]']
    assert evaluate(*words, *pasted(line)) == (0, expected)


def test_another_name_in_another_order(last_line: Callable[[], str]) -> None:
    expected = train_folder()
    write("moved", [np.argsort(IDS).astype(np.uint8)[mask] for mask in masks()])
    words = [*folder("moved"), "dataset.class_names=[vehicle,road,'traffic light']"]
    assert evaluate(*words) == (2, {})
    assert "if 'vehicle' means 'car', add" in (line := last_line())
    assert evaluate(*words, *pasted(line)) == (0, expected)


def test_a_dataset_whose_names_no_key_changes(
    last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    path = Path("run/checkpoints/best.pt")
    state = load_checkpoint(path)
    state["metadata"]["class_names"].reverse()
    save_checkpoint(path, state)
    assert evaluate() == (2, {})
    assert "change dataset 'shapes' so that its classes are dot, ring, line, box" in last_line()


# ------------------------------------------------------------------------------ moved data


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_a_root_that_has_moved(kind: str, last_line: Callable[[], str]) -> None:
    expected = train_folder()
    words: list[str] = []
    if kind == "list":
        lines = "".join(f"images/{index}.png masks/{index}.png\n" for index in range(4))
        Path("ids/all.lst").write_text(lines)
        given = ["dataset=list", "dataset.root=ids", "dataset.num_classes=3", names(NAMES)]
        given += [f"dataset.{split}={{list:all.lst}}" for split in ("train", "val")]
        train = [*RUN[:-1], "run_dir=listed", *given, "dataset.allow_overlap=true"]
        assert run_command("train", train) == 0
        words = ["checkpoint=listed"]
    Path("ids").rename("elsewhere")
    assert evaluate(*words) == (3, {})
    run = "listed" if kind == "list" else "run"
    sentence = (
        f"error: dataset.root=ids, the root in {run}/checkpoints/best.pt, does not exist; set"
        " dataset.root= to the directory or the zip or tar archive that holds the data now"
    )
    assert last_line() == sentence
    code, scores = evaluate(*words, "dataset.root=elsewhere")
    assert code == 0
    assert kind == "list" or scores == expected
    assert evaluate(*words, "dataset.root=nowhere") == (3, {})
    assert last_line().startswith("error: dataset.root=nowhere does not exist; set dataset.root=")


def test_a_root_that_can_be_downloaded(last_line: Callable[[], str]) -> None:
    train_folder()
    Path("ids").rename("elsewhere")
    assert evaluate("dataset.source=oxford_pet") == (3, {})
    assert "or dataset.download=true to fetch the data" in last_line()


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_evaluation_is_not_advised_to_score_training_images(
    split: str, last_line: Callable[[], str]
) -> None:
    train_folder()
    words = [f"split={split}", f"dataset.{split}.images=absent", f"dataset.{split}.masks=absent"]
    assert evaluate(*words) == (3, {})
    line = last_line()
    assert f"dataset.{split}.images=absent: ids/absent is not a directory" in line
    assert line.endswith("dataset.root=ids, which holds images, masks")  # and no other advice
    assert run_command("train", [*RUN, "run_dir=other", *folder("ids"), *words[1:]]) == 3
    advice = {"val": "set dataset.val_share=0.2", "test": "set dataset.test=null"}
    assert advice[split] in last_line()


# ------------------------------------------------------------------ resuming with other values

LAST = "run/checkpoints/last.pt"
AFRESH = (
    " to change it in mid-run, or start a new run from the weights alone: leave out resume=, choose"
    f" another run_dir and set model.weights={LAST}"
)


def resume(before: Sequence[str], now: Sequence[str], code: int = 4) -> None:
    """Train two of three steps with the words before, then resume with those of now."""
    run = [*THREE_STEPS, "run_dir=run"]
    assert run_command("train", [*run, *before, "trainer.stop_after=2"]) == 0
    kept = Path(LAST).read_bytes()
    assert run_command("train", [*run, *now, "resume=auto"]) == code
    assert (Path(LAST).read_bytes() == kept) == bool(code)


UNCERTAINTY = ["loss=uncertainty"]
GHM = ["mining=ghm", "mining.momentum=0.5"]
SGD = ["optimizer=sgd"]
SHARDS = "dataset.num_train"


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    ("before", "now", "said", "allow", "starts"),
    [
        (SGD, ["optimizer=adamw"], "optimizer=sgd", "optimizer", "the state of the optimizer"),
        (["optimizer=adamw"], SGD, "optimizer=adamw", "optimizer", "the state of the optimizer"),
        (SGD, [*SGD, "optimizer.momentum=0"], "optimizer.momentum=0.9", "optimizer",
         "the state of the optimizer"),
        (["optimizer.decay_norms_and_biases=true"], [], "optimizer.decay_norms_and_biases=true",
         "optimizer", "the state of the optimizer"),
        (["scheduler=poly"], ["scheduler=cosine"], "scheduler=poly", "scheduler", None),
        (["trainer.ema_decay=null"], ["trainer.ema_decay=0.5"], "", "trainer.ema_decay",
         "the moving average of the weights"),
        (["trainer.ema_decay=0.5"], ["trainer.ema_decay=null"], "trainer.ema_decay=0.5",
         "trainer.ema_decay", None),
        (["trainer.ema_decay=0.5"], ["trainer.ema_decay=0.6"], "trainer.ema_decay=0.5",
         "trainer.ema_decay", None),
        (UNCERTAINTY, ["loss=focal"], "loss=uncertainty", "loss", "the learned weights"),
        (["loss=focal"], UNCERTAINTY, "loss=focal loss.gamma=2.0", "loss", "the learned weights"),
        ([], ["loss=focal"], "loss=cross_entropy", "loss", None),
        (["loss=focal"], ["loss=focal", "loss.gamma=3"], "loss.gamma=2.0", "loss", None),
        (["loss.class_weights=inverse_log"], [], "loss.class_weights=inverse_log", "loss", None),
        ([], ["criterion.output_weights=learned"], "", "criterion", "the learned weights"),
        (GHM, ["mining=ohem"], "mining=ghm", "mining", "the learned weights"),
        (["mining=ohem"], GHM, "mining=ohem", "mining", "the learned weights"),
        (GHM, [*GHM, "mining.bins=7"], "mining.bins=", "mining", "the learned weights"),
        (["mining=ohem"], ["mining=ohem", "mining.min_kept=7"], "min_kept=100000", "mining", None),
        ([], ["seed=1"], "seed=0", "seed", None),
        ([], ["trainer.batch_size=2"], "trainer.batch_size=4", "trainer.batch_size", None),
        ([], ["trainer.accumulate=2"], "trainer.accumulate=1", "trainer.accumulate", None),
        ([], ["trainer.precision=bf16"], "trainer.precision=fp32", "trainer.precision", None),
        ([], ["trainer.freeze=[head]"], "trainer.freeze=[]", "trainer.freeze", None),
        ([], ["augmentation.flip=0"], "augmentation.flip=0.5", "augmentation", None),
        ([], ["augmentation=none"], "augmentation.flip=0.5", "augmentation", None),
        ([], ["dataset.num_train=24"], "dataset.num_train=16", "dataset", None),
        ([], ["dataset.seed=3"], "dataset.seed=", "dataset", None),
        ([], ["loader.sampling=rare_class"], "loader.sampling=uniform", "loader", None),
        ([], ["model.dropout=0.5"], "model.dropout=0.2", "model", None),
    ],
)  # fmt: skip
def test_a_change_that_makes_another_run_must_be_allowed(
    before: list[str],
    now: list[str],
    said: str,
    allow: str,
    starts: str | None,
    last_line: Callable[[], str],
    messages: list[str],
) -> None:
    resume(before, now)
    line = last_line()
    assert f"error: {LAST} was trained with " in line
    assert said in line.partition(", but the configuration has ")[0]
    advised = line.partition("add resume_allow=[")[2].partition("]")[0]
    assert advised.split(",")[0].startswith(allow)
    assert line.endswith(AFRESH)
    messages.clear()
    run = [*THREE_STEPS, "run_dir=run", *now, "resume=auto"]
    assert run_command("train", [*run, f"resume_allow=[{advised}]"]) == 0
    found = [message for message in messages if "was trained with other values" in message]
    assert len(found) == 1
    anew = [message for message in messages if "so it starts anew from" in message]
    assert [message for message in anew if starts is None or not message.startswith(starts)] == []
    assert bool(anew) == (starts is not None)


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    ("now", "listed"),
    [
        (["optimizer.lr=0.5", "trainer.max_steps=5"],
         "optimizer.lr 0.003 -> 0.5, total steps 3 -> 5"),
        (["evaluation.flip=true"], "evaluation.flip false -> true"),
        (["trainer.clip_grad_norm=1"], "trainer.clip_grad_norm null -> 1.0"),
        (["scheduler.pct_start=0.5"], "scheduler.pct_start 0.3 -> 0.5"),
    ],
)  # fmt: skip
def test_every_other_change_is_listed_once(
    now: list[str], listed: str, messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    resume([], now, 0)
    found = [message for message in messages if "was trained with other values" in message]
    assert found == [f"{LAST} was trained with other values; the new ones are used: {listed}"]
    assert "effect: the run ..." in capsys.readouterr().err


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    "now",
    [
        ["criterion.strip_rows=null"],
        ["loader.num_workers=1", "loader.prefetch_factor=3"],
        ["trainer.log_every=2", "trainer.log_images=1", "trainer.checkpoint_every=1"],
        ["evaluation.batch_size=2", "name=other", "trainer.channels_last=false"],
    ],
)
def test_other_keys_change_nothing(now: list[str], messages: list[str]) -> None:
    resume([], now, 0)
    assert not [message for message in messages if "was trained with other values" in message]


@pytest.mark.fault("F16")
def test_other_samples_are_another_run(
    tmp_path: Path, last_line: Callable[[], str], messages: list[str]
) -> None:
    def fill(root: Path, names: str) -> None:
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True)
            for index, name in enumerate(names):
                pixels = np.full((40, 40), index % 2, np.uint8)
                pixels[index:] = 1
                Image.fromarray(pixels).save(root / kind / f"{name}.png")

    fill(tmp_path / "data", "abcdefgh")
    fill(tmp_path / "moved", "abcdefgh")
    fill(tmp_path / "more", "abcdefghi")
    train = [word for word in THREE_STEPS if not word.startswith("dataset.")]
    train += ["dataset=folder", "dataset.num_classes=2", "dataset.train.images=images"]
    train += ["dataset.train.masks=masks", "dataset.val=null", "run_dir=run"]
    train += ["dataset.val_share=0.25", "dataset.allow_overlap=true", "dataset.channels=1"]
    train += ["augmentation.mean=[0.5]", "augmentation.std=[0.5]"]
    assert run_command("train", [*train, "dataset.root=data", "trainer.stop_after=1"]) == 0
    again = [*train, "resume=auto", "trainer.stop_after=2"]
    assert run_command("train", [*again, "dataset.root=moved"]) == 0
    assert not [message for message in messages if "was trained with other values" in message]
    assert run_command("train", [*train, "resume=auto", "dataset.root=more"]) == 4
    assert "add resume_allow=[dataset.root]" in last_line()
    (tmp_path / "moved").rename(tmp_path / "gone")
    (tmp_path / "more").rename(tmp_path / "moved")
    assert run_command("train", [*train, "resume=auto", "dataset.root=moved"]) == 4
    line = last_line()
    assert "training samples=6 with names of digest" in line
    assert "add resume_allow=[dataset]" in line
    words = [*train, "resume=auto", "dataset.root=moved", "resume_allow=[dataset]"]
    assert run_command("train", words) == 0


def test_an_unknown_key_cannot_be_allowed(last_line: Callable[[], str]) -> None:
    assert run_command("train", [*THREE_STEPS, "resume_allow=[los]"]) == 2
    assert "resume_allow: there is no key 'los'; did you mean loss?" in last_line()


def test_a_finished_run_is_not_given_other_values(last_line: Callable[[], str]) -> None:
    run = [*THREE_STEPS, "run_dir=run"]
    assert run_command("train", run) == 0
    assert run_command("train", [*run, "optimizer.lr=0.5", "resume=auto"]) == 2
    assert "is finished, but this configuration differs from its own: optimizer.lr" in last_line()


def test_the_weights_alone_start_another_run() -> None:
    run = [*THREE_STEPS, "optimizer=sgd"]
    assert run_command("train", [*THREE_STEPS, "run_dir=run"]) == 0
    assert run_command("train", [*run, "run_dir=other", f"model.weights={LAST}"]) == 0
    assert load_checkpoint(Path("other/checkpoints/last.pt"))["step"] == 3


# --------------------------------------------------------------------------- many class ids


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def predicted(output: str) -> dict[str, list[Image.Image]]:
    """The files of each folder that a prediction wrote."""
    return {
        kind: [opened(path) for path in sorted((Path(output) / kind).glob("*.png"))]
        for kind in ("ids", "color", "overlay")
    }


def train_many(number: int, *words: str) -> list[str]:
    """Train on this number of classes; return the words that predict its images."""
    rng = np.random.default_rng(0)
    write("ids", [rng.integers(0, number, (24, 32)).astype(np.uint16) for _ in range(4)])
    assert run_command("train", [*RUN, *folder("ids", number), *words]) == 0
    return ["checkpoint=run", "input=ids/images", "output=out", "device=cpu"]


@pytest.mark.parametrize(("number", "ignore"), [(256, "-1"), (257, "-1"), (300, "400")])
def test_ids_beyond_a_palette(number: int, ignore: str, messages: list[str]) -> None:
    words = train_many(number, f"dataset.ignore_label={ignore}")
    assert run_command("predict", words) == 0
    found, predictor = predicted("out"), Predictor.from_checkpoint("run", device="cpu")
    assert {image.mode for image in found["ids"]} == {"L" if number == 256 else "I;16"}
    assert {image.mode for image in found["color"]} == {"P" if number == 256 else "RGB"}
    assert len(found["overlay"]) == 4
    for index in range(4):
        ids = predictor(f"ids/images/{index}.png")
        assert np.array_equal(np.array(found["ids"][index]), ids)
        colours = np.array(found["color"][index].convert("RGB"))
        assert np.array_equal(colours, predictor.colorize(ids))
    said = any("files of 16 bits" in message for message in messages)
    assert said == (number > 256)


@pytest.mark.parametrize(
    ("number", "ignore", "written", "modes"),
    [
        (3, "255", 255, ("L", "P")),
        (3, "-1", 255, ("L", "P")),
        (3, "70000", 255, ("L", "P")),
        (3, "300", 300, ("I;16", "RGB")),
        (256, "-1", 65535, ("I;16", "RGB")),
        (300, "100000", 65535, ("I;16", "RGB")),
    ],
)
def test_ignored_pixels_in_files(
    number: int, ignore: str, written: int, modes: tuple[str, str]
) -> None:
    counts = np.ones((24, 32), np.uint8)
    counts[:9] = 0
    words = train_many(number, f"dataset.ignore_label={ignore}")
    write("ids", [counts] * 4, "fov")
    assert run_command("predict", [*words, "valid=ids/fov"]) == 0
    found = predicted("out")
    for ids, colours in zip(found["ids"], found["color"], strict=True):
        assert (ids.mode, colours.mode) == modes
        values = np.array(ids)
        assert (values[:9] == written).all()
        assert values[9:].max() < number
        assert not np.array(colours.convert("RGB"))[:9].any()


@pytest.mark.parametrize("valid", [False, True])
def test_more_ids_than_a_file_holds(
    last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch, *, valid: bool
) -> None:
    words = train_many(3, "dataset.ignore_label=-1")
    write("ids", [np.ones((24, 32), np.uint8)] * 4, "fov")
    monkeypatch.setattr("segtrain.inference.writers.masks.LARGEST_ID", 2 if valid else 1)
    monkeypatch.setattr("segtrain.inference.writers.masks.SMALL_IGNORED", 2)
    more = ["valid=ids/fov"] if valid else []
    assert run_command("predict", [*words, *more]) == 4
    assert "the model has 3 classes, but a PNG file holds ids from 0 to" in last_line()
    assert not Path("out").exists()


def test_classes_whose_folders_would_have_one_name() -> None:
    write("ids", masks())
    for index, mask in enumerate(masks()):
        np.save(f"ids/masks/{index}.npy", np.stack([mask == 0, mask == 1], 2).astype(np.uint8))
        Path(f"ids/masks/{index}.png").unlink()
    words = [*folder("ids", 2), "dataset.multi_label=true", "dataset.class_names=['a/b',a_B]"]
    assert run_command("train", [*RUN, "loss=bce", *words]) == 0
    given = ["checkpoint=run", "input=ids/images", "output=out", "device=cpu"]
    assert run_command("predict", given) == 0
    found = sorted(path.name for path in Path("out/ids").iterdir())
    assert found == ["a_B_1", "a_b_0"]
    assert [len(list(Path(f"out/ids/{name}").iterdir())) for name in found] == [4, 4]
