"""The commands: what a user types, and the exit code that the shell gets."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from segtrain import startup
from segtrain.assembly.check import SECTIONS, check_config, check_parts
from segtrain.cli.compose import (
    PLAIN_GROUPS,
    compose_config,
    compose_run,
    group_choices,
    plugins_in,
)
from segtrain.cli.help import HELP
from segtrain.cli.listing import completion_script, list_choices
from segtrain.cli.sweep import train_many
from segtrain.cli.words import check_options
from segtrain.commands import (
    benchmark as benchmark_command,
)
from segtrain.commands import (
    evaluate as evaluate_command,
)
from segtrain.commands import (
    export as export_command,
)
from segtrain.commands import (
    import_weights as import_command,
)
from segtrain.commands import (
    inspect as inspect_command,
)
from segtrain.commands import (
    predict as predict_command,
)
from segtrain.commands import (
    shards as shards_command,
)
from segtrain.commands import (
    train as train_command,
)
from segtrain.engine.signals import raise_on_signals
from segtrain.errors import (
    ConfigError,
    ResourceError,
    SegtrainError,
    exit_code_of,
    is_out_of_memory,
    one_line,
    printable,
)
from segtrain.models.weights import list_of
from segtrain.schema.plugins import load_plugins
from segtrain.schema.sections import (
    BenchmarkConfig,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    InspectConfig,
    PredictConfig,
    ShardsConfig,
)
from segtrain.schema.values import build_dataclass, did_you_mean
from segtrain.terminal import console, start_logging
from segtrain.version import __version__


def train(
    words: Sequence[str],
    *,
    multirun: bool = False,
    extra: Path | None = None,
    show: bool = False,
    dry_run: bool = False,
) -> None:
    """Train one model, or with `multirun` one for each combination of values."""
    if multirun and show:
        raise ConfigError("--cfg prints one configuration; leave -m out")
    if multirun:
        _check_installation()
        train_many(words, extra, dry_run=dry_run)
        return
    if dry_run:
        raise ConfigError(
            "--dry-run lists the runs of a sweep; add -m, or print one run with --cfg"
        )
    for word in words:
        if word.lstrip("+").startswith("sweep_dir="):
            raise ConfigError(f"{word}: one run has run_dir=; sweep_dir= is for a sweep, with -m")
    composed, origin = compose_run(words, "train", extra)
    config = check_config(composed)
    if show:
        check_parts(config)
        sys.stdout.write(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))
        return
    _check_installation()
    train_command.train(config, origin)


def evaluate(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Score a checkpoint on a split."""
    config = build_dataclass(EvaluateConfig, compose_config(words, "evaluate", extra))
    _check_installation()
    evaluate_command.evaluate(config)


def compare(words: Sequence[str]) -> None:
    """Compare runs over their seeds."""
    from segtrain.commands import compare as compare_command  # noqa: PLC0415  loads SciPy

    config = compare_config(words)
    load_plugins(config.plugins)
    _check_installation()
    compare_command.compare_runs(config)


def compare_config(words: Sequence[str]) -> CompareConfig:
    """The configuration in the words of ``segtrain compare``: directories, and keys with values.

    Raises:
        ConfigError: When a word is neither, or there is no directory.
    """
    names = [item.name for item in fields(CompareConfig) if item.name != "directories"]
    given: dict[str, Any] = {"directories": []}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in names:  # the folder of a run has = in its name, too
            given[key] = value
        elif equals and not Path(word).exists():
            raise ConfigError(f"{word} is neither a directory nor a key{did_you_mean(key, names)}")
        else:
            given["directories"].append(word)
    return build_dataclass(CompareConfig, {**given, "plugins": plugins_in(words, None)})


def predict(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Write masks for the images of a folder."""
    config = build_dataclass(PredictConfig, compose_config(words, "predict", extra))
    _check_installation()
    predict_command.predict(config)


def export(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Write a model for ONNX Runtime, torch.export or OpenVINO, compared with the checkpoint."""
    config = build_dataclass(ExportConfig, compose_config(words, "export", extra))
    _check_installation()
    export_command.export(config)


def benchmark(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Time a model in torch and in the formats of export."""
    config = build_dataclass(BenchmarkConfig, compose_config(words, "benchmark", extra))
    _check_installation()
    benchmark_command.benchmark(config)


def import_weights(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Write weights of other code as a checkpoint, and print the class weights in their file."""
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    dataset = [] if keys & {"dataset", "experiment"} else ["dataset=folder"]
    composed = compose_config([*dataset, *words], "train", extra)
    own = {
        field.name: composed.pop(field.name)
        for field in fields(ImportConfig)
        if field.name in composed
    }
    given = build_dataclass(ImportConfig, own)
    raw = import_command.complete(
        composed, given.weights, model_given=bool(keys & {"model", "experiment"})
    )
    config = check_config(raw)
    _check_installation()
    report = import_command.import_weights(given, config)
    if report.class_weights:
        sys.stdout.write(f"loss.class_weights={list_of(report.class_weights)}\n")


def shards(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Write a split of a dataset as tar shards."""
    config = build_dataclass(ShardsConfig, _with_dataset(words, "shards", extra))
    _check_installation()
    shards_command.write_shards(config)


def _with_dataset(words: Sequence[str], command: str, extra: Path | None) -> dict[str, Any]:
    """Compose the config of a command that needs a dataset."""
    composed = compose_config(words, command, extra)
    if composed.get("dataset") is None:
        choices = ", ".join(group_choices("dataset", extra))
        raise ConfigError(f"dataset=NAME is needed, one of {choices}")
    return composed


def inspect(words: Sequence[str], *, extra: Path | None = None, augment: bool = False) -> None:
    """Scan a whole dataset and write a report."""
    given = [*words, "augment=true"] if augment else words
    config = build_dataclass(InspectConfig, _with_dataset(given, "inspect", extra))
    _check_installation()
    inspect_command.inspect(config)


def list_names(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Print what can be chosen by name: losses, models, datasets, metrics, ..."""
    if "models" in words:
        _check_installation()
    sys.stdout.write(list_choices(words, extra))


def completion(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Print a script that completes commands, keys and names in a shell."""
    sys.stdout.write(completion_script(words, list(COMMANDS), extra))


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "export": export,
    "benchmark": benchmark,
    "import": import_weights,
    "inspect": inspect,
    "shards": shards,
    "list": list_names,
    "completion": completion,
}


def _parser(command: str, program: str) -> argparse.ArgumentParser:
    choices = "\n".join(
        f"  {group + ':':14}{', '.join(group_choices(group))}"
        for group in (*SECTIONS, *PLAIN_GROUPS)
    )
    parser = argparse.ArgumentParser(
        prog=program,
        description=HELP[command].format(program=program, choices=choices),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="values that replace the defaults"
    )
    parser.add_argument("--version", action="version", version=f"segtrain {__version__}")
    parser.add_argument(
        "--config-dir", type=Path, help="a folder with your own configs, in the same groups"
    )
    if command == "inspect":
        parser.add_argument(
            "--augment", action="store_true", help="also write a sheet of augmented samples"
        )
    if command == "train":
        parser.add_argument(
            "-m",
            "--multirun",
            action="store_true",
            help="one run for each combination of a,b values",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="with -m: list the runs, and start none"
        )
        parser.add_argument(
            "--cfg", action="store_true", help="print the whole configuration and stop"
        )
    return parser


def _run(command: str, program: str, arguments: Sequence[str]) -> None:
    parser = _parser(command, program)
    check_options(arguments, _options_of(parser))
    options = parser.parse_intermixed_args(list(arguments))
    if options.config_dir is not None and not options.config_dir.is_dir():
        raise ConfigError(f"--config-dir {options.config_dir} is not a folder")
    keywords: dict[str, Any] = {} if command == "compare" else {"extra": options.config_dir}
    if command == "inspect":
        keywords.update(augment=options.augment)
    if command == "train":
        keywords.update(multirun=options.multirun, show=options.cfg, dry_run=options.dry_run)
    COMMANDS[command](options.words, **keywords)


def _options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


def _check_installation() -> None:
    """Refuse a torchvision that was compiled for another torch; its own message is unclear.

    The import takes half a second, so the configuration is checked first.
    """
    try:
        import torchvision  # noqa: F401, PLC0415
    except (RuntimeError, ImportError, OSError) as error:
        import torch  # noqa: PLC0415

        raise ResourceError(
            f"torchvision does not fit torch {torch.__version__}"
            f" ({one_line(error, 120)}); install both from one source:"
            " pip install --force-reinstall torch torchvision"
        ) from error


def run_command(
    command: str, arguments: Sequence[str] | None = None, program: str | None = None
) -> int:
    """Run a command as from a shell and return its exit code; a user's mistake prints one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    startup.let_it_raise()
    start_logging()
    try:
        with raise_on_signals():
            _run(command, program or f"python {sys.argv[0]}", arguments)
    except SegtrainError as error:
        return _fail(str(error), exit_code_of(error))
    except KeyboardInterrupt as error:
        return _fail("interrupted", exit_code_of(error))
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(f"out of memory{_LESS_MEMORY.get(command, '')}", exit_code_of(error))
        if isinstance(error, OSError):
            place = f": {error.filename}" if error.filename else ""
            return _fail(f"{error.strerror or error}{place}", exit_code_of(error))
        raise
    return 0


# The keys of each command that reduce its memory.
_LESS_MEMORY = {
    "train": "; lower trainer.batch_size, augmentation.crop_size or evaluation.size, use"
    " trainer.precision=bf16, or model.activation_checkpointing=true where the model has it",
    "evaluate": "; lower evaluation.batch_size or evaluation.size",
    "predict": "; lower size, the height and width that images are resized to",
    "export": "; lower size, the height and width that images are resized to",
    "benchmark": "; lower size or batch_sizes",
}


def _fail(message: str, code: int) -> int:
    if os.environ.get("SEGTRAIN_DEBUG") == "1" and sys.exc_info()[0] is not None:
        console.print_exception()
    # Every process finds the same mistake in a configuration; one says it.
    if code != ConfigError.exit_code or os.environ.get("LOCAL_RANK", "0") == "0":
        sys.stderr.write(f"error: {printable(message)}\n")
    return code


def main() -> int:
    """``segtrain COMMAND ...``, the command of an installed package."""
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if given == "--version":
        sys.stdout.write(f"segtrain {__version__}\n")
        return 0
    if given not in COMMANDS:
        if given in ("", "-h", "--help"):
            sys.stdout.write(_overview())
            return 0 if given else ConfigError.exit_code
        return _fail(
            f"unknown command {given!r}{did_you_mean(given, COMMANDS)}", ConfigError.exit_code
        )
    return run_command(given, sys.argv[2:], f"segtrain {given}")


def _overview() -> str:
    """The commands with what they do, for ``segtrain --help``."""
    rows = [f"  {name:11}{(do.__doc__ or '').splitlines()[0]}" for name, do in COMMANDS.items()]
    return "\n".join(
        [
            "usage: segtrain COMMAND [KEY=VALUE ...]",
            "",
            *rows,
            "",
            "segtrain COMMAND --help has examples and keys; segtrain --version prints the version.",
            "",
        ]
    )
