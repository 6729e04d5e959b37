"""What `compare` concludes from runs on disk."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import segtrain
from segtrain.cli.main import run_command
from segtrain.comparison.runs import read_runs
from segtrain.errors import ConfigError
from tests.comparison.helpers import write_group, write_run


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three losses: one much better, one the same as the baseline."""
    for name, mean in (("cross_entropy", 0.5), ("focal", 0.6), ("dice", 0.501)):
        write_group(tmp_path / "runs", name, mean)
    return tmp_path / "runs"


def test_a_better_loss_is_found(three: Path) -> None:
    comparison = segtrain.compare(three)
    names = [item.group.name for item in comparison.groups]
    assert names == ["cross_entropy", "focal", "dice"]  # the baseline, then the best first
    better, same = (item.difference for item in comparison.groups if item.difference)
    assert same.verdict.kind == "none"
    assert "no difference shown between dice and cross_entropy" in same.verdict.text
    assert better.verdict.kind == "better"
    assert re.fullmatch(
        r"focal is better than cross_entropy by \d\.\d points \(\d\.\d to \d\.\d\) at 300 steps,"
        r" in 3 of 3 seeds",
        better.verdict.text,
    )
    assert better.probability_better > 0.99


def test_the_difference_is_that_of_the_scores(three: Path) -> None:
    comparison = segtrain.compare(three)
    scores = {item.group.name: item.scores for item in comparison.groups}
    focal = comparison.groups[1].difference
    assert focal is not None
    assert focal.mean == pytest.approx(
        np.mean(np.subtract(scores["focal"], scores["cross_entropy"]))
    )
    for item in comparison.groups:
        assert item.scores == tuple(run.results["mIoU"] for run in item.group.runs)
        assert item.sd == pytest.approx(np.std(item.scores, ddof=1))


def test_a_score_of_one_class(three: Path) -> None:
    comparison = segtrain.compare(three, metric="iou[crack]")
    crack = [run.results["per_class_iou"]["crack"] for run in comparison.groups[0].group.runs]
    assert comparison.groups[0].scores == pytest.approx(crack)


def test_without_images_it_is_a_t_interval_over_seeds(tmp_path: Path) -> None:
    values = {"cross_entropy": [0.50, 0.52, 0.51], "dice": [0.55, 0.60, 0.58]}
    for loss, scores in values.items():
        for seed, score in enumerate(scores):
            path = write_run(tmp_path / f"{loss}{seed}", [score] * 4, loss=loss, seed=seed)
            (path / "per_image.npz").unlink()
    comparison = segtrain.compare(tmp_path, metric="iou[crack]")
    difference = comparison.groups[1].difference
    assert difference is not None
    assert difference.interval is not None
    paired = np.subtract(values["dice"], values["cross_entropy"])
    expected = stats.t.interval(0.95, 2, paired.mean(), stats.sem(paired))
    assert (difference.interval.low, difference.interval.high) == pytest.approx(expected, abs=1e-9)
    assert difference.interval.p == pytest.approx(stats.ttest_1samp(paired, 0).pvalue, rel=1e-6)
    assert not difference.by_images
    assert "0/per_image.npz is missing, so the intervals" in comparison.notes[0]


def test_smaller_is_better(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for loss, mean in (("cross_entropy", 9.0), ("cldice", 4.0)):
        for seed in range(3):
            betti = list(mean + generator.normal(0, 0.5, 8))
            write_run(tmp_path / f"{loss}{seed}", [0.5] * 8, loss=loss, seed=seed, betti=betti)
    comparison = segtrain.compare(tmp_path, metric="betti0_error")
    difference = next(item.difference for item in comparison.groups if item.difference)
    assert difference.mean < 0
    assert difference.verdict.text.startswith("cldice is better than cross_entropy by 2.")
    assert difference.better_in == 3
    assert difference.probability_better > 0.99


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"seeds": [0]}, "focal has 1 seed, and a verdict needs at least 2"),
        ({"seeds": [0, 7]}, "1 of 2 and 3 seeds in common"),
        ({"step": 200}, "number of steps (200 and 300)"),
        ({"versions": {"torch": "2.10", "segtrain": "1"}}, "version of torch (2.10 and 2.14)"),
        (
            {"dataset_hash": {"train": "c" * 64, "val": "b" * 64}},
            "training data (hash cccccccc and hash aaaaaaaa)",
        ),
        (
            {"dataset_hash": {"train": "a" * 64, "val": "c" * 64}},
            "val data (hash cccccccc and hash bbbbbbbb)",
        ),
        ({"scored_weights": "moving_average"}, "scored weights"),
        ({"names": [f"x{index}" for index in range(12)]}, "different images"),
    ],
)
def test_no_verdict_and_why(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    write_group(tmp_path, "focal", 0.6, **more)
    difference = segtrain.compare(tmp_path).groups[1].difference
    assert difference is not None
    assert difference.verdict.kind == "no_verdict"
    assert reason in difference.verdict.text
    assert difference.interval is None
    if "seeds" not in more:
        assert difference.mean == pytest.approx(0.05, abs=0.02)


def test_a_swept_budget_explains_other_steps(tmp_path: Path) -> None:
    write_group(tmp_path, "focal", 0.5, words=["trainer.max_steps=300"])
    long = {"trainer": {"max_steps": 600, "device": "auto"}}
    words = ["trainer.max_steps=600"]
    for seed in range(3):
        path = tmp_path / f"long-{seed}"
        write_run(path, [0.6] * 12, loss="focal", seed=seed, config=long, words=words, step=600)
    comparison = segtrain.compare(tmp_path, baseline="trainer.max_steps=300")
    assert "at 600 and 300 steps" in comparison.verdicts[0]


def test_holms_correction_counts_all_groups(tmp_path: Path) -> None:
    for name, mean in (("cross_entropy", 0.5), ("a", 0.508), ("bb", 0.5), ("ccc", 0.5)):
        write_group(tmp_path, name, mean)
    found = [item.difference for item in segtrain.compare(tmp_path).groups if item.difference]
    p_values = [item.interval.p for item in found if item.interval]
    corrected = [item.interval.p_holm for item in found if item.interval]
    assert min(corrected) == pytest.approx(min(1, 3 * min(p_values)))


def test_two_swept_keys_compare_within_the_other(tmp_path: Path) -> None:
    for rate in (0.01, 0.001):
        for loss, mean in (("cross_entropy", 0.5), ("dice", 0.6)):
            config = {"optimizer": {"name": "adamw", "lr": rate}}
            words = [f"optimizer.lr={rate:g}"]
            write_group(tmp_path / str(rate), loss, mean, config=config, words=words)
    comparison = segtrain.compare(tmp_path)
    found = {item.group.name: item.difference for item in comparison.groups}
    assert found["cross_entropy optimizer.lr=0.001"] is None
    assert found["dice optimizer.lr=0.001"].baseline == "cross_entropy optimizer.lr=0.001"
    assert comparison.verdicts[0].startswith("with optimizer.lr=")
    whole = segtrain.compare(tmp_path, baseline="loss=dice,optimizer.lr=1e-3")
    assert sum(item.difference is None for item in whole.groups) == 1


def test_a_group_without_a_partner_names_what_to_do(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5, words=["optimizer.lr=0.003"])
    config = {"optimizer": {"name": "adamw", "lr": 0.01}}
    write_group(tmp_path, "dice", 0.6, config=config, words=["optimizer.lr=0.01"])
    with pytest.raises(ConfigError, match=r"baseline=loss=cross_entropy,optimizer\.lr=0\.003"):
        segtrain.compare(tmp_path)
    assert segtrain.compare(tmp_path, baseline="loss=cross_entropy,optimizer.lr=0.003").verdicts


def test_a_group_whose_baseline_failed_has_no_verdict(tmp_path: Path) -> None:
    for rate, losses in (("0.01", ["cross_entropy", "dice"]), ("9", ["dice"])):
        for loss in losses:
            config = {"optimizer": {"name": "adamw", "lr": float(rate)}}
            words = [f"optimizer.lr={rate}"]
            write_group(tmp_path / rate, loss, 0.5, config=config, words=words)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed/status.json").write_text('{"state": "failed", "exit_code": 5}')
    found = segtrain.compare(tmp_path).groups
    alone = next(item.difference for item in found if item.group.words["optimizer.lr"] == "9")
    assert alone is not None
    assert alone.verdict.text == (
        "no verdict: no group with loss=cross_entropy agrees with dice optimizer.lr=9 in"
        " optimizer.lr; to compare across that, name it:"
        " baseline=loss=cross_entropy,optimizer.lr=0.01"
    )
    assert sum(item.difference is not None for item in found) == 2


def test_a_score_that_is_undefined_in_a_run_has_no_verdict(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5)
    write_group(tmp_path, "dice", 0.5)
    path = tmp_path / "dice-1/results.json"
    results = json.loads(path.read_text())
    results["mIoU"] = None
    path.write_text(json.dumps(results))
    comparison = segtrain.compare(tmp_path)
    difference = comparison.groups[1].difference
    assert difference is not None
    assert difference.verdict.text == "no verdict: iou is undefined in a run"
    assert list(comparison.groups[1].by_seed) == [0, 2]
    json.dumps(comparison.to_dict(), allow_nan=False)


def test_presets_are_compared_by_their_names(tmp_path: Path) -> None:
    """The section of a preset is `sum` with terms; people chose `ce_dice`."""
    write_group(tmp_path, "cross_entropy", 0.5)
    for seed in range(2):
        write_run(
            tmp_path / f"sum{seed}",
            [0.6] * 12,
            loss="ce_dice",
            seed=seed,
            config={"loss": {"name": "sum", "terms": {"dice": {"weight": 1.0}}}},
        )
    assert [item.group.name for item in segtrain.compare(tmp_path).groups] == [
        "cross_entropy",
        "ce_dice",
    ]


def test_edited_configurations_without_words_are_told_apart(tmp_path: Path) -> None:
    for rate in (0.1, 0.2):
        for seed in range(2):
            path = tmp_path / f"{rate}-{seed}"
            config = {"optimizer": {"name": "adamw", "lr": rate}}
            write_run(path, [0.5] * 4, seed=seed, config=config, overrides=[])
    assert [item.group.name for item in segtrain.compare(tmp_path).groups] == [
        "optimizer.lr=0.1",
        "optimizer.lr=0.2",
    ]


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "one", [0.5] * 4)
    write_run(tmp_path / "two", [0.6] * 4)
    with pytest.raises(ConfigError, match="are the same run with seed 0"):
        segtrain.compare(tmp_path)


def test_a_late_change_of_order_is_noted(tmp_path: Path) -> None:
    write_group(tmp_path, "cross_entropy", 0.5, curve={100: 0.1, 200: 0.4, 300: 0.5})
    write_group(tmp_path, "focal", 0.6, curve={100: 0.2, 200: 0.3, 300: 0.6})
    (note,) = segtrain.compare(tmp_path).notes
    assert note.startswith("the order of cross_entropy and focal changed at step 300")


def test_failed_and_unfinished_runs_are_listed(tmp_path: Path, three: Path) -> None:
    failed = tmp_path / "runs/failed"
    failed.mkdir()
    status = {"state": "failed", "exit_code": 3, "reason": "no such folder: masks"}
    (failed / "status.json").write_text(json.dumps(status))
    write_run(tmp_path / "runs/stopped", [0.5] * 4, state="stopped", seed=9)
    found = segtrain.compare(three).to_dict()["failed"]
    assert found[0] == {"run": str(failed), "exit_code": 3, "reason": "no such folder: masks"}
    assert found[1]["reason"] == "the run is stopped"


def folds(folder: Path, loss: str, means: list[float], seed: int) -> None:
    """Write a run per fold; each scores its own four images."""
    for fold, mean in enumerate(means):
        write_run(
            folder / f"{loss}-{seed}-{fold}",
            [mean, mean + 0.1, mean - 0.1, mean],
            loss=loss,
            seed=seed,
            names=[f"{fold}-{index}" for index in range(4)],
            config={"dataset": {"name": "folder", "folds": len(means), "fold": fold}},
            dataset_hash={"train": f"{fold}" * 64, "val": f"{fold}x" * 32},
        )


def test_folds_are_pooled(tmp_path: Path) -> None:
    for seed in (0, 1):
        folds(tmp_path, "cross_entropy", [0.4, 0.5 + seed / 100, 0.6], seed)
        folds(tmp_path, "dice", [0.5, 0.58, 0.69 + seed / 50], seed)
    comparison = segtrain.compare(tmp_path, metric="iou[crack]")
    baseline, dice = comparison.groups
    assert baseline.group.seeds == [0, 1]
    assert baseline.scores == pytest.approx([0.5, 0.51 - 0.02 / 3], abs=0.002)
    assert dice.difference is not None
    assert dice.difference.n_pairs == 2
    assert dice.difference.interval is not None
    # Nadeau and Bengio: 1 / (K - 1) times the variance between the folds comes on top.
    differences = np.array([0.1, 0.08 - 0.01 / 2, 0.09 + 0.02 / 2])
    extra = differences.var(ddof=1) / 2
    assert dice.difference.interval.image_variance > extra * 0.95
    missing = next(tmp_path.glob("dice-1-2"))
    for file in missing.iterdir():
        file.unlink()
    missing.rmdir()
    difference = segtrain.compare(tmp_path).groups[1].difference
    assert difference is not None
    assert "seed 1 of dice lacks folds" in difference.verdict.text


def test_inside_a_run_there_are_no_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.5] * 4)
    write_run(run / "attempt-1", [0.5] * 4)
    assert [found.path for found in read_runs([tmp_path])] == [run]


# ---------------------------------------------------------------- the command


def test_the_command_writes_every_format(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(three), f"output={tmp_path / 'out'}", "baseline=loss=cross_entropy"]
    assert run_command("compare", words) == 0
    assert "focal is better than cross_entropy" in " ".join(capsys.readouterr().err.split())
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["baseline"] == "loss=cross_entropy"
    assert {"name", "overrides", "seeds", "runs", "mean", "sd", "n", "difference"} <= set(
        content["groups"][0]
    )
    assert content["groups"][0]["difference"] is None
    assert {
        *("mean", "ci95", "p", "p_holm", "probability_better", "n_pairs", "better_in", "verdict")
    } <= set(content["groups"][1]["difference"])
    assert abs(content["groups"][1]["difference"]["mean"]) < 1
    table = list(csv.DictReader((tmp_path / "out/comparison.csv").read_text().splitlines()))
    assert float(table[2]["difference_mean"]) == content["groups"][2]["difference"]["mean"]
    assert r"\toprule" in (tmp_path / "out/comparison.tex").read_text()
    assert r"cross\_entropy" in (tmp_path / "out/comparison.tex").read_text()
    assert "| cross_entropy | 3 |" in (tmp_path / "out/comparison.md").read_text()


def test_it_writes_into_the_sweep(three: Path) -> None:
    (three / "sweep.json").write_text("{}")
    assert run_command("compare", [str(three)]) == 0
    assert (three / "comparison.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "compare needs run or sweep directories"),
        (["nowhere"], "nowhere is not a directory"),
        (["metic=dice"], "metic=dice is neither a directory nor a key; did you mean 'metric'?"),
        (["RUNS", "metric=ious"], "no run computed 'ious'; did you mean 'iou'?"),
        (["RUNS", "metric=iou[crak]"], "unknown class 'crak'; did you mean 'crack'?"),
        (["RUNS", "baseline=focal"], "baseline=focal: 'focal' is not key=value"),
        (["RUNS", "baseline=loss=x"], "none of the groups: loss=cross_entropy; loss=dice"),
    ],
)
def test_mistakes(
    three: Path, words: list[str], message: str, last_line: Callable[[], str]
) -> None:
    assert run_command("compare", [word.replace("RUNS", str(three)) for word in words]) == 2
    assert message in last_line()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.yaml", "config.yaml is incomplete: it has no key seed"),
        ("results.json", "results.json is not valid JSON"),
        ("status.json", "status.json is not a valid status"),
        ("per_image.npz", "per_image.npz cannot be read"),
    ],
)
def test_cut_off_files_are_named(
    three: Path, name: str, message: str, last_line: Callable[[], str]
) -> None:
    path = next(three.rglob(name))
    text = path.read_bytes()
    path.write_bytes(text[: 60 if name == "config.yaml" else 10])
    assert run_command("compare", [str(three)]) == 4
    assert f"{path.parent}/{message}" in last_line()


def test_an_output_that_is_a_file(three: Path, last_line: Callable[[], str]) -> None:
    assert run_command("compare", [str(three), f"output={three.parent / 'x'}"]) == 0
    Path(three.parent / "y").write_text("")
    assert run_command("compare", [str(three), f"output={three.parent / 'y'}"]) == 2
    assert "is a file; give a folder" in last_line()


def test_runs_that_differ_in_much_are_not_listed_in_full(tmp_path: Path) -> None:
    words = [f"trainer.x{index}=1" for index in range(7)]
    write_group(tmp_path, "cross_entropy", 0.5)
    write_group(tmp_path, "dice", 0.5, words=words)
    with pytest.raises(ConfigError, match=r"differ in 7 keys, such as .*; compare runs that"):
        segtrain.compare(tmp_path)


def test_only_failed_runs(tmp_path: Path, last_line: Callable[[], str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/status.json").write_text('{"state": "failed", "exit_code": 5}')
    assert run_command("compare", [str(tmp_path)]) == 2
    assert "none of the 1 runs is finished" in last_line()
