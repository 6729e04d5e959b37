"""Match the names of the weights in a file to those of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.models.backbones import Backbone
from segtrain.models.segmentor import Segmentor
from segtrain.models.weights.formats import is_ocr, variant_of, wrapper_of
from segtrain.models.weights.order import BY_ORDER, compare_order
from segtrain.schema.values import did_you_mean

_BACKBONE = "backbone."
_FEATURES = "features."  # prefix of the backbone in some classifiers of torchvision
HEAD = "head"
_OCR_HEADS = ("aux_head.", "conv3x3_ocr.", "ocr_distri_head.", "cls_head.")
# The official code loads a file without OCR into HRNet-OCR completely: the head becomes the
# auxiliary head, which has the same layout. Only these modules of HRNet-OCR are not in the file.
AFTER_HRNET = ("conv3x3_ocr", "ocr_distri_head", "cls_head")


class ModelNames:
    """The names of a model's weights, and the parts of the model that they belong to.

    Attributes:
        own: All weights by name, in the order of the model.
        head: The names of the weights of heads.
        backbone_prefix: As in :class:`~segtrain.models.Segmentor`.
        outer: The wrapper prefixes that all names share.
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
        if not prefixes:  # if only the backbone has a prefix, the rest is head
            return bool(self.backbone_prefix) and not key.startswith(self.backbone_prefix)
        return key.startswith(tuple(f"{prefix}." for prefix in prefixes))

    @cached_property
    def backbone(self) -> list[str]:
        """The names of the weights that do not belong to a head."""
        return [key for key in self.own if key not in self.head]

    @property
    def of_backbone(self) -> dict[str, Tensor]:
        """The weights of the backbone by name, in its order."""
        return {key: self.own[key] for key in self.backbone}

    @cached_property
    def stem(self) -> str | None:
        """The name of the weight of the first convolution; None if there is no convolution."""
        return next((key for key in self.backbone if self.own[key].dim() == 4), None)

    @property
    def label(self) -> str:
        """Name of the model in messages."""
        variant = self.variant
        if variant is None:
            return self.model.label
        if self.backbone_prefix:
            return f"{self.model.label} with hrnet_{variant}"
        return f"hrnet_{variant}{'_ocr' if self.is_ocr else ''}"

    @cached_property
    def variant(self) -> str | None:
        """The HRNet variant of the backbone; None for other backbones."""
        start = self.backbone_prefix
        return variant_of({key.removeprefix(start): self.own[key] for key in self.backbone})

    @cached_property
    def is_ocr(self) -> bool:
        """Whether the model has the layers of OCR at its top level."""
        return is_ocr(self.own)

    def in_modules(self, given: Sequence[str], where: str) -> set[str]:
        """The names of the weights in some modules.

        Args:
            given: Modules: ``head``, ``backbone``, the name of a submodule, or a pattern of names
                such as ``backbone.layer[12]``.
            where: The key of `given` and its value, for messages.

        Raises:
            ConfigError: If a module does not exist, with the closest one.
        """
        return {key for module in given for key in self._of_module(module, where)}

    def _of_module(self, module: str, where: str) -> set[str]:
        found: set[str] = set()
        if module == HEAD:
            found |= self.head
        elif module == _BACKBONE[:-1]:
            found |= set(self.backbone)
        elif any(mark in module for mark in "*?["):
            found |= {
                key
                for key in self.own
                if fnmatchcase(key, module) or fnmatchcase(key, f"{module}.*")
            }
        for start in dict.fromkeys(("", self.backbone_prefix, self.outer)):
            name = f"{start}{module}"
            found |= {key for key in self.own if key == name or key.startswith(f"{name}.")}
        if not found:
            raise ConfigError(f"{where}: {self.label} has no module {module!r}{self._near(module)}")
        return found

    def _near(self, module: str) -> str:
        """End of the message on an unknown module: the submodules of its last known parent."""
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
    """The weights of a file that match a model.

    Attributes:
        values: The weights by their name in the model.
        used: Their names in the file.
        renamed: Descriptions of weights with another name in the file, each with the names in the
            model.
        after: The names in the file of the weights after those of the backbone, if the weights were
            matched by order.
    """

    values: dict[str, Tensor]
    used: set[str]
    renamed: dict[str, tuple[str, ...]]
    after: frozenset[str] = frozenset()


def match_names(state: Mapping[str, Tensor], names: ModelNames) -> Match:
    """Match the weights of `state` to those of the model by the rule that matches most of them.

    The rules: the names are those of the model; they lack the wrapper prefixes of the model; they
    are those of the backbone, with or without the prefix ``backbone.`` or ``features.``; they are
    those of the library that the backbone comes from. If no name matches, the weights of the
    backbone are those in the same order.
    """
    found = max(_candidates(state, names), key=len)  # the first of the longest
    if not found and names.head:
        return _match_order(state, names)
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


def _match_order(state: Mapping[str, Tensor], names: ModelNames) -> Match:
    pairs = compare_order(names.of_backbone, state).pairs
    used = set(pairs.values())
    after = frozenset(key for key in state if key not in used) if pairs else frozenset()
    return Match(
        values={our: state[their] for our, their in pairs.items()},
        used=used,
        renamed={BY_ORDER: tuple(pairs)} if pairs else {},
        after=after,
    )


def _moved(key: str, old: str, new: str) -> str:
    return f"{new}{key[len(old) :]}" if key.startswith(old) else ""


# Other names for the heads of HRNet. The first name that the model has is used, so last_layer
# becomes an auxiliary head only in a model without a head of that name.
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
    """The names in a file that cannot belong to a module of the backbone.

    A classifier is outside of the backbone. An additional block is inside: it shows that the file
    belongs to a model of another size.
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
