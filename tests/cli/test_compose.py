"""Configs, names and values as Hydra composes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segtrain.assembly.check import SECTIONS, check_config
from segtrain.cli import main as cli
from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.data import DATASETS
from segtrain.files import config_dir
from segtrain.schema.sections import EvaluationConfig


def num_classes(name: str) -> list[str]:
    """The override that a dataset class needs, because it does not know the classes."""
    needed = name in DATASETS.names() and "num_classes" in DATASETS.schema(name)
    return ["dataset.num_classes=3"] if needed else []


def weights(path: Path) -> list[str]:
    """The file of weights, for a config that needs one."""
    return ["model.weights=some.pth"] if "weights: ???" in path.read_text() else []


def every_config() -> list[tuple[str, str]]:
    groups = [*SECTIONS, *cli.PLAIN_GROUPS]
    return [
        (group, path.stem) for group in groups for path in (config_dir() / group).glob("*.yaml")
    ]


@pytest.mark.parametrize(("group", "name"), sorted(every_config()))
def test_every_config_file_is_valid(group: str, name: str) -> None:
    missing = weights(config_dir() / group / f"{name}.yaml")
    config = check_config(compose_config([f"{group}={name}", *num_classes(name), *missing]))
    if group in SECTIONS:
        found = getattr(config, group)["name"]
        # A preset chooses a part under a name of its own, which no other part has.
        assert found == name or name not in SECTIONS[group][0].names()


NEEDED = {
    "timm": ["optimizer.algorithm=lion"],
    "cosine_restarts": ["scheduler.T_0=3"],
    "cyclic": ["scheduler.base_lr=0.1", "scheduler.max_lr=1"],
    "exponential": ["scheduler.gamma=0.9"],
    "multi_step": ["scheduler.milestones=[3]"],
    "step": ["scheduler.step_size=3"],
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_registered_name_can_be_chosen(section: str) -> None:
    for name in SECTIONS[section][0].names():
        words = [f"{section}={name}", *num_classes(name), *NEEDED.get(name, ())]
        config = check_config(compose_config(words))
        assert getattr(config, section)["name"] == name


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


@pytest.mark.parametrize(
    "path", sorted((config_dir() / "experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_is_a_valid_configuration(path: Path) -> None:
    config = check_config(compose_config([f"experiment={path.stem}", *weights(path)]))
    assert config.name == path.stem


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


def test_an_evaluation_preset_changes_what_it_names() -> None:
    words = ["experiment=camvid_cpu", "evaluation=hrnet"]
    config = check_config(compose_config(words)).evaluation
    assert (config.scales, config.flip) == ((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), True)
    assert (config.size, config.batch_size) == ((468, 624), 4)  # of the experiment
    given = compose_config(
        ["checkpoint=x", "evaluation=hrnet", "evaluation.size=[32,48]"], "evaluate"
    )
    assert given["evaluation"].keys() == {"scales", "flip", "size"}
    assert compose_config(["checkpoint=x"], "evaluate").get("evaluation") is None


def test_the_default_evaluation_is_that_of_its_section() -> None:
    given = check_config(compose_config([])).evaluation
    assert given == EvaluationConfig(batch_size=8)
