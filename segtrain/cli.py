"""The commands, and the only file that knows Hydra: from what a user types to a checked config."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape
from rich.table import Table

from segtrain import commands
from segtrain.check import SECTIONS, check_config, check_criterion
from segtrain.config import (
    Config,
    EvaluateConfig,
    ImportConfig,
    InspectConfig,
    PredictConfig,
    ShardsConfig,
)
from segtrain.errors import (
    ConfigError,
    ResourceError,
    SegtrainError,
    is_out_of_memory,
    printable,
)
from segtrain.files import config_dir
from segtrain.help import HELP
from segtrain.importer import complete
from segtrain.models.build import list_backbones, list_heads
from segtrain.models.table import model_specs
from segtrain.models.weights import list_of
from segtrain.plugins import load_plugins
from segtrain.schema import build_dataclass, did_you_mean
from segtrain.terminal import console, start_logging

PLAIN_GROUPS = (
    "augmentation",
    "trainer",
    "experiment",
)  # chosen by file; the other groups also by registered name
RENAMED_BY_KEY = ("optimizer", "scheduler")  # optimizer.name=sgd is as good as optimizer=sgd
REPLACED = ("dataset.label_map",)  # a mapping that takes the place of the config's, not part of it
MAX_CHECKED_JOBS = 200
_GROUPS = {
    "train": (*SECTIONS, *PLAIN_GROUPS),
    "inspect": ("dataset", "augmentation"),
}  # that a command has; the others have the dataset alone


# ---------------------------------------------------------------------- what a user may type


def group_choices(group: str, extra: Path | None = None) -> list[str]:
    """What ``group=`` takes: the files of the config group and the registered names."""
    directories = [config_dir() / group, *([extra / group] if extra else [])]
    files = {path.stem for directory in directories for path in directory.glob("*.yaml")}
    names = SECTIONS[group][0].names() if group in SECTIONS else []
    return sorted(files | set(names))


def rewrite(words: Sequence[str], command: str = "train", extra: Path | None = None) -> list[str]:
    """Overrides that Hydra will take exactly as the user meant them, or one sentence why not.

    Hydra merges lists of choices, lets ``+key`` add keys that nothing reads, and rejects unknown
    keys with advice to add them. Here a choice is one known name, and every other key goes to our
    own schema, which knows the closest match.

    Raises:
        ConfigError: On a word that is no override, or a choice that does not exist.
    """
    groups = _GROUPS.get(command, ("dataset",))
    parser = OverridesParser.create()
    rewritten = []
    for word in words:
        if word == "experiment=null":  # no experiment is what there is without it
            continue
        try:
            override = parser.parse_override(word)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"cannot read {word!r} as key=value ({reason}); put quotes around unusual values"
            ) from None
        if override.key_or_group in REPLACED and isinstance(override.value(), dict):
            rewritten.append(f"++{override.key_or_group}=null")
        rewritten.append(_rewrite_one(word, override, groups, extra))
    return rewritten


def _rewrite_one(word: str, override: Override, groups: Sequence[str], extra: Path | None) -> str:
    key = override.key_or_group
    group, _, rest = key.partition(".")
    if not key:
        raise ConfigError(f"cannot read {word!r}: there is no key before the '='")
    if group == "hydra" or key.startswith("hydra/"):
        return word
    if rest == "name" and group in SECTIONS and group in groups:
        if group not in RENAMED_BY_KEY:
            value = override.get_value_element_as_str()
            raise ConfigError(
                f"{key}={value}: choose a {group} with {group}={value}, which also brings its own"
                " parameters"
            )
        key = group
    if override.type is OverrideType.DEL:
        if key in groups:
            raise ConfigError(
                f"{word}: {key} cannot be left out; choose one of"
                f" {', '.join(group_choices(key, extra))}"
            )
        return word
    sweep = override.is_sweep_override()
    value = word.partition("=")[2] if sweep else override.get_value_element_as_str()
    if key not in groups:
        if key in _GROUPS["train"]:
            raise ConfigError(f"{word}: this command takes no {key}, so leave it out")
        return f"++{key}={value}"
    for choice in override.sweep_string_iterator() if sweep else [value]:
        _check_choice(key, override, choice, extra)
    return f"{key}={value.lower()}" if key in RENAMED_BY_KEY else f"{key}={value}"


def _check_choice(group: str, override: Override, choice: str, extra: Path | None) -> None:
    raw = override.value()
    if isinstance(raw, (list, dict)):
        hint = (
            f"to try several use -m {group}={','.join(map(str, raw))}"
            if isinstance(raw, list)
            else f"set {group}.KEY=VALUE"
        )
        also = "; to add losses up use loss=sum" if group == "loss" else ""
        raise ConfigError(f"{group}={choice}: {group} takes one name; {hint}{also}")
    choices = group_choices(group, extra)
    name = str(raw.text if isinstance(raw, QuotedString) else choice)
    if (name.lower() if group in RENAMED_BY_KEY else name) not in choices:
        if group in SECTIONS:
            raise ConfigError(SECTIONS[group][0].why_not(name, choices))
        raise ConfigError(f"unknown {group} {name!r}{did_you_mean(name, choices)}")


def _plugins_in(words: Sequence[str], extra: Path | None) -> list[str]:
    """The plugins that the words or the experiment name; loaded before names are looked up."""
    found: list[str] = []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key == "plugins":
            try:
                given = OverridesParser.create().parse_override(word).value()
            except HydraException:
                raise ConfigError(
                    f"{word}: plugins takes a list, as in plugins=[my_losses.py]"
                ) from None
            if not isinstance(given, list):
                raise ConfigError(f"plugins must be a list, as in plugins=[{value}]")
            found += [str(item.text if isinstance(item, QuotedString) else item) for item in given]
        if key == "experiment":
            found += _plugins_of(value, extra)
    return found


def _plugins_of(experiment: str, extra: Path | None) -> list[str]:
    """The plugins that an experiment's file names."""
    for directory in (extra, config_dir()):
        path = directory / "experiment" / f"{experiment}.yaml" if directory else None
        if path is None or not path.is_file():
            continue
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
        if content is not None and not isinstance(content, dict):
            raise ConfigError(f"{path} must be a mapping of keys")
        plugins = (content or {}).get("plugins") or []
        if not isinstance(plugins, list):
            raise ConfigError(f"{path}: plugins must be a list, got {plugins!r}")
        return [str(item) for item in plugins]
    return []


def _offer_registered_names() -> None:
    """Let Hydra choose every registered part by name, with or without a file of its own."""
    store = ConfigStore.instance()
    for group, (registry, _) in SECTIONS.items():
        for name in registry.names():
            if not (config_dir() / group / f"{name}.yaml").is_file():
                store.store(group=group, name=name, node={"name": name})


def _search_path(extra: Path | None) -> list[str]:
    return [f"hydra.searchpath=[file://{extra.resolve()}]"] if extra else []


def compose_config(
    words: Sequence[str], command: str = "train", extra: Path | None = None
) -> dict[str, Any]:
    """Plain nested values from the config of `command` and the user's words; names are checked.

    Raises:
        ConfigError: On anything that Hydra or our own reading refuses.
    """
    load_plugins(_plugins_in(words, extra))
    _offer_registered_names()
    overrides = rewrite(words, command, extra)
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            given = str(override.input_line).lstrip("+")
            raise ConfigError(f"{given} names several values: add -m for one run each")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose(command, overrides=[*overrides, *_search_path(extra)])
        return _plain(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def _one_line(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if "Cannot merge DictConfig with ListConfig" in str(cause):
        key = getattr(cause, "full_key", None) or "a key of the config"
        return f"{key} is a mapping of keys, so no list can be given for it: set {key}.KEY=VALUE"
    return " ".join(line.strip() for line in str(cause).splitlines() if line.strip())


# ---------------------------------------------------------------------- the commands


def train(
    words: Sequence[str], *, multirun: bool = False, extra: Path | None = None, show: bool = False
) -> None:
    """Train one model, or with `multirun` one for each combination of values."""
    if multirun and show:
        raise ConfigError("--cfg prints one configuration; leave -m out")
    if multirun:
        _train_many(words, extra)
        return
    config = check_config(compose_config(words, "train", extra))
    if show:
        check_criterion(config)
        sys.stdout.write(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))
        return
    commands.train(config)


def _train_many(words: Sequence[str], extra: Path | None) -> None:
    """Run Hydra's sweeper over the jobs; each is checked before the first one starts."""
    for job in _jobs(words, extra):
        check_config(compose_config(job, "train", extra))
    table = Table("overrides", "mIoU", "run directory", title="sweep", title_justify="left")

    def run_job(raw: DictConfig) -> None:
        config = check_config(_plain(raw))
        hydra_config = HydraConfig.get()
        result = commands.train(_in_own_directory(config, hydra_config.job.num))
        label = escape(" ".join(word.lstrip("+") for word in hydra_config.overrides.task))
        table.add_row(
            label,
            f"{result['mIoU']:.4f}" if result.get("mIoU") is not None else "n/a",
            result["run_dir"],
        )

    os.environ["HYDRA_FULL_ERROR"] = (
        "1"  # errors come to us as they are, and we say them in one line
    )
    sys.argv = [sys.argv[0], "--multirun", *rewrite(words, "train", extra), *_search_path(extra)]
    GlobalHydra.instance().clear()
    try:
        hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")(
            run_job
        )()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error
    if table.row_count:
        console.print(table)


def _in_own_directory(config: Config, number: int) -> Config:
    return (
        config
        if config.run_dir is None
        else replace(config, run_dir=str(Path(config.run_dir) / str(number)))
    )


def _jobs(words: Sequence[str], extra: Path | None) -> Iterable[list[str]]:
    """The overrides of each job of a sweep over plain choices; none when a range is involved."""
    load_plugins(_plugins_in(words, extra))
    choices = []
    for word, override in zip(
        words, OverridesParser.create().parse_overrides(list(words)), strict=True
    ):
        if override.is_sweep_override() and not override.is_discrete_sweep():
            return []
        key = (
            override.input_line.partition("=")[0] if override.input_line else override.key_or_group
        )
        values = override.sweep_string_iterator() if override.is_sweep_override() else None
        choices.append([word] if values is None else [f"{key}={value}" for value in values])
    return [list(job) for job in itertools.islice(itertools.product(*choices), MAX_CHECKED_JOBS)]


def evaluate(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Score a checkpoint on a split."""
    commands.evaluate(build_dataclass(EvaluateConfig, compose_config(words, "evaluate", extra)))


def predict(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Write masks for the images of a folder."""
    commands.predict(build_dataclass(PredictConfig, compose_config(words, "predict", extra)))


def import_weights(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Write weights of other code as a checkpoint; prints the class weights found beside them."""
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    dataset = [] if keys & {"dataset", "experiment"} else ["dataset=folder"]
    composed = compose_config([*dataset, *words], "train", extra)
    own = {
        field.name: composed.pop(field.name)
        for field in fields(ImportConfig)
        if field.name in composed
    }
    given = build_dataclass(ImportConfig, own)
    raw = complete(composed, given.weights, model_given=bool(keys & {"model", "experiment"}))
    report = commands.import_weights(given, check_config(raw))
    if report.class_weights:
        sys.stdout.write(f"loss.class_weights={list_of(report.class_weights)}\n")


def shards(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Write a split of a dataset as tar shards."""
    commands.write_shards(build_dataclass(ShardsConfig, _with_dataset(words, "shards", extra)))


def _with_dataset(words: Sequence[str], command: str, extra: Path | None) -> dict[str, Any]:
    """The composed config of a command that is nothing without a dataset."""
    composed = compose_config(words, command, extra)
    if composed.get("dataset") is None:
        choices = ", ".join(group_choices("dataset", extra))
        raise ConfigError(f"dataset=NAME is needed, one of {choices}")
    return composed


def inspect(words: Sequence[str], *, extra: Path | None = None, augment: bool = False) -> None:
    """Look at a whole dataset and write a report."""
    given = [*words, "augment=true"] if augment else words
    commands.inspect(build_dataclass(InspectConfig, _with_dataset(given, "inspect", extra)))


def list_names(words: Sequence[str], *, extra: Path | None = None) -> None:
    """Print what each group offers, or with the word ``models`` what each model costs."""
    others = [word for word in words if not word.startswith("plugins=")]
    if others not in ([], ["models"]):
        raise ConfigError(
            f"list takes the word models, plugins=[...] and nothing else, got {others[-1]!r}"
        )
    load_plugins(_plugins_in(words, extra))
    if others:
        folders = [config_dir(), *([extra] if extra else [])]
        commands.list_models(model_specs(*(folder / "model" for folder in folders)))
        return
    for group in (*SECTIONS, *PLAIN_GROUPS):
        sys.stdout.write(f"{group}: {', '.join(group_choices(group, extra))}\n")
    backbones = [*list_backbones(), "timm/<name>", "torchvision/<name>"]
    for key, names in (("model.backbone", backbones), ("model.head", list_heads())):
        sys.stdout.write(f"{key}: {', '.join(names)}\n")


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "import": import_weights,
    "inspect": inspect,
    "shards": shards,
    "list": list_names,
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
        "words", nargs="*", metavar="KEY=VALUE", help="what differs from the default"
    )
    parser.add_argument(
        "--config-dir", type=Path, help="a folder of your own configs, in the same groups"
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
            "--cfg", action="store_true", help="print the whole configuration and stop"
        )
    return parser


def _run(command: str, program: str, arguments: Sequence[str]) -> None:
    _check_installation()
    parser = _parser(command, program)
    options = parser.parse_intermixed_args(list(arguments))
    if options.config_dir is not None and not options.config_dir.is_dir():
        raise ConfigError(f"--config-dir {options.config_dir} is no folder")
    keywords: dict[str, Any] = {"extra": options.config_dir}
    if command == "inspect":
        keywords.update(augment=options.augment)
    if command == "train":
        keywords.update(multirun=options.multirun, show=options.cfg)
    COMMANDS[command](options.words, **keywords)


def _check_installation() -> None:
    """Refuse a torchvision compiled for another torch: its own message names only an operator."""
    try:
        import torchvision  # noqa: F401, PLC0415
    except (RuntimeError, ImportError, OSError) as error:
        import torch  # noqa: PLC0415

        raise ResourceError(
            f"torchvision does not fit torch {torch.__version__}"
            f" ({' '.join(str(error).split())[:120]}); install both from one source:"
            " pip install --force-reinstall torch torchvision"
        ) from error


def run_command(
    command: str, arguments: Sequence[str] | None = None, program: str | None = None
) -> int:
    """Run a command as from a shell; returns its exit code. A mistake ends in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    start_logging()
    try:
        _run(command, program or f"python {sys.argv[0]}", arguments)
    except SegtrainError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(f"out of memory{_LESS_MEMORY.get(command, '')}", ResourceError.exit_code)
        if isinstance(error, OSError):
            place = f": {error.filename}" if error.filename else ""
            return _fail(f"{error.strerror or error}{place}", ResourceError.exit_code)
        raise
    return 0


# The keys of each command that make it need less.
_LESS_MEMORY = {
    "train": "; lower trainer.batch_size, augmentation.crop_size or evaluation.size, use"
    " trainer.precision=bf16, or model.activation_checkpointing=true where the model has it",
    "evaluate": "; lower evaluation.batch_size or evaluation.size",
    "predict": "; lower size, the height and width that images are resized to",
}


def _fail(message: str, code: int) -> int:
    if os.environ.get("SEGTRAIN_DEBUG") == "1" and sys.exc_info()[0] is not None:
        console.print_exception()
    sys.stderr.write(f"error: {printable(message)}\n")
    return code


def main() -> int:
    """``segtrain COMMAND ...``, the command of an installed package."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        given = sys.argv[1] if len(sys.argv) > 1 else ""
        sys.stdout.write("usage: segtrain {" + ",".join(COMMANDS) + "} [KEY=VALUE ...]\n")
        if given in ("-h", "--help"):
            return 0
        return _fail(
            f"unknown command {given!r}{did_you_mean(given, COMMANDS)}", ConfigError.exit_code
        )
    command = sys.argv[1]
    return run_command(command, sys.argv[2:], f"segtrain {command}")
