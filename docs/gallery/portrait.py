"""Pictures of the weights that each mining gives to the pixels of a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import cbook
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from segtrain.losses import LOSSES

from .catalogue import Entry
from .figures import STYLE, save

IGNORED = 255
SIZE = (128, 150)
CLASSES = ["background", "face", "cap", "uniform", "ribbons"]
COLOURS = ["#4c78a8", "#f2cf9b", "#7a3b1d", "#2b2b45", "#d62728"]
# In pixels of the file (512 x 600), in the order of drawing.
POLYGONS = {
    "uniform": (
        "203,318 150,350 55,380 35,430 14,600 511,600 511,440 490,390 400,350 332,318 300,395 "
        "250,410 215,385"
    ),
    "face": (
        "170,150 200,135 320,135 350,150 362,185 376,190 374,215 360,260 355,285 340,307 331,310 "
        "328,345 300,395 250,410 215,385 200,330 197,298 178,280 165,250 153,215 155,190"
    ),
    "cap": (
        "175,85 180,60 215,42 240,24 285,24 300,42 330,50 352,75 353,88 368,90 372,130 368,178 "
        "350,150 320,135 200,135 170,150 150,185 146,130 150,95"
    ),
    "ribbons": ("322,526 338,502 365,500 365,488 409,488 409,500 453,500 453,526"),
}
# Where the default suits whole batches and shows nothing on 17000 pixels.
PARAMETERS: dict[str, dict[str, float]] = {
    "ohem": {"min_kept": 1000},
    "hard_negative": {"ratio": 0.25},
}


def draw(entries: list[Entry], folder: Path) -> None:
    """Draw the scene and one picture per mining.

    Raises:
        RuntimeError: When a mining fails, with its name.
    """
    photograph, target = _photograph(), _target()
    logits = _trained_logits(photograph, target)
    ids = torch.where(target == IGNORED, 0, target)
    probability = logits.softmax(1)[0].gather(0, ids[None])[0]
    with mpl.rc_context(STYLE):
        _scene(photograph, target, probability, folder / "mining_scene.png")
        for entry in entries:
            try:
                spec = {**entry.spec, **PARAMETERS.get(entry.name, {})}
                parts = (photograph, target, probability, pixel_weights(spec, logits, target))
                _weights(entry, spec, parts, folder / f"mining_{entry.name}.png")
            except Exception as error:
                raise RuntimeError(f"the picture of mining {entry.name}: {error}") from error


def _photograph() -> Tensor:
    """Load Grace Hopper, U.S. Navy, public domain; ``(3, H, W)`` in [0, 1]."""
    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
        small = np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BOX))
    return torch.from_numpy(small.copy()).permute(2, 0, 1) / 255


def _target() -> Tensor:
    """Draw the polygons, ``(H, W)``, with an ignored line between them."""
    mask = Image.new("L", (512, 600))
    outlines = []
    for name, text in POLYGONS.items():
        corners = [tuple(map(float, pair.split(","))) for pair in text.split()]
        ImageDraw.Draw(mask).polygon(corners, fill=CLASSES.index(name))
        outlines.append([*corners, corners[0]])
    for outline in outlines:
        ImageDraw.Draw(mask).line(outline, fill=IGNORED, width=9)
    return torch.from_numpy(np.asarray(mask.resize(SIZE, Image.Resampling.NEAREST)).copy()).long()


def _trained_logits(photograph: Tensor, target: Tensor) -> Tensor:
    """Train a small network for a few steps and return its logits ``(1, C, H, W)``."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=4, dilation=4),
        nn.ReLU(),
        nn.Conv2d(16, len(CLASSES), 1),
        nn.Upsample(target.shape, mode="bilinear"),
    )
    loss = LOSSES.build("cross_entropy", num_classes=len(CLASSES), ignore_label=IGNORED)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(35):
        optimizer.zero_grad()
        loss(net(photograph[None]), target[None]).backward()
        optimizer.step()
    return net(photograph[None]).detach()


def pixel_weights(spec: dict[str, Any], logits: Tensor, target: Tensor) -> Tensor:
    """Compute the weight of each pixel under a mining, ``(H, W)``; 1 is its weight in the mean.

    The weight is the gradient of the reduced value with respect to the map of pixel losses.
    """
    loss = LOSSES.build(
        {"name": "cross_entropy", "mining": spec}, num_classes=len(CLASSES), ignore_label=IGNORED
    )
    values, probability = loss.maps(logits, target[None])
    values = values.detach().requires_grad_()
    reduced = loss.reduce(values, probability, target[None])
    (gradient,) = torch.autograd.grad(reduced, values)
    if not bool(torch.isfinite(gradient).all()):
        raise ValueError("the weight of a pixel is not finite")
    return gradient[0] * (target != IGNORED).sum()


def _scene(photograph: Tensor, target: Tensor, probability: Tensor, file: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(7.6, 3.3), layout="constrained")
    axes[0].imshow(photograph.permute(1, 2, 0).numpy())
    axes[0].set_title("photograph")
    axes[1].imshow(
        np.ma.masked_equal(target.numpy(), IGNORED),
        cmap=ListedColormap(COLOURS),
        interpolation="nearest",
    )
    axes[1].set_title("classes (white: ignored)")
    shown = axes[2].imshow(_without_ignored(probability, target), cmap="viridis", vmin=0, vmax=1)
    axes[2].set_title("probability of the true class")
    figure.colorbar(shown, ax=axes[2], shrink=0.8)
    figure.legend(handles=_patches(), loc="outside lower center", ncols=len(CLASSES))
    for panel in axes:
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
    save(file, colours=96, dpi=100)


def _weights(entry: Entry, spec: dict[str, Any], parts: tuple[Tensor, ...], file: Path) -> None:
    photograph, target, probability, weights = parts
    valid = target != IGNORED
    figure, (where, against) = plt.subplots(
        1, 2, figsize=(7.6, 3.3), layout="constrained", width_ratios=[1, 1.5]
    )
    where.imshow(0.6 + 0.4 * photograph.mean(0).numpy(), cmap="gray", vmin=0, vmax=1)
    counted = np.ma.masked_where((weights == 0).numpy() | ~valid.numpy(), weights.numpy())
    shown = where.imshow(
        counted, cmap="YlOrRd", vmin=0, vmax=max(1.0, weights.max().item()), interpolation="nearest"
    )
    figure.colorbar(shown, ax=where, shrink=0.8)
    settings = ", ".join(f"{key} = {value:g}" for key, value in spec.items() if key != "name")
    where.set(xticks=[], yticks=[], title=f"{entry.name}{settings and f' ({settings})'}")
    where.grid(visible=False)
    order = torch.randperm(int(valid.sum()))  # so that no class hides another
    colours = np.array(COLOURS)[target[valid][order]]
    against.scatter(probability[valid][order], weights[valid][order], s=3, c=colours)
    share = 100 * (weights[valid] > 0).float().mean().item()
    against.set(
        xlabel="probability of the true class",
        xlim=(-0.02, 1.02),
        ylim=(-0.05, None),
        title=f"weight of a pixel; {share:.0f} % have one",
    )
    against.legend(handles=_patches())
    save(file, colours=96, dpi=100)


def _patches() -> list[Patch]:
    return [Patch(color=colour, label=name) for name, colour in zip(CLASSES, COLOURS, strict=True)]


def _without_ignored(values: Tensor, target: Tensor) -> np.ndarray:
    return np.ma.masked_where((target == IGNORED).numpy(), values.numpy())
