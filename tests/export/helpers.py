"""Untrained models as if loaded from a checkpoint, and pictures to compare on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import segtrain
from segtrain.export import Trained
from segtrain.inference import Predictor

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
MODELS: dict[str, dict[str, Any]] = {
    "hrnet": {"name": "hrnet_w18_small_v1"},
    "ocr": {"name": "hrnet_w18_small_v1_ocr", "align_corners": True},
    "timm": {"name": "encoder_decoder", "backbone": "timm/tf_efficientnet_lite0", "head": "fcn"},
    "convnext": {"name": "encoder_decoder", "backbone": "timm/convnext_atto", "head": "fcn"},
    "torchvision": {
        "name": "encoder_decoder",
        "backbone": "torchvision/resnet18",
        "head": "aspp",
        "align_corners": True,
    },
    "vit": {"name": "encoder_decoder", "backbone": "timm/test_vit", "head": "segformer"},
    "vit_patch14": {
        "name": "encoder_decoder",
        "backbone": {"name": "timm/vit_small_patch14_dinov2", "out_indices": [0, 1]},
        "head": "segformer",
        "pyramid": True,
    },
    "vit_rope": {
        "name": "encoder_decoder",
        "backbone": {"name": "timm/vit_small_patch16_dinov3", "out_indices": [0, 1]},
        "head": "hrnetv2",
    },
    "unet": {"name": "smp", "arch": "unet", "encoder": "resnet18"},
    "upernet": {
        "name": "encoder_decoder",
        "backbone": "torchvision/resnet18",
        "head": {"name": "upernet", "channels": 32},
    },
}


def pictures(*sizes: tuple[int, int]) -> list[tuple[str, NDArray[Any]]]:
    """Smooth random images, with names."""
    rng = np.random.default_rng(0)
    found = []
    for index, size in enumerate(sizes):
        coarse = torch.from_numpy(rng.random((1, 3, 6, 8), dtype=np.float32))
        pixels = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
        image = (pixels[0].permute(1, 2, 0) * 255).round().byte().numpy()
        found.append((f"{index}.png", image))
    return found


def trained(
    spec: dict[str, Any],
    num_classes: int = 5,
    *,
    multi_label: bool = False,
    size: tuple[int, int] | None = None,
) -> Trained:
    """An untrained model with the metadata of a checkpoint."""
    torch.manual_seed(0)
    model = segtrain.build_model(num_classes=num_classes, **spec).eval()
    labels = segtrain.LabelContract(num_classes=num_classes, multi_label=multi_label)
    predictor = Predictor(model, labels, mean=MEAN, std=STD, size=size, device="cpu")
    metadata = {"model": spec, "mean": MEAN, "std": STD, "precision": "fp32"}
    return Trained(Path("best.pt"), {"metadata": metadata, "step": 3}, predictor)
