"""Speed and memory of the confusion matrix from logits of a lower resolution, beside torchmetrics.

    python benchmarks/evaluate.py
    python benchmarks/evaluate.py --checkpoint RUN_DIR --images data/camvid/images/val

Every case starts from the same logits and target:

- ours: the classes by `segtrain.engine.class_ids.predict_ids`, and their counts.
- torchmetrics: `F.interpolate`, `argmax`, and `MulticlassConfusionMatrix`, if it is installed.
- plain: `F.interpolate` and `argmax` alone, without counting; ratios of memory are to this one.

Times are medians of calls that alternate. Memory is the peak that one call adds in a new process,
beyond logits and target. The exit code is 1 if a class differs where two logits are not tied.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from process_memory import memory_mib, reset_peak
from torch import Tensor
from torch.nn import functional as F

from segtrain.engine.class_ids import predict_ids
from segtrain.metrics.counting import confusion_of_images

IGNORE = 255
ROUNDS = 5
TIED = 1e-4  # logits that differ by less may change places by rounding
CASES = ("trained", "smooth", "random", "small smooth", "small random")


def smooth(shape: tuple[int, ...], cells: int) -> Tensor:
    """Random logits on a grid of that many cells per row and column, enlarged."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(*shape[:2], shape[2] // cells, shape[3] // cells, generator=generator)
    return F.interpolate(coarse, size=shape[2:], mode="bicubic")


def random(shape: tuple[int, ...]) -> Tensor:
    """Logits that are independent of each other."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def trained(checkpoint: str, images: Path, count: int) -> Tensor:
    """The logits of a trained model for some images of one size."""
    from segtrain import Predictor  # noqa: PLC0415  the other cases do not need it

    predictor = Predictor.from_checkpoint(checkpoint, device="cpu")
    files = sorted(path for path in images.rglob("*.*"))
    found = [predictor.read(path) for path in files[:: max(len(files) // count, 1)][:count]]
    with torch.no_grad():
        batch = torch.stack(
            [predictor._transform(image, np.zeros(image.shape[:2], np.uint8))[0] for image in found]
        )
        return predictor.model(batch)["out"].float().contiguous()


def load(case: str, options: argparse.Namespace) -> tuple[Tensor, tuple[int, int]]:
    """The logits of a case, and the size of its target."""
    if case == "trained":
        return torch.load(options.logits), tuple(options.size)
    shape = (2, 19, 128, 256) if case.startswith("small") else (1, 150, 512, 512)
    size = (512, 1024) if case.startswith("small") else (2048, 2048)
    return (smooth(shape, 16) if case.endswith("smooth") else random(shape)), size


def target_of(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """A target that agrees with the logits at four of five pixels; a twentieth is ignored."""
    ids = predict_ids(logits, size, False)
    generator = torch.Generator().manual_seed(1)
    chance = torch.rand(ids.shape, generator=generator)
    ids = torch.where(chance < 0.2, torch.randint_like(ids, logits.shape[1]), ids)
    return torch.where(chance > 0.95, IGNORE, ids)


def plain(logits: Tensor, target: Tensor) -> Tensor:
    """Upsample all logits, then take the largest."""
    return F.interpolate(logits, size=target.shape[1:], mode="bilinear").argmax(1)


def ours(logits: Tensor, target: Tensor) -> Tensor:
    """The confusion matrix by segtrain."""
    size = (target.shape[1], target.shape[2])
    ids = predict_ids(logits, size, False)
    return confusion_of_images(ids, target, logits.shape[1], IGNORE).sum(0)


def torchmetrics(logits: Tensor, target: Tensor) -> Tensor:
    """The confusion matrix by torchmetrics."""
    from torchmetrics.functional.classification import (  # noqa: PLC0415  a peer, not a dependency
        multiclass_confusion_matrix,
    )

    return multiclass_confusion_matrix(
        plain(logits, target), target, logits.shape[1], ignore_index=IGNORE
    )


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ours": ours,
    "torchmetrics": torchmetrics,
    "plain": plain,
}


def measure_memory(case: str, way: str, options: argparse.Namespace) -> float:
    """The peak in MiB that a call adds, in this process."""
    logits, size = load(case, options)
    target = target_of(logits, size)
    few = logits[..., :8, :8].contiguous()
    WAYS[way](few, target[:, :32, :32].contiguous())  # loads what the first call loads
    start = reset_peak()
    WAYS[way](logits, target)
    peak = memory_mib("VmHWM")
    return float("nan") if start is None or peak is None else peak - start


def memory_in_a_new_process(case: str, way: str, options: argparse.Namespace) -> float:
    """The same in a process of its own."""
    words = ["--memory", case, way, "--threads", str(options.threads)]
    if options.logits is not None:
        words += ["--logits", str(options.logits), "--size", *map(str, options.size)]
    found = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, check=True
    )
    return float(found.stdout)


def seconds(logits: Tensor, target: Tensor, ways: list[str]) -> dict[str, float]:
    """The median time of each way; calls alternate."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            start = time.perf_counter()
            WAYS[way](logits, target)
            times[way].append(time.perf_counter() - start)
    return {way: statistics.median(found) for way, found in times.items()}


def disagreement(logits: Tensor, size: tuple[int, int]) -> tuple[float, bool]:
    """The share of pixels whose class differs from the plain way, and whether all are ties."""
    ids, ties, different = predict_ids(logits, size, False), True, 0
    for image, found in zip(logits, ids, strict=True):
        upsampled = F.interpolate(image[None], size=size, mode="bilinear")[0]
        expected = upsampled.argmax(0)
        wrong = expected != found
        different += int(wrong.sum())
        chosen = upsampled.gather(0, found[None])[0]
        ties &= bool((upsampled.amax(0) - chosen)[wrong].lt(TIED).all())
    return different / ids.numel(), ties


def has_torchmetrics() -> bool:
    """Whether the peer is installed."""
    try:
        import torchmetrics as _  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="a run directory: adds the logits of a trained model")
    parser.add_argument("--images", type=Path, help="images for it, all of one size")
    parser.add_argument("--count", type=int, default=4, help="number of these images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--logits", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Print a markdown table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.memory is not None:
        print(measure_memory(*options.memory, options))
        return 0
    if options.checkpoint is not None:
        from PIL import Image  # noqa: PLC0415

        options.logits = Path("evaluate_logits.pt").absolute()
        torch.save(trained(options.checkpoint, options.images, options.count), options.logits)
        first = Image.open(sorted(options.images.rglob("*.*"))[0])
        options.size = [first.height, first.width]
    ways = ["ours", "plain", *(["torchmetrics"] if has_torchmetrics() else [])]
    print(
        "| logits | ours, s | torchmetrics, s | times faster | plain alone, s | ours, MiB |"
        " plain, MiB | ratio | different classes |\n|---|" + "---:|" * 8
    )
    all_tied = True
    for case in CASES:
        if case == "trained" and options.logits is None:
            continue
        logits, size = load(case, options)
        target = target_of(logits, size)
        time_of = seconds(logits, target, ways)
        share, ties = disagreement(logits, size)
        all_tied &= ties
        used = {way: memory_in_a_new_process(case, way, options) for way in ("ours", "plain")}
        peer = time_of.get("torchmetrics", float("nan"))
        print(
            f"| {case}: {tuple(logits.shape)} to {size[0]} x {size[1]} | {time_of['ours']:.3f} |"
            f" {peer:.3f} | {peer / time_of['ours']:.1f} | {time_of['plain']:.3f} |"
            f" {used['ours']:.0f} | {used['plain']:.0f} | 1/{used['plain'] / used['ours']:.1f} |"
            f" {share:.1e} |",
            flush=True,
        )
    if options.checkpoint is not None:
        options.logits.unlink()
    return 0 if all_tied else 1


if __name__ == "__main__":
    sys.exit(main())
