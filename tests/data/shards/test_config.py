import json

import numpy as np

from segtrain.cli.compose import compose_config
from segtrain.cli.main import run_command
from segtrain.data import DATASETS
from segtrain.data.build import has_split
from tests.helpers import TINY


def test_the_command_writes_a_config_to_train_with(folder, command):
    assert sorted(path.name for path in (command / "dataset").iterdir()) == ["ours_shards.yaml"]
    composed = compose_config(["dataset=ours_shards"], "train", command)["dataset"]
    dataset = DATASETS.build(composed, split="val")
    assert dataset.title == "ours"
    sample = dataset[0]
    other = next(other for other in folder if other.name == sample.name)
    np.testing.assert_array_equal(sample.image, other.image)
    swapped = np.array([1, 0, 2, *[255] * 253], np.uint8)[other.target]
    np.testing.assert_array_equal(sample.target, swapped)


def test_a_test_split_is_configured_if_it_was_written(folder, command, tmp_path):
    def config():
        return compose_config(["dataset=ours_shards"], "train", command)["dataset"]

    assert not has_split(config(), "test")
    words = [
        "dataset=folder", "dataset.title=ours", f"dataset.root={tmp_path / 'files'}",
        "dataset.num_classes=3", f"output={command}", "split=test",
        "dataset.test={images:images,masks:masks}",
    ]  # fmt: skip
    assert run_command("shards", words) == 0
    assert has_split(config(), "test")
    assert len(DATASETS.build(config(), split="test")) == len(folder)


def test_a_run_from_shards_is_the_same_from_a_url_and_when_it_is_resumed(
    command, server, tmp_path, capsys
):
    words = [
        "dataset=ours_shards", "dataset.allow_overlap=true", "dataset.streams=2",
        f"plugins=[{TINY}]", "model=tiny", "trainer.batch_size=2", "trainer.max_steps=6",
        "trainer.log_every=1", "trainer.evaluate_every=100", "augmentation.crop_size=[8,8]",
        "evaluation.batch_size=1", "loader.num_workers=0", "trainer.device=cpu",
    ]  # fmt: skip

    def losses(name, *more):
        arguments = ["--config-dir", str(command), *words, f"run_dir={tmp_path / name}", *more]
        assert run_command("train", arguments) == 0, capsys.readouterr().err
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]

    whole = losses("disk")
    remote = f"dataset.root={server.url}/written"
    assert len(losses("url", remote, "trainer.stop_after=3")) == 3
    assert losses("url", remote, "resume=auto", "loader.num_workers=2") == whole
