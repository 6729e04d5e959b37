"""What each metric costs beside the confusion matrix, on masks of the size of CamVid.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --root data/camvid --images 20

Each line is the median over the images of the time of one image, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import segtrain
from segtrain.metrics import ConfusionMatrix, MetricCollector, build_metrics
from segtrain.schema.sections import DEFAULT_METRICS

CLASSES, SIZE = 11, (360, 480)
ROUNDS = 3


def targets(root: Path | None, count: int) -> list[Tensor]:
    """Masks of CamVid, or blocks of classes of its size."""
    if root is not None:
        files = sorted((root / "masks" / "val").glob("*.png"))[:count]
        masks = [np.array(Image.open(file)) for file in files]
        return [torch.from_numpy(np.where(mask > 10, 255, mask)).long() for mask in masks]
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, CLASSES, (count, SIZE[0] // 24, SIZE[1] // 24), generator=generator)
    return list(cells.repeat_interleave(24, 1).repeat_interleave(24, 2))


def milliseconds(action: Callable[[int], object], count: int) -> float:
    """The median time of `action` over the images, of the fastest round of each image."""
    best = []
    for index in range(count):
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            action(index)
            times.append(time.perf_counter() - start)
        best.append(min(times))
    return 1000 * statistics.median(best)


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="the folder of CamVid")
    parser.add_argument("--images", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = targets(options.root, options.images)
    predictions = [mask.roll((2, 3), (0, 1)).clamp(max=CLASSES - 1) for mask in found]
    noise = torch.randn(CLASSES, *found[0].shape, generator=torch.Generator().manual_seed(1))
    names = [f"class {index}" for index in range(CLASSES)]

    def confusion(index: int) -> None:
        matrix = ConfusionMatrix(CLASSES)
        matrix.update(predictions[index], found[index])
        matrix.scores()

    def update(metrics: tuple[str, ...]) -> Callable[[int], object]:
        def action(index: int) -> None:
            collector = MetricCollector(build_metrics(metrics), class_names=names)
            one_hot = torch.nn.functional.one_hot(predictions[index], CLASSES).permute(2, 0, 1)
            logits = one_hot * 4 + noise
            collector.update(predictions[index][None], found[index][None], ["x"], lambda _: logits)

        return action

    without = milliseconds(update(()), len(found))
    model = segtrain.build_model("hrnet_w18_small_v1", num_classes=CLASSES).eval()
    images = torch.randn(1, 3, *found[0].shape)
    with torch.no_grad():
        forward = milliseconds(lambda _: model(images), 3)
    print("| metric | ms per image | share of the model's forward pass |\n|---|---:|---:|")
    base = milliseconds(confusion, len(found))
    print(f"| the confusion matrix alone | {base:.1f} | {base / forward:.1%} |")
    for chosen in (DEFAULT_METRICS, *((name,) for name in segtrain.list_metrics())):
        title = "the default set" if len(chosen) > 1 else f"`{chosen[0]}`"
        extra = milliseconds(update(chosen), len(found)) - without
        print(f"| {title} | {max(extra, 0):.1f} | {max(extra, 0) / forward:.1%} |", flush=True)
    print(f"\nThe forward pass of hrnet_w18_small_v1 takes {forward:.0f} ms.")


if __name__ == "__main__":
    main()
