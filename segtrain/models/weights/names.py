"""Which weight of a file belongs to which weight of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.models.backbones import Backbone
from segtrain.models.segmentor import Segmentor
from segtrain.models.weights.formats import is_ocr, variant_of, wrapper_of
from segtrain.schema.values import did_you_mean

_BACKBONE = "backbone."
_FEATURES = "features."  # what the classifiers of torchvision call their backbone, where they do
HEAD = "head"
_OCR_HEADS = ("aux_head.", "conv3x3_ocr.", "ocr_distri_head.", "cls_head.")
# What the official code loads into HRNet-OCR of a file without OCR: the whole of it, its head as
# the auxiliary one, which has the same layout.
AFTER_HRNET = ("conv3x3_ocr", "ocr_distri_head", "cls_head")


class ModelNames:
    """The names of a model's weights, and what they are part of.

    Attributes:
        own: Every weight by name, in the order of the model.
        head: The names that belong to heads.
        backbone_prefix: As in :class:`~segtrain.models.Segmentor`.
        outer: The wrapper names that all of them start with.
    """

    def __init__(self, model: Segmentor) -> None:
        self.model = model
        self.own: dict[str, Tensor] = {
            key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)
        }
        self.backbone_prefix = model.backbone_prefix
        self.head = {key for key in self.own if self._is_head(key)}
        self.outer = wrapper_of(self.own)

    def _is_head(self, key: str) -> bool:
        prefixes = self.model.head_prefixes
        if not prefixes:  # whoever names the backbone alone means that the rest is head
            return bool(self.backbone_prefix) and not key.startswith(self.backbone_prefix)
        return key.startswith(tuple(f"{prefix}." for prefix in prefixes))

    @cached_property
    def backbone(self) -> list[str]:
        """The names of what is no head."""
        return [key for key in self.own if key not in self.head]

    @cached_property
    def stem(self) -> str | None:
        """The first convolution: the one that sees the channels of the images."""
        return next((key for key in self.backbone if self.own[key].dim() == 4), None)

    @property
    def label(self) -> str:
        """What the model is, for messages."""
        variant = self.variant
        if variant is None:
            return self.model.label
        if self.backbone_prefix:
            return f"{self.model.label} with hrnet_{variant}"
        return f"hrnet_{variant}{'_ocr' if self.is_ocr else ''}"

    @cached_property
    def variant(self) -> str | None:
        """The HRNet variant of the backbone; None for others."""
        start = self.backbone_prefix
        return variant_of({key.removeprefix(start): self.own[key] for key in self.backbone})

    @cached_property
    def is_ocr(self) -> bool:
        """Whether the model itself has the layers of OCR."""
        return is_ocr(self.own)

    def reinitialised(self, given: Sequence[str], where: str) -> set[str]:
        """The names that the modules `given` own.

        Args:
            given: ``head``, ``backbone``, or any submodule.
            where: The key that they stand at, for messages.

        Raises:
            ConfigError: When a module does not exist, with the closest one that does.
        """
        return {key for module in given for key in self._of_module(module, where)}

    def _of_module(self, module: str, where: str) -> set[str]:
        found: set[str] = set()
        if module == HEAD:
            found |= self.head
        elif module == _BACKBONE[:-1]:
            found |= set(self.backbone)
        for start in dict.fromkeys(("", self.backbone_prefix, self.outer)):
            name = f"{start}{module}"
            found |= {key for key in self.own if key == name or key.startswith(f"{name}.")}
        if not found:
            raise ConfigError(f"{where}: {self.label} has no module {module!r}{self._near(module)}")
        return found

    def _near(self, module: str) -> str:
        """The end of an "unknown module" sentence: what the last known part of the name holds."""
        parts, parent = module.split("."), ""
        while len(parts) > 1 and any(key.startswith(f"{parent}{parts[0]}.") for key in self.own):
            parent += f"{parts.pop(0)}."
        children = [
            parent + key[len(parent) :].split(".")[0] for key in self.own if key.startswith(parent)
        ]
        known = dict.fromkeys([*children, *([HEAD] if self.head and not parent else [])])
        return did_you_mean(module, known)


@dataclass(frozen=True)
class Match:
    """Weights of a file under the names of a model.

    Attributes:
        values: By name in the model.
        used: The names in the file that they had.
        renamed: Heads that have another name in the file: in words, with the names in the model.
    """

    values: dict[str, Tensor]
    used: set[str]
    renamed: dict[str, tuple[str, ...]]


def match_names(state: Mapping[str, Tensor], names: ModelNames) -> Match:
    """The weights of `state` that the model has a name for, by whichever rule names most of them.

    The rules: the names are those of the model; or lack the wrappers that the model has; or are
    those of its backbone, with or without ``backbone.`` or ``features.`` before them; or those of
    the library that the backbone comes from.
    """
    found = max(_candidates(state, names), key=len)  # the first of the longest
    used_ids = {id(value) for value in found.values()}
    used = {key for key, value in state.items() if id(value) in used_ids}
    renamed: dict[str, tuple[str, ...]] = {}
    for rule, rename in _HEAD_RULES.items():
        moved = {rename(key): key for key in state if key not in used}
        moved = {new: key for new, key in moved.items() if new in names.own and new not in found}
        if moved:
            found |= {new: state[key] for new, key in moved.items()}
            used |= set(moved.values())
            renamed[rule] = tuple(moved)
    return Match(found, used, renamed)


def _candidates(state: Mapping[str, Tensor], names: ModelNames) -> list[dict[str, Tensor]]:
    start = names.backbone_prefix
    rules: list[Callable[[str], str]] = [
        lambda key: key,
        lambda key: f"{names.outer}{key}",
        lambda key: f"{start}{key}",
        lambda key: f"{start}{key.removeprefix(_BACKBONE)}",
        lambda key: f"{start}{key.removeprefix(_FEATURES)}",
    ]
    found = [
        {new: value for key, value in state.items() if (new := rule(key)) in names.own}
        for rule in rules
    ]
    backbone = getattr(names.model, "backbone", None)
    if isinstance(backbone, Backbone):
        plain = {key.removeprefix(_BACKBONE): value for key, value in state.items()}
        own = backbone.from_library(plain)
        found.append({f"{start}{key}": value for key, value in own.items()})
    return found


def _moved(key: str, old: str, new: str) -> str:
    return f"{new}{key[len(old) :]}" if key.startswith(old) else ""


# The heads of HRNet in other places. The first that the model has a place for wins, so last_layer
# becomes an auxiliary head only in a model that has no head of that name.
_HEAD_RULES: dict[str, Callable[[str], str]] = {
    "last_layer is head.layers": lambda key: _moved(key, "last_layer.", "head.layers."),
    "head.layers is last_layer": lambda key: _moved(key, "head.layers.", "last_layer."),
    "the layers of OCR are in head": lambda key: (
        f"head.{key}" if key.startswith(_OCR_HEADS) else ""
    ),
    "the layers of OCR are out of head": lambda key: _moved(key, "head.", ""),
    "last_layer is aux_head": lambda key: _moved(key, "last_layer.", "aux_head."),
    "last_layer is head.aux_head": lambda key: _moved(key, "last_layer.", "head.aux_head."),
}


def outside_backbone(keys: Iterable[str], names: ModelNames) -> set[str]:
    """Those of `keys`, names in a file, that no module of the backbone could own.

    A classifier is outside. A block more than the backbone has is inside: it shows that the file is
    one of another size.
    """
    inner = [key[len(names.backbone_prefix) :] for key in names.backbone]
    start = len(wrapper_of(inner))
    modules = {key[start:].split(".")[0] for key in inner}

    def is_outside(key: str) -> bool:
        first, second = [*key.split("."), ""][:2]
        # timm writes stages.0 as stages_0 where it returns features.
        return first not in modules and f"{first}_{second}" not in modules

    return {
        key
        for key in keys
        if all(is_outside(key.removeprefix(prefix)) for prefix in ("", _BACKBONE, _FEATURES))
    }
