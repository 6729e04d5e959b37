"""What can be chosen by name, for people and for a shell that completes words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segtrain.assembly.check import SECTIONS
from segtrain.cli.compose import PLAIN_GROUPS, compose_config, group_choices, plugins_in
from segtrain.commands import list_models as list_command
from segtrain.engine.hooks import HOOKS
from segtrain.errors import ConfigError
from segtrain.files import config_dir
from segtrain.metrics import METRICS, list_metrics
from segtrain.models.build import list_backbones, list_heads
from segtrain.models.table import model_specs
from segtrain.schema.plugins import load_plugins
from segtrain.schema.registry import Registry
from segtrain.schema.values import did_you_mean

_WIDTH = 34
_SHELLS = ("bash", "zsh")
_SCRIPT = """\
# Completion of segtrain. In ~/.bashrc or ~/.zshrc: eval "$(segtrain completion {shell})"
{start}_segtrain() {{
    local cur="${{COMP_LINE:0:$COMP_POINT}}" cut=""
    cur="${{cur##* }}"
    case "$cur" in *=*) cut="${{cur%%=*}}=" ;; esac
    local words="{words}"
    [ "$COMP_CWORD" = 1 ] && words="{commands}"
    COMPREPLY=( $(compgen -W "$words" -- "$cur") )
    COMPREPLY=( "${{COMPREPLY[@]#$cut}}" )
}}
complete -o nospace -F _segtrain segtrain
"""


def list_choices(words: Sequence[str], extra: Path | None = None) -> str:
    """Return the choices of every group, or of one group with a line about each choice.

    Args:
        words: Nothing, ``models``, the name of a group in the singular or the plural, and
            ``plugins=[...]``.
        extra: A folder of the user's own configs.

    Raises:
        ConfigError: When a word is not a group.
    """
    load_plugins(plugins_in(words, extra))
    wanted = [word for word in words if not word.startswith("plugins=")]
    groups = _groups(extra)
    if not wanted:
        lines = [f"{name}: {', '.join(choices)}" for name, choices in groups.items()]
        return "\n".join([*lines, ""])
    if wanted == ["models"]:
        folders = [config_dir(), *([extra] if extra else [])]
        list_command.list_models(model_specs(*(folder / "model" for folder in folders)))
        return ""
    plurals = {_plural(name): name for name in groups}
    known = {**plurals, **{name.rpartition(".")[2]: name for name in groups}}
    if len(wanted) > 1 or wanted[0] not in known:
        raise ConfigError(
            f"list takes one group and plugins=[...], got {' '.join(wanted)!r}"
            f"{did_you_mean(wanted[0], plurals)}"
        )
    group = known[wanted[0]]
    rows = [f"{name:{_WIDTH}}{_summary(group, name, extra)}".rstrip() for name in groups[group]]
    return "\n".join([*rows, ""])


def completion_script(words: Sequence[str], commands: Sequence[str], extra: Path | None) -> str:
    """Return a script that completes commands, keys, and choices such as ``loss=focal``.

    Raises:
        ConfigError: When the words are not the name of a shell.
    """
    if len(words) != 1 or words[0] not in _SHELLS:
        raise ConfigError(f"completion takes the name of a shell, {' or '.join(_SHELLS)}")
    chosen = [
        f"{group}={name}"
        for group in (*SECTIONS, *PLAIN_GROUPS)
        for name in group_choices(group, extra)
    ]
    config = compose_config([], "train", extra)
    keys = [
        f"{section}.{key}="
        for section, values in config.items()
        if isinstance(values, dict)
        for key in values
        if key != "name"
    ]
    start = "autoload -U +X bashcompinit && bashcompinit\n" if words[0] == "zsh" else ""
    return _SCRIPT.format(
        shell=words[0], start=start, words=" ".join([*chosen, *keys]), commands=" ".join(commands)
    )


def _groups(extra: Path | None) -> dict[str, list[str]]:
    backbones = [*list_backbones(), "timm/<name>", "torchvision/<name>"]
    return {
        **{group: group_choices(group, extra) for group in (*SECTIONS, *PLAIN_GROUPS)},
        "model.backbone": backbones,
        "model.head": list_heads(),
        "evaluation.metrics": list_metrics(),
        "hooks": HOOKS.names(),
    }


def _plural(group: str) -> str:
    name = group.rpartition(".")[2]
    if name.endswith("s"):
        return name if name in ("metrics", "hooks") else f"{name}es"
    return name if name in ("augmentation", "evaluation") else f"{name}s"


def _summary(group: str, name: str, extra: Path | None) -> str:
    """The first sentence about a choice: the comment of its file, or the docstring of its part."""
    for folder in (extra, config_dir()):
        path = folder / group / f"{name}.yaml" if folder else None
        if path is not None and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            first = next((line for line in lines if not line.startswith("# @package")), "")
            if first.startswith("# "):
                return first.removeprefix("# ").partition(". ")[0].rstrip(".")
    others: dict[str, Registry[Any]] = {"evaluation.metrics": METRICS, "hooks": HOOKS}
    registry = others.get(group) or SECTIONS.get(group, (None,))[0]
    if registry is None or name not in registry.names():
        return ""
    factory: Callable[..., object] = registry.get(name)
    return (inspect.getdoc(factory) or "").partition("\n")[0].rstrip(".")
