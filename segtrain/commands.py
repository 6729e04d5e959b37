"""What the commands do once their configuration is checked."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segtrain.assemble import build_evaluation, build_trainer
from segtrain.config import (
    AUTO,
    Config,
    EvaluateConfig,
    ImportConfig,
    InspectConfig,
    PredictConfig,
    ShardsConfig,
)
from segtrain.data import (
    DATASETS,
    FileDataset,
    ShardsReport,
    make_shards,
    write_config,
    write_mask,
    write_palette_mask,
)
from segtrain.data.datasets.pairing import IMAGE_SUFFIXES
from segtrain.data.scan.class_weights import AUTO_METHOD
from segtrain.engine.distributed import processes
from segtrain.engine.run import results, scores_table
from segtrain.errors import ConfigError, DataError
from segtrain.files import write_text
from segtrain.importer import import_checkpoint
from segtrain.inference import Predictor
from segtrain.inspection import Examination, examine, print_tables, write_report, write_sheet
from segtrain.inspection.page import normalisation_words
from segtrain.models.table import HEADINGS, model_row
from segtrain.models.weights import LoadReport
from segtrain.splits import scan_split
from segtrain.terminal import console, logger, progress

_NUMBERS = ("parameters (M)", "GMACs")
_PIPE_WIDTH = 1000


@contextmanager
def _closing(trainer: Any) -> Iterator[None]:
    try:
        yield
    finally:
        if trainer.run is not None:
            trainer.run.close()


def train(config: Config) -> dict[str, Any]:
    """Train as `config` says; returns the final scores and the run directory, on rank 0."""
    with processes(config.trainer.device) as here:
        trainer = build_trainer(config, here)
        with _closing(trainer):
            result = trainer.fit() or {}
            if trainer.run is None:
                return {}
            if result:
                logger.info(
                    "%s: mIoU %.4f after %d steps", trainer.run.path, result["mIoU"], trainer.step
                )
            return {**result, "run_dir": str(trainer.run.path)}


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Score a checkpoint; prints the table and returns the scores."""
    with processes(config.device) as here:
        evaluator, model, state = build_evaluation(config, here)
        scores = evaluator.evaluate(model)
        names = evaluator.labels.names
        result = results(scores, names, step=state["step"], split=config.split)
        if here.is_main:
            console.print(
                scores_table(
                    scores, names, f"{config.split} split, checkpoint of step {state['step']}"
                )
            )
            if config.output is not None:
                Path(config.output).parent.mkdir(parents=True, exist_ok=True)
                write_text(Path(config.output), json.dumps(result, indent=2) + "\n")
            logger.info("mIoU %.4f, pixel accuracy %.4f", scores.miou, scores.pixel_accuracy)
        return result


def predict(config: PredictConfig) -> list[Path]:
    """Write ``ids/``, ``color/`` and ``overlay/`` of every image; returns the images."""
    images = _images(Path(config.input))
    predictor = Predictor.from_checkpoint(config.checkpoint, device=config.device, size=config.size)
    output = Path(config.output)
    for folder in ("ids", "color", "overlay"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    with progress("predict", len(images)) as bar:
        for path in images:
            pixels = predictor.read(path)
            ids = predictor(pixels)
            _write_ids(output, path.stem, ids, predictor)
            Image.fromarray(predictor.overlay(pixels, ids)).save(
                output / "overlay" / f"{path.stem}.png"
            )
            bar.advance()
    logger.info("%d images predicted, written to %s/{ids,color,overlay}", len(images), output)
    return images


def inspect(config: InspectConfig) -> Examination:
    """Look at a whole dataset, show what was found and write the report.

    Raises:
        DataError: When training would go wrong; the report is written all the same.
    """
    examination = examine(config.dataset, decode=config.decode)
    title = re.sub(r"[^\w\- ]", "_", examination.title)
    folder = Path(config.output or Path("outputs", "inspect", title))
    folder.mkdir(parents=True, exist_ok=True)
    print_tables(examination, AUTO_METHOD if config.class_weights == AUTO else config.class_weights)
    write_report(examination, folder, num_examples=config.num_examples, method=config.class_weights)
    logger.info("report: %s, the same as plain data in report.json", folder / "report.html")
    logger.info("loss.class_weights=%s", folder / "class_weights.json")
    if config.augment:
        write_sheet(
            examination,
            config.augmentation,
            folder / "augmented.html",
            num_samples=config.num_augmented,
            num_epochs=config.num_epochs,
            seed=config.seed,
        )
        logger.info("augmented samples: %s", folder / "augmented.html")
    if examination.refusal is not None:
        raise DataError(examination.refusal)
    if examination.moments is not None:
        sys.stdout.write(f"{normalisation_words(examination.moments)}\n")
    return examination


def write_shards(config: ShardsConfig) -> ShardsReport:
    """Write a split as tar shards, and a dataset config with which they are read."""
    dataset = DATASETS.build(config.dataset, split=config.split)
    title = str(dataset.title or config.dataset["name"])
    if not isinstance(dataset, FileDataset):
        raise ConfigError(f"dataset {title!r} has no files to put into shards")
    if dataset.max_bad:
        with progress(f"check {config.split}", len(dataset)) as bar:
            _, dataset = scan_split(dataset, lambda *_: bar.advance())
        for text in dataset.left_out:
            logger.warning("left out: %s", text)
    with progress(f"write {config.split} shards", len(dataset)) as bar:
        report = make_shards(
            dataset,
            config.output,
            config.split,
            samples_per_shard=config.samples_per_shard,
            max_bytes=int(config.max_shard_gb * 1e9),
            seed=config.seed if config.shuffle else None,
            progress=lambda done, _: bar.move_to(done),
        )
    name = write_config(dataset, config.output, title)
    logger.info(
        "%d samples in %d shards (%d new), %.2f GB, index %s; to train on them: segtrain train"
        " --config-dir %s dataset=%s",
        report.num_samples,
        report.num_shards,
        report.num_written,
        report.size / 1e9,
        report.index,
        config.output,
        name,
    )
    return report


def _write_ids(output: Path, stem: str, ids: NDArray[Any], predictor: Predictor) -> None:
    """The class ids of an image; of multi-label data a mask of 0 and 1 in a folder per class."""
    labels = predictor.labels
    if not labels.multi_label:
        write_mask(output / "ids" / f"{stem}.png", ids)
        write_palette_mask(output / "color" / f"{stem}.png", ids, labels.colours)
        return
    for index, name in enumerate(labels.names):
        folder = output / "ids" / re.sub(r"[^\w\- ]", "_", name)
        folder.mkdir(exist_ok=True)
        write_mask(folder / f"{stem}.png", ids[..., index])
    Image.fromarray(predictor.colorize(ids)).save(output / "color" / f"{stem}.png")


def import_weights(given: ImportConfig, config: Config) -> LoadReport:
    """Write weights of other code as a checkpoint; prints what became of them."""
    with processes("cpu") as here:
        report = import_checkpoint(given, config, here)
        logger.info("%s written, for evaluate, predict and model.weights", given.output)
        return report


def list_models(specs: Mapping[str, Any]) -> None:
    """Print what each of the models in `specs` costs, on standard output."""
    table = Table(box=None, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    with progress("count", len(specs)) as bar:
        for name, spec in specs.items():
            bar.advance(name)
            try:
                cells = model_row(name, spec).cells()
            except ConfigError as error:  # a package that is not installed takes one row only
                cells = (name, "", "", "", "", str(error))
            table.add_row(*map(escape, cells))
    # Whoever reads a file or a pipe wants whole lines.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _images(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"input={source}: no such image or folder")
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(
            f"input={source}: no image in it; known endings are {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    stems = [path.stem for path in found]
    doubled = [path.name for path in found if stems.count(path.stem) > 1]
    if doubled:
        raise DataError(
            f"input={source}: {' and '.join(doubled[:2])} would be written to one file; rename one"
        )
    return found
