"""The command ``segtrain benchmark``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from segtrain.errors import ConfigError, describe_error
from segtrain.export import FORMATS, Format, Graph, GraphOptions, Run, Trained
from segtrain.export.graph import trace
from segtrain.export.timing import Timing, measure
from segtrain.schema.plugins import load_plugins
from segtrain.schema.sections import BenchmarkConfig
from segtrain.terminal import logger, progress

_DEFAULT_SIZE = (512, 512)
_TORCH = "torch"


def benchmark(config: BenchmarkConfig) -> list[Timing]:
    """Time a model in several formats, print a table, and return the times.

    The files are written into a temporary folder and are not compared with the model.

    Raises:
        SegtrainError: If the checkpoint cannot be used, or the model cannot be exported.
    """
    load_plugins(config.plugins)
    trained = Trained.load(config.checkpoint, config.size)
    size = trained.size or _DEFAULT_SIZE
    before = torch.get_num_threads()
    threads = config.threads or before
    torch.set_num_threads(threads)
    try:
        shape = (trained.predictor.model.in_channels, *size)
        batches = [torch.rand(number, *shape).numpy() for number in config.batch_sizes]
        graph = trained.graph(GraphOptions())
        with tempfile.TemporaryDirectory() as folder:
            runs = _runs(graph, config.formats, batches, Path(folder), threads)
            timings = measure(runs, batches, config.repetitions)
    finally:
        torch.set_num_threads(before)
    title = f"{size[0]} x {size[1]} pixels, {threads} threads, {config.repetitions} calls each"
    _print(timings, title)
    return timings


def _runs(
    graph: Graph,
    formats: Sequence[str],
    batches: Sequence[NDArray[Any]],
    folder: Path,
    threads: int,
) -> dict[str, Run]:
    """Return what runs the model in each format that can be used.

    Raises:
        ConfigError: If there is none.
    """
    runs: dict[str, Run] = {}
    traced = cache(lambda: trace(graph, (batches[0].shape[2], batches[0].shape[3])))
    with progress("export", len(formats)) as bar:
        for name in dict.fromkeys(formats):
            bar.advance(name)
            if name == _TORCH:
                runs[name] = _eager(graph)
                continue
            try:
                _check_packages(FORMATS[name])
                path = folder / f"model{FORMATS[name].ending}"
                FORMATS[name].write(traced(), path, graph.options.output, opset=None)
                runs[name] = _loaded(FORMATS[name], path, batches, threads)
            except ConfigError as error:
                logger.warning("%s is left out: %s", name, error)
    if not runs:
        raise ConfigError("none of the formats can be used")
    return runs


def _check_packages(written: Format) -> None:
    missing = written.missing()
    if missing is not None:
        raise ConfigError(missing)


def _loaded(written: Format, path: Path, batches: Sequence[NDArray[Any]], threads: int) -> Run:
    """Load a file, and try it on each batch.

    Raises:
        ConfigError: If the runtime cannot load or run it.
    """
    try:
        run = written.load(path, threads)
        for batch in batches:
            run(batch)
    except Exception as error:  # each runtime raises its own kinds
        raise ConfigError(
            f"{written.runtime} cannot run the model: {describe_error(error)}"
        ) from error
    return run


def _eager(graph: Graph) -> Run:
    def run(images: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            ids: NDArray[Any] = graph(torch.from_numpy(images)).numpy()
        return ids

    return run


def _print(timings: Sequence[Timing], title: str) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("format")
    for heading in ("batch", "median (ms)", "10 to 90 % (ms)", "images/s"):
        table.add_column(heading, justify="right")
    for one in sorted(timings, key=lambda timing: timing.batch_size):
        table.add_row(
            one.name,
            str(one.batch_size),
            f"{one.quantile(0.5):.1f}",
            f"{one.quantile(0.1):.1f} to {one.quantile(0.9):.1f}",
            f"{one.images_per_second:.1f}",
        )
    Console().print(table)
