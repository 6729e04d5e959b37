"""Recognise the layout of a weight file by its names and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from segtrain.errors import CheckpointError
from segtrain.models.adapters import ADAPTERS
from segtrain.models.backbones.hrnet import IMAGENET_FUSION, VARIANTS, HRNetVariant
from segtrain.models.weights.files import AVERAGES, find_state, holds_weights

# Prefixes that training code adds to the names of all weights.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
# Prefixes of entries that belong to a loss, saved next to the model.
_LOSSES = ("loss.", "losses.", "criterion.", "loss_fn.")
CLASS_WEIGHTS = "loss.criterion.weight"

# The heads of segmentation models: built-in, official and of other libraries. A file with one of
# them is more than a backbone.
_OCR_PARTS = ("conv3x3_ocr.", "ocr_distri_head.", "cls_head.")
_HRNET_HEADS = ("last_layer.", "aux_head.", *_OCR_PARTS)
_HEADS = (
    *_HRNET_HEADS,
    *("head.layers.", "decode_head.", "auxiliary_head.", "aux_classifier.", "segmentation_head."),
    *("decoder.", "aux_heads.", "task_heads."),
)
# Segmentation models use this prefix for their encoder; ImageNet models do not.
_BACKBONE = "backbone."

_ALIGN_CORNERS_OF_OCR = "true in every official recipe of HRNet-OCR"
_ALIGN_CORNERS_OF_HRNET = (
    "in the official recipes of seg_hrnet false on Cityscapes, LIP and PASCAL-Context, true on"
    " ADE20K and COCO-Stuff"
)


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The content of a weight file, without wrapper prefixes.

    Attributes:
        source: The path or name of the file, as the user wrote it.
        kind: The kind of file, in words.
        state: The weights by name, without wrapper prefixes.
        has_heads: Whether the file contains more than a backbone, judging by the names.
        entry: The key, with dots, of the entry that holds the weights; empty if they are the file.
        prefix: The prefix that the names of `state` have in the file.
        outside: The names in the file that do not have this prefix.
        notes: Remarks for the report.
        is_own: Whether segtrain wrote the file.
        align_corners: The value that the weights were trained with; None if unknown.
        align_corners_hint: The values of the published recipes, if known.
        fusion: How an HRNet resized between its branches when it was trained; None if unknown.
        fits: The name of the model that the weights fit; None if unknown.
        num_classes: Number of channels of the main output; None if unknown.
        class_names: Class names in the order of the class ids; empty if unknown.
        class_weights: Class weights of the loss that the file was trained with; empty if unknown.
    """

    source: str
    kind: str
    state: Mapping[str, Tensor]
    has_heads: bool
    entry: str = ""
    prefix: str = ""
    outside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_own: bool = False
    align_corners: bool | None = None
    align_corners_hint: str | None = None
    fusion: str | None = None
    fits: str | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()


def recognise(content: Any, source: str) -> WeightFile:
    """Recognise the `content` of the file `source`.

    Args:
        content: The result of :func:`~segtrain.models.weights.files.read_weights`.
        source: The file as the user wrote it, for messages.

    Raises:
        CheckpointError: If there are no weights in it, or a checkpoint of segtrain is incomplete.

    Example:
        >>> import torch
        >>> file = recognise({"state_dict": {"module.fc.weight": torch.zeros(10, 4)}}, "a.ckpt")
        >>> file.kind, list(file.state)
        ("state dict in 'state_dict'", ['fc.weight'])
    """
    if _is_checkpoint(content):
        return _checkpoint(content, source)
    found, nesting = find_state(content, source)
    entry = ".".join(nesting)
    state, losses = split_losses(found)
    weights = losses.get(CLASS_WEIGHTS)
    kind, facts = _by_names(state)
    return WeightFile(
        source=source,
        kind=f"{kind} in {entry!r}" if entry else kind,
        state=state,
        entry=entry,
        notes=_copies_beside(content, nesting),
        class_weights=() if weights is None else tuple(weights.flatten().float().tolist()),
        **facts,
    )


def restricted(file: WeightFile, prefix: str, notes: tuple[str, ...]) -> WeightFile:
    """Return `file` with only the weights under `prefix`, recognised anew, and more `notes`.

    Example:
        >>> import torch
        >>> file = recognise({"net_a.fc.weight": torch.zeros(2), "mean": torch.zeros(3)}, "a.ckpt")
        >>> part = restricted(file, "net_a.", ())
        >>> part.kind, list(part.state), part.outside
        ("state dict under 'net_a.'", ['fc.weight'], ('mean',))
    """
    inside = {key: value for key, value in file.state.items() if key.startswith(prefix)}
    state = {key[len(prefix) :]: value for key, value in inside.items()}
    kind, facts = _by_names(state)
    place = f" in {file.entry!r}" if file.entry else ""
    facts["has_heads"] = facts["has_heads"] or file.has_heads
    return replace(
        file,
        kind=f"{kind}{place} under {prefix!r}",
        state=state,
        prefix=prefix,
        outside=tuple(key for key in file.state if key not in inside),
        notes=(*file.notes, *notes),
        **facts,
    )


def _copies_beside(content: Any, nesting: tuple[str, ...]) -> tuple[str, ...]:
    """A note on the moving averages in a file whose plain weights were read."""
    if not nesting:
        return ()
    others = [key for key in AVERAGES if key != nesting[0] and holds_weights(content.get(key))]
    if not others:
        return ()
    copies = " and ".join(map(repr, others))
    return (
        f"{nesting[0]!r} was read, not the moving average in {copies}; to load the average, save"
        " that entry as a file of its own",
    )


# ---------------------------------------------------------------------- wrappers


def split_losses(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split into the weights of the model, without wrapper prefixes, and the entries of losses.

    A wrapper prefix is removed only if all weights have it, and only from the start of the names.
    (The official code names its model ``model`` and, on loading, also removes this word from the
    middle of names.)

    Example:
        >>> import torch
        >>> zero = torch.zeros(())
        >>> state = {"model.conv.model.weight": zero, "loss.criterion.weight": zero}
        >>> [list(part) for part in split_losses(state)]
        [['conv.model.weight'], ['loss.criterion.weight']]
    """
    losses: dict[str, Tensor] = {}
    rest = dict(state)
    while True:
        kept = {key: value for key, value in rest.items() if not key.startswith(_LOSSES)}
        losses |= {key: value for key, value in rest.items() if key not in kept}
        prefix = _shared_wrapper(kept)
        if not prefix or not kept:
            return kept or rest, losses if kept else {}
        rest = {key[len(prefix) :]: value for key, value in kept.items()}


def _shared_wrapper(keys: Iterable[str]) -> str:
    keys = list(keys)
    shared = (prefix for prefix in _WRAPPERS if all(key.startswith(prefix) for key in keys))
    return next(shared, "")


def wrapper_of(keys: Iterable[str]) -> str:
    """The wrapper prefixes that all keys share.

    Example:
        >>> wrapper_of(["net.model.conv.weight", "net.model.conv.bias"])
        'net.model.'
    """
    keys, found = list(keys), ""
    while keys and (prefix := _shared_wrapper(keys)):
        found += prefix
        keys = [key[len(prefix) :] for key in keys]
    return found


# ---------------------------------------------------------------------- checkpoints of segtrain


def _is_checkpoint(content: Any) -> bool:
    return isinstance(content, Mapping) and all(
        isinstance(content.get(key), Mapping) for key in ("model", "metadata", "config")
    )


def _checkpoint(content: Mapping[str, Any], source: str) -> WeightFile:
    """Read a checkpoint of segtrain; like evaluation, prefer the moving average."""
    averaged = bool(content.get("ema"))
    state, _ = find_state(content["ema" if averaged else "model"], source)
    metadata = content["metadata"]
    model = metadata.get("model")
    if isinstance(model, Mapping) and model.get("adapter") is not None:
        state = ADAPTERS.build(model["adapter"], where=f"adapter of {source}").merged(state)
    name = model.get("name") if isinstance(model, Mapping) else None
    num_classes, align_corners = metadata.get("num_classes"), metadata.get("align_corners")
    names = metadata.get("class_names")
    if not isinstance(name, str) or not isinstance(align_corners, bool):
        raise CheckpointError(
            f"{source} is not a complete checkpoint of segtrain: its metadata lack keys"
        )
    average = ", moving average" if averaged else ""
    return WeightFile(
        source=source,
        kind=f"checkpoint of segtrain ({name}, step {content.get('step')}{average})",
        state=state,
        has_heads=True,
        is_own=True,
        align_corners=align_corners,
        fusion=_fusion(model),
        fits=name,
        num_classes=num_classes if isinstance(num_classes, int) else None,
        class_names=tuple(map(str, names)) if isinstance(names, (list, tuple)) else (),
    )


def _fusion(model: Mapping[str, Any]) -> str | None:
    """The key `fusion` of a model section or of its backbone."""
    backbone = model.get("backbone")
    found = model.get("fusion", backbone.get("fusion") if isinstance(backbone, Mapping) else None)
    return found if isinstance(found, str) else None


# ---------------------------------------------------------------------- other files


def _by_names(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """The kind of a state dict, in words, and the fields of its :class:`WeightFile`."""
    if "stage4.0.fuse_layers.0.1.0.weight" in state:
        return _hrnet(state)
    classifier = state.get("classifier.4.weight", state.get("classifier.low_classifier.weight"))
    if classifier is not None and any(key.startswith(_BACKBONE) for key in state):
        facts = {"has_heads": True, "align_corners": False, "num_classes": classifier.shape[0]}
        return "segmentation model of torchvision", facts
    return "state dict", {"has_heads": any(key.startswith((*_HEADS, _BACKBONE)) for key in state)}


def _hrnet(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    variant = variant_of(state) or "HRNet of an unpublished size"
    name = f"hrnet_{variant}" if variant in VARIANTS else variant
    fits = name if variant in VARIANTS else None
    if is_ocr(state):
        return f"HRNet-OCR ({name}_ocr)", {
            "has_heads": True,
            "align_corners_hint": _ALIGN_CORNERS_OF_OCR,
            "fusion": "bilinear",
            "fits": fits and f"{fits}_ocr",
            "num_classes": _length(state.get("cls_head.weight")),
        }
    if any(key.startswith(_HRNET_HEADS) for key in state):
        return f"HRNetV2 for segmentation ({name})", {
            "has_heads": True,
            "align_corners_hint": _ALIGN_CORNERS_OF_HRNET,
            "fusion": "bilinear",
            "fits": fits,
            "num_classes": _length(state.get("last_layer.3.weight")),
        }
    is_imagenet = any(key.startswith(("incre_modules.", "classifier.")) for key in state)
    if is_imagenet:
        return f"HRNet for ImageNet ({name})", {
            "has_heads": False,
            "fusion": IMAGENET_FUSION,
            "fits": fits,
        }
    return f"trunk of an HRNet ({name})", {"has_heads": False, "fits": fits}


def _length(weight: Tensor | None) -> int | None:
    return None if weight is None or not weight.dim() else weight.shape[0]


def is_ocr(state: Iterable[str]) -> bool:
    """Whether the weights of an HRNet include the layers of OCR."""
    return any(key.startswith(_OCR_PARTS) for key in state)


def variant_of(state: Mapping[str, Tensor]) -> str | None:
    """The name of the published HRNet variant with these weights; None if there is none.

    Example:
        >>> from segtrain.models.backbones.hrnet import HRNet
        >>> variant_of(HRNet("w18_small_v2").state_dict())
        'w18_small_v2'
    """
    first = state.get("stage2.0.branches.0.0.conv1.weight")
    stem_out = state.get("layer1.0.conv1.weight")
    if first is None or stem_out is None or not first.dim() or not stem_out.dim():
        return None
    stage2, stage3, stage4 = (_count(state, f"stage{stage}.") for stage in (2, 3, 4))
    found = HRNetVariant(
        channels=first.shape[0],
        modules=(stage2, stage3, stage4),
        blocks=_count(state, "stage2.0.branches.0."),
        stage1_blocks=_count(state, "layer1."),
        stage1_channels=stem_out.shape[0],
    )
    return next((name for name, variant in VARIANTS.items() if variant == found), None)


def _count(state: Iterable[str], prefix: str) -> int:
    """Number of children of the module list with this `prefix`."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
