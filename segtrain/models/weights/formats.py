"""What a file of weights is, by the names and shapes in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from segtrain.errors import CheckpointError
from segtrain.models.backbones.hrnet import VARIANTS, HRNetVariant
from segtrain.models.weights.files import find_state

# Names that training code puts before every weight of the model that it holds.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
# What training code keeps of its losses beside the model.
_LOSSES = ("loss.", "losses.", "criterion.", "loss_fn.")
CLASS_WEIGHTS = "loss.criterion.weight"

# The heads of segmentation models, ours, the official ones and those of other libraries. A file
# that has one of them is no backbone alone.
_OCR_PARTS = ("conv3x3_ocr.", "ocr_distri_head.", "cls_head.")
_HRNET_HEADS = ("last_layer.", "aux_head.", *_OCR_PARTS)
_HEADS = (
    *_HRNET_HEADS,
    *("head.layers.", "decode_head.", "auxiliary_head.", "aux_classifier.", "segmentation_head."),
    *("decoder.", "aux_heads.", "task_heads."),
)
# Segmentation models keep their encoder under this name; an ImageNet model has no need to.
_BACKBONE = "backbone."

_ALIGN_CORNERS_OF_OCR = "true in every official recipe of HRNet-OCR"
_ALIGN_CORNERS_OF_HRNET = (
    "in the official recipes of seg_hrnet false on Cityscapes, LIP and PASCAL-Context, true on"
    " ADE20K and COCO-Stuff"
)


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """What a file of weights holds, under the names that the model itself gives them.

    Attributes:
        source: What the user calls it.
        kind: What it is, in words.
        state: The weights, without the names of wrappers before them.
        has_heads: Whether it holds more than a backbone, as far as the names tell.
        is_own: Whether segtrain wrote it.
        align_corners: The convention that it was trained with; None when the file cannot tell.
        align_corners_hint: The conventions of the published recipes, where they are known.
        fits: The name of the model that it fits; None when nobody knows.
        num_classes: Channels of its main output; None when nobody knows.
        class_names: In the order of the class ids; empty when it cannot tell.
        class_weights: Of the loss it was trained with; empty without any.
    """

    source: str
    kind: str
    state: Mapping[str, Tensor]
    has_heads: bool
    is_own: bool = False
    align_corners: bool | None = None
    align_corners_hint: str | None = None
    fits: str | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()


def recognise(content: Any, source: str) -> WeightFile:
    """What `content`, read from the file that the user calls `source`, is.

    Raises:
        CheckpointError: When it holds no weights.

    Example:
        >>> import torch
        >>> file = recognise({"state_dict": {"module.fc.weight": torch.zeros(10, 4)}}, "a.ckpt")
        >>> file.kind, list(file.state)
        ("state dict in 'state_dict'", ['fc.weight'])
    """
    if _is_checkpoint(content):
        return _checkpoint(content, source)
    found, nesting = find_state(content, source)
    state, losses = split_losses(found)
    weights = losses.get(CLASS_WEIGHTS)
    kind, facts = _by_names(state)
    return WeightFile(
        source=source,
        kind=kind if not nesting else f"{kind} in {'.'.join(nesting)!r}",
        state=state,
        class_weights=() if weights is None else tuple(weights.flatten().float().tolist()),
        **facts,
    )


# ---------------------------------------------------------------------- wrappers


def split_losses(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the model without wrapper names, and what belongs to losses.

    A wrapper's name goes where every weight starts with it, and only from the start: the official
    training code calls its model ``model``, and that code's own reader also takes the word out of
    the middle of names.

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
    """The wrapper names that every key starts with.

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
    """A checkpoint of segtrain: the moving average where there is one, as in evaluation."""
    averaged = bool(content.get("ema"))
    state, _ = find_state(content["ema" if averaged else "model"], source)
    metadata = content["metadata"]
    model = metadata.get("model")
    name = model.get("name") if isinstance(model, Mapping) else None
    num_classes, align_corners = metadata.get("num_classes"), metadata.get("align_corners")
    names = metadata.get("class_names")
    if not isinstance(name, str) or not isinstance(align_corners, bool):
        raise CheckpointError(
            f"{source} is no whole checkpoint of segtrain: its metadata lack keys"
        )
    average = ", moving average" if averaged else ""
    return WeightFile(
        source=source,
        kind=f"checkpoint of segtrain ({name}, step {content.get('step')}{average})",
        state=state,
        has_heads=True,
        is_own=True,
        align_corners=align_corners,
        fits=name,
        num_classes=num_classes if isinstance(num_classes, int) else None,
        class_names=tuple(map(str, names)) if isinstance(names, (list, tuple)) else (),
    )


# ---------------------------------------------------------------------- the rest, by their names


def _by_names(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """What a state dict is in words, and the facts of a :class:`WeightFile` that follow."""
    if "stage4.0.fuse_layers.0.1.0.weight" in state:
        return _hrnet(state)
    classifier = state.get("classifier.4.weight", state.get("classifier.low_classifier.weight"))
    if classifier is not None and any(key.startswith(_BACKBONE) for key in state):
        facts = {"has_heads": True, "align_corners": False, "num_classes": classifier.shape[0]}
        return "segmentation model of torchvision", facts
    return "state dict", {"has_heads": any(key.startswith((*_HEADS, _BACKBONE)) for key in state)}


def _hrnet(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    variant = variant_of(state) or "HRNet of no published size"
    name = f"hrnet_{variant}" if variant in VARIANTS else variant
    fits = name if variant in VARIANTS else None
    if is_ocr(state):
        return f"HRNet-OCR ({name}_ocr)", {
            "has_heads": True,
            "align_corners_hint": _ALIGN_CORNERS_OF_OCR,
            "fits": fits and f"{fits}_ocr",
            "num_classes": _length(state.get("cls_head.weight")),
        }
    if any(key.startswith(_HRNET_HEADS) for key in state):
        return f"HRNetV2 for segmentation ({name})", {
            "has_heads": True,
            "align_corners_hint": _ALIGN_CORNERS_OF_HRNET,
            "fits": fits,
            "num_classes": _length(state.get("last_layer.3.weight")),
        }
    is_imagenet = any(key.startswith(("incre_modules.", "classifier.")) for key in state)
    kind = "HRNet for ImageNet" if is_imagenet else "trunk of an HRNet"
    return f"{kind} ({name})", {"has_heads": False, "fits": fits}


def _length(weight: Tensor | None) -> int | None:
    return None if weight is None or not weight.dim() else weight.shape[0]


def is_ocr(state: Iterable[str]) -> bool:
    """Whether an HRNet with these names has the layers of OCR."""
    return any(key.startswith(_OCR_PARTS) for key in state)


def variant_of(state: Mapping[str, Tensor]) -> str | None:
    """The name of the HRNet variant that these weights are of; None when they are of none.

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
    """How many children the module list called `prefix` has."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
