"""What each metric costs beside the confusion matrix, on masks of the size of CamVid.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --root data/camvid --images 20

Each line is what a metric adds to the time of one image, on one thread: the median over the images
of the difference to counting alone.
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


def milliseconds(action: Callable[[int], object], index: int) -> float:
    """The time of `action` for one image: the fastest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action(index)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def difference(
    action: Callable[[int], object], baseline: Callable[[int], object], count: int
) -> float:
    """How much longer `action` takes than `baseline`: the median over images, in pairs."""
    return statistics.median(
        milliseconds(action, index) - milliseconds(baseline, index) for index in range(count)
    )


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
    logits = [
        4 * torch.nn.functional.one_hot(mask, CLASSES).permute(2, 0, 1) + noise
        for mask in predictions
    ]
    names = [f"class {index}" for index in range(CLASSES)]

    def confusion(index: int) -> None:
        matrix = ConfusionMatrix(CLASSES)
        matrix.update(predictions[index], found[index])
        matrix.scores()

    def collect(metrics: tuple[str, ...]) -> Callable[[int], object]:
        built = build_metrics(metrics)

        def action(index: int) -> None:
            collector = MetricCollector(built, class_names=names)
            pair = predictions[index][None], found[index][None]
            collector.update(*pair, ["x"], lambda _: [(slice(None), logits[index])])
            collector.result()

        return action

    model = segtrain.build_model("hrnet_w18_small_v1", num_classes=CLASSES).eval()
    images = torch.randn(1, 3, *found[0].shape)
    with torch.no_grad():
        forward = milliseconds(lambda _: model(images), 0)
    base = statistics.median(milliseconds(confusion, index) for index in range(len(found)))
    print("| metric | ms per image | share of the model's forward pass |\n|---|---:|---:|")
    print(f"| the confusion matrix alone | {base:.1f} | {base / forward:.1%} |")
    sets = (DEFAULT_METRICS, *((name,) for name in segtrain.list_metrics()))
    for chosen in sets:
        title = "the default set" if len(chosen) > 1 else f"`{chosen[0]}`"
        # The default set is compared with the confusion matrix alone, others with counts alone.
        baseline = confusion if len(chosen) > 1 else collect(())
        extra = difference(collect(chosen), baseline, len(found))
        print(f"| {title} | {extra:+.1f} | {extra / forward:+.1%} |", flush=True)
    print(f"\nThe forward pass of hrnet_w18_small_v1 takes {forward:.0f} ms.")


if __name__ == "__main__":
    main()
