"""Run a study of losses: tune the learning rate of each, train all seeds, and compare.

    python benchmarks/verdicts/study.py benchmarks/verdicts/topomortar --commit

A study is a folder with a ``study.yaml``. The command can be stopped and started again: what is
finished is kept. The scores, the counts per image and the curves of every finished run are copied
to ``runs/`` in the folder of the study, and with ``--commit`` committed at once. ``--report`` only
writes the tables anew from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segtrain.comparison import Comparison, compare
from segtrain.comparison.files import write_comparison
from segtrain.comparison.groups import Group, group_runs
from segtrain.comparison.page import interval_rows
from segtrain.comparison.runs import RunRecord, read_runs
from segtrain.comparison.tables import headings, rows, unit
from segtrain.engine.status import read_status
from segtrain.files import write_text
from segtrain.metrics import larger_is_better, score_in
from segtrain.pages.row_charts import interval_chart
from segtrain.pages.style import CHART_STYLE

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("config.yaml", "results.json", "per_image.npz", "metrics.jsonl", "status.json")
POLL_SECONDS = 5.0
RATE = "optimizer.lr"


@dataclass(frozen=True)
class Study:
    """A study: its folder, the content of its ``study.yaml``, and whether runs are committed."""

    folder: Path
    content: dict[str, Any]
    commit: bool

    @property
    def metric(self) -> str:
        """The first metric, by which rates and the best losses are chosen."""
        return str(self.content["metrics"][0])

    def kept(self, stage: str) -> Path:
        """The folder with what is kept of the runs of a stage."""
        return self.folder / "runs" / stage

    def runs(self, stage: str) -> list[RunRecord]:
        """The finished runs of a stage."""
        kept = self.kept(stage)
        return [run for run in read_runs([kept]) if run.is_finished] if kept.is_dir() else []

    def train(self, stage: str, *words: str) -> None:
        """Train the runs of a sweep that are not finished yet, and keep each as it finishes."""
        sweep_dir = Path("outputs/studies", self.folder.name, stage)
        command = [
            *(sys.executable, str(ROOT / "tools/train.py"), "-m", *self.content["overrides"]),
            *(*words, f"sweep_dir={sweep_dir}", "resume=auto"),
        ]
        for path in self.kept(stage).glob("*"):  # finished on another machine, or before a clean
            if not (ROOT / sweep_dir / path.name).exists():
                shutil.copytree(path, ROOT / sweep_dir / path.name)
        with subprocess.Popen(command, cwd=ROOT) as process:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                self._keep(stage, ROOT / sweep_dir)
        self._keep(stage, ROOT / sweep_dir)
        if process.returncode:
            sys.exit(process.returncode)

    def _keep(self, stage: str, sweep_dir: Path) -> None:
        for path in sorted(sweep_dir.glob("*/status.json")):
            target = self.kept(stage) / path.parent.name
            status = read_status(path.parent)
            if target.exists() or status is None or status.state != "finished":
                continue
            target.mkdir(parents=True)
            for name in KEPT:
                shutil.copy(path.parent / name, target)
            if self.commit:
                message = f"Study {self.folder.name}, {stage}: {target.name}"
                subprocess.run(["git", "add", str(target)], check=True, cwd=ROOT)
                subprocess.run(["git", "commit", "-qm", message], check=True, cwd=ROOT)

    def rates(self) -> dict[str, float]:
        """The best learning rate of each loss."""
        larger = larger_is_better(self.metric)
        best: dict[str, tuple[float, float]] = {}
        for run in self.runs("rates"):
            score = run.score(self.metric)
            loss, rate = str(run.results["preset"]), float(run.config["optimizer"]["lr"])
            if score is not None:
                best[loss] = max(best.get(loss, (-1e9, 0.0)), (score if larger else -score, rate))
        return {loss: rate for loss, (_, rate) in best.items()}


def run(study: Study) -> None:
    """Run what is missing of a study."""
    content, rates = study.content, study.content["rates"]
    values, seeds = (",".join(map(str, given)) for given in (rates["values"], content["seeds"]))
    study.train(
        "rates",
        *(f"loss={','.join(content['losses'])}", f"{RATE}={values}", f"seed={rates['seed']}"),
        *rates["overrides"],
    )
    conditions = [
        f"{key}={','.join(map(str, given))}" for key, given in content["conditions"].items()
    ]
    best = study.rates()
    for loss in content["losses"]:
        study.train("main", f"loss={loss}", f"{RATE}={best[loss]:g}", f"seed={seeds}", *conditions)
    for condition, losses in best_losses(study).items():
        for loss in losses:
            study.train(
                "longer",
                *(f"loss={loss}", f"{RATE}={best[loss]:g}", f"seed={seeds}", *condition),
                *content["longer"]["overrides"],
            )


def best_losses(study: Study) -> dict[tuple[str, ...], list[str]]:
    """The best losses under each condition, the best first."""
    larger = larger_is_better(study.metric)
    found: dict[tuple[str, ...], list[tuple[float, str]]] = {}
    for group in group_runs(study.runs("main")):
        scores = [run.score(study.metric) or 0.0 for run in group.runs]
        mean = sum(scores) / len(scores)
        key = tuple(f"{name}={group.words[name]}" for name in study.content["conditions"])
        found.setdefault(key, []).append((-mean if larger else mean, group.words["loss"]))
    number = study.content["longer"]["losses"]
    return {key: [loss for _, loss in sorted(items)[:number]] for key, items in found.items()}


def report(study: Study) -> None:
    """Write the comparisons and the table of all metrics."""
    lines = [f"# {study.content['title']}: measured", ""]
    for stage, metric, comparison in comparisons(study):
        folder = study.folder / "comparisons" / f"{stage}_{metric}"
        if metric == study.metric:
            write_comparison(comparison, folder, images=False)
        else:  # tables.md has the rest
            write_text(
                folder / "comparison.json", json.dumps(comparison.to_dict(), indent=2) + "\n"
            )
        write_text(folder.with_suffix(".svg"), _chart(study, comparison))
        lines += [f"## {stage}: {unit(comparison)}", "", *_table(comparison), ""]
        lines += [*(f"- {text}" for text in (*comparison.verdicts, *comparison.notes)), ""]
    lines += ["## Learning rates", "", *_rates_table(study), ""]
    write_text(study.folder / "tables.md", "\n".join(lines))


def comparisons(study: Study) -> Iterator[tuple[str, str, Comparison]]:
    """The comparison of all losses, and of the best losses of each condition at a longer budget."""
    main = study.runs("main")
    stages = {"main": ([run.path for run in main], study.content["baseline"])}
    for condition, losses in best_losses(study).items():
        paths = [
            run.path
            for run in study.runs("longer")
            if all(run.overrides.get(key) == value for key, value in _pairs(condition))
        ]
        name = "_".join(["longer", *(value for _, value in _pairs(condition))])
        stages[name] = paths, losses[-1]
    for stage, (paths, loss) in stages.items():
        if not paths:
            continue
        baseline = _baseline(group_runs(read_runs(paths)), loss)
        for metric in study.content["metrics"]:
            yield stage, metric, compare(paths, metric=metric, baseline=baseline)


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]


def _chart(study: Study, comparison: Comparison) -> str:
    """The differences and their intervals as a picture, by condition."""
    keys = ("loss", *study.content["conditions"])
    names = {
        item.group.name: ", ".join(item.group.words.get(key, "") for key in keys)
        for item in comparison.groups
    }
    drawn = [row._replace(name=names[row.name]) for row in interval_rows(comparison)]
    drawn.sort(key=lambda row: (row.name.partition(", ")[2], -(row.mean or 0.0)))
    points = "points of " if comparison.scoring.metric.is_share else ""
    side = "right" if comparison.scoring.larger_is_better else "left"
    axis = (
        f"difference from {dict(_pairs(comparison.baseline)).get('loss', 'the baseline')} in"
        f" {points}{comparison.metric}, with 95 % interval; better to the {side}"
    )
    return interval_chart(drawn, axis, style=CHART_STYLE)


def _baseline(groups: Sequence[Group], loss: str) -> str | None:
    """The baseline with its own learning rate; None: it is none of the groups."""
    words = next((group.words for group in groups if group.words.get("loss") == loss), None)
    if words is None:
        return None
    return ",".join(f"{key}={words[key]}" for key in ("loss", RATE) if key in words)


def _table(comparison: Comparison) -> list[str]:
    heads = headings(comparison)
    return [
        "| " + " | ".join(cells) + " |"
        for cells in (heads, ["---"] * len(heads), *rows(comparison))
    ]


def _rates_table(study: Study) -> list[str]:
    """The score of each learning rate of each loss, on the images for tuning."""
    values = study.content["rates"]["values"]
    found = {
        (run.results["preset"], float(run.config["optimizer"]["lr"])): score_in(
            run.results, study.metric
        )
        for run in study.runs("rates")
    }
    lines = ["| loss | " + " | ".join(f"{value:g}" for value in values) + " |"]
    lines.append("| --- |" + " --- |" * len(values))
    for loss in study.content["losses"]:
        cells = [found.get((loss, float(value))) for value in values]
        shown = ["" if cell is None else f"{100 * cell:.2f}" for cell in cells]
        lines.append(f"| {loss} | " + " | ".join(shown) + " |")
    return lines


def main() -> None:
    """Run the study in the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commit", action="store_true", help="commit each run as it finishes")
    parser.add_argument("--report", action="store_true", help="only write the tables anew")
    options = parser.parse_args()
    folder = Path(os.path.relpath(options.folder, ROOT))  # no absolute path in what is written
    os.chdir(ROOT)
    content = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    study = Study(folder, content, options.commit)
    if not options.report:
        run(study)
    report(study)


if __name__ == "__main__":
    main()
