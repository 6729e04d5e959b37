"""Compose a configuration from the overrides of a command line, with Hydra."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from segtrain.assembly.check import SECTIONS
from segtrain.cli.foreign import check_folder, check_key
from segtrain.cli.words import check_words, expand_home, typed
from segtrain.errors import ConfigError, one_line
from segtrain.files import config_dir
from segtrain.foreign import parse_yaml, read_small_text
from segtrain.schema.origin import Origin
from segtrain.schema.plugins import load_plugins
from segtrain.schema.values import did_you_mean

# Groups whose choices are files; the other groups also take registered names.
PLAIN_GROUPS = ("augmentation", "trainer", "evaluation", "experiment", "debug")
RENAMED_BY_KEY = ("optimizer", "scheduler")  # optimizer.name=sgd means optimizer=sgd
REPLACED = ("dataset.label_map",)  # a given mapping replaces the config's instead of merging
# trainer.best=iou[pole]: Hydra reads brackets as a list unless the value is in quotes.
_CLASS_OF_METRIC = re.compile(r"^(trainer\.best)=(\w+\[[^'\]]+\])$")
# The groups of each command; commands that are not listed have only `dataset`.
_GROUPS = {
    "train": (*SECTIONS, *PLAIN_GROUPS),
    "evaluate": ("dataset", "evaluation"),
    "predict": ("evaluation",),
    "inspect": ("dataset", "augmentation"),
}


def group_choices(group: str, extra: Path | None = None) -> list[str]:
    """List the values that ``group=`` takes: the files of the group and the registered names."""
    directories = [config_dir() / group, *([extra / group] if extra else [])]
    files = {path.stem for directory in directories for path in directory.glob("*.yaml")}
    names = SECTIONS[group][0].names() if group in SECTIONS else []
    return sorted(files | set(names))


def quoted(words: Sequence[str]) -> list[str]:
    """Put quotes around values that Hydra would not read as a text.

    Example:
        >>> quoted(["trainer.best=iou[pole]", "seed=1"])
        ["trainer.best='iou[pole]'", 'seed=1']
    """
    return [_CLASS_OF_METRIC.sub(r"\1='\2'", expand_home(word)) for word in words]


def rewrite(words: Sequence[str], command: str = "train", extra: Path | None = None) -> list[str]:
    """Rewrite the user's overrides so that Hydra reads them as the user meant them.

    Hydra itself merges lists of choices, lets ``+key`` add keys that nothing reads, and advises to
    add unknown keys. Here a choice is one known name. Every other key is passed on to our own
    schema, which suggests the closest match.

    Raises:
        ConfigError: When a word is not an override, or a choice does not exist.
    """
    groups = _GROUPS.get(command, ("dataset",))
    parser = OverridesParser.create()
    rewritten = []
    check_words(words)
    for word in quoted(words):
        if word == "experiment=null":  # the same as without the word
            continue
        try:
            override = parser.parse_override(word)
        except HydraException as error:
            raise ConfigError(_unreadable(word, error)) from None
        if override.key_or_group in REPLACED and isinstance(override.value(), dict):
            rewritten.append(f"++{override.key_or_group}=null")
        rewritten.append(_rewrite_one(word, override, groups, extra))
    return rewritten


def _unreadable(word: str, error: HydraException) -> str:
    """The message about a word that Hydra's grammar cannot read."""
    key, _, value = word.partition("=")
    bare = value.strip()
    if not bare or bare[0] not in "[{":
        return (
            f"cannot read the value of {key}, {value}; if it is one text, type {typed(key, bare)}"
        )
    reason = str(error).splitlines()[0]
    return (
        f"cannot read {word!r} as key=value ({reason}); put quotes around a text in it that has"
        " other signs than letters, digits and . _ - /"
    )


def _rewrite_one(word: str, override: Override, groups: Sequence[str], extra: Path | None) -> str:
    key = override.key_or_group
    group, _, rest = key.partition(".")
    if not key:
        raise ConfigError(f"cannot read {word!r}: there is no key before the '='")
    if group == "hydra" or key.startswith("hydra/"):
        check_key(key, word)
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
            raise ConfigError(f"{word}: this command does not take {key}; leave it out")
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
        also = "; to add losses use loss=sum" if group == "loss" else ""
        raise ConfigError(f"{group}={choice}: {group} takes one name; {hint}{also}")
    choices = group_choices(group, extra)
    name = str(raw.text if isinstance(raw, QuotedString) else choice)
    if (name.lower() if group in RENAMED_BY_KEY else name) not in choices:
        if group in SECTIONS:
            raise ConfigError(SECTIONS[group][0].why_not(name, choices))
        raise ConfigError(f"unknown {group} {name!r}{did_you_mean(name, choices)}")


def plugins_in(words: Sequence[str], extra: Path | None) -> list[str]:
    """List the plugins that the overrides or the experiment name; they register further names."""
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
    """List the plugins in the file of an experiment."""
    for directory in (extra, config_dir()):
        path = directory / "experiment" / f"{experiment}.yaml" if directory else None
        if path is None or not path.is_file():
            continue
        try:
            content = parse_yaml(read_small_text(path))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} is not valid YAML: {one_line(error)}") from None
        if content is not None and not isinstance(content, dict):
            raise ConfigError(f"{path} must be a mapping of keys")
        plugins = (content or {}).get("plugins") or []
        if not isinstance(plugins, list):
            raise ConfigError(f"{path}: plugins must be a list, got {plugins!r}")
        return [str(item) for item in plugins]
    return []


def _offer_registered_names() -> None:
    """Let Hydra choose every registered part by name, also those without a config file."""
    store = ConfigStore.instance()
    for group, (registry, _) in SECTIONS.items():
        for name in registry.names():
            if not (config_dir() / group / f"{name}.yaml").is_file():
                store.store(group=group, name=name, node={"name": name})


def search_path(extra: Path | None) -> list[str]:
    """The override that lets Hydra also find the configs in the folder `extra`."""
    return [f"hydra.searchpath=[file://{extra.resolve()}]"] if extra else []


def compose_config(
    words: Sequence[str], command: str = "train", extra: Path | None = None
) -> dict[str, Any]:
    """Compose the config of `command` with the user's overrides, as nested plain values.

    See :func:`compose_run`.
    """
    return compose_run(words, command, extra)[0]


def compose_run(
    words: Sequence[str], command: str = "train", extra: Path | None = None
) -> tuple[dict[str, Any], Origin]:
    """Compose the config of `command`, and return what it was composed of.

    Names of choices are checked here; keys and values are checked by
    :func:`~segtrain.assembly.check.check_config`.

    Args:
        words: Overrides such as ``loss=focal`` and ``loss.gamma=3``.
        command: The name of a file directly in ``configs/``.
        extra: A folder of the user's own configs.

    Raises:
        ConfigError: When Hydra cannot compose them, or a choice does not exist.
    """
    if extra is not None:
        check_folder(extra)
    load_plugins(plugins_in(words, extra))
    _offer_registered_names()
    overrides = rewrite(words, command, extra)
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            given = str(override.input_line).lstrip("+")
            key, _, value = given.partition("=")
            raise ConfigError(
                f"{given} has several values: add -m to start a run for each, or, if it is one"
                f" text, type {typed(key, value)}"
            )
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose(
                command, overrides=[*overrides, *search_path(extra)], return_hydra_config=True
            )
        choices = config.hydra.runtime.choices
        with read_write(config), open_dict(config):
            del config["hydra"]
        return to_plain(config), origin_of(words, choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(hydra_message(error)) from error


def origin_of(words: Sequence[str], choices: Mapping[str, str | None]) -> Origin:
    """What a run was composed of: the user's words, and the choice of each group."""
    chosen = {group: name for group, name in choices.items() if name and "/" not in group}
    return Origin(overrides=tuple(words), choices=chosen)


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a Hydra config into nested plain values, without Hydra's own section."""
    _refuse_resolvers(OmegaConf.to_container(config, resolve=False))
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


# An interpolation with a colon calls a resolver: ${oc.env:HOME}. One without names another key.
_RESOLVER = re.compile(r"\$\{[^{}]*?(?:\$\{.*?\}[^{}]*?)*:")


def _refuse_resolvers(value: Any, key: str = "") -> None:
    """Refuse resolvers, which would write variables of the environment into configs.

    Raises:
        ConfigError: When a text calls one, with its key.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_resolvers(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_resolvers(item, f"{key}[{index}]")
    elif isinstance(value, str) and _RESOLVER.search(value):
        raise ConfigError(
            f"{key}={value}: resolvers such as oc.env are not allowed, since their values would be"
            " written into config.yaml and checkpoints; write the value itself, or refer to another"
            " key, as in ${dataset.root}"
        )


def hydra_message(error: BaseException) -> str:
    """The message of an error of Hydra or OmegaConf on one line."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if "Cannot merge DictConfig with ListConfig" in str(cause):
        key = getattr(cause, "full_key", None) or "a key of the config"
        return f"{key} is a mapping of keys and cannot be set to a list: set {key}.KEY=VALUE"
    if isinstance(cause, MissingMandatoryValue) and cause.full_key:
        return f"{cause.full_key} has no default here: add {cause.full_key}=VALUE"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    return " ".join(line.strip() for line in str(cause).splitlines() if line.strip())
