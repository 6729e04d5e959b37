"""Measure images per second of augmentation, of decoding, and of the whole loader.

The first two tables use one thread, and contenders take turns, sample by sample. The last table
starts workers.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors
from torchvision.io import decode_jpeg, decode_png
from torchvision.transforms import v2

from segtrain import build_dataset
from segtrain.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LabelContract,
    Reader,
    StepSampler,
    TrainTransform,
    build_train_loader,
    iterate,
)
from segtrain.schema.sections import AugmentationConfig

SIZE, CROP, SCALE = (1024, 2048), (512, 1024), (0.5, 2.0)
NUM_CLASSES, IGNORED = 19, 255
CUTS = (0.1, 0.5, 0.9, 0.999)
MODEL_MS = 10.0  # assumed time of a model per image
Augment = Callable[[NDArray[Any], NDArray[Any], int], Any]


def street(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw an image that compresses like a photograph, and a mask of blocks."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((*SIZE, 3), np.float32)
    for sigma in (2, 8, 32):
        noise = rng.normal(size=(SIZE[0] // sigma, SIZE[1] // sigma, 3)).astype(np.float32)
        pixels += sigma**0.5 * cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    pixels = 128 + 18 * pixels
    labels = rng.integers(0, NUM_CLASSES, (SIZE[0] // 64, SIZE[1] // 64))
    mask = np.kron(labels, np.ones((64, 64))).astype(np.uint8)
    return pixels.clip(0, 255).astype(np.uint8), mask


# ---------------------------------------------------------------------- augmentation


def ours(colours: float) -> Augment:
    """Our transform: the crop is chosen in the source, and only the crop is resized."""
    strengths = dict.fromkeys(("brightness", "contrast", "saturation"), colours)
    labels = LabelContract(NUM_CLASSES)
    return TrainTransform(
        labels, AugmentationConfig(scale=SCALE, crop_size=CROP, flip=0.5, **strengths)
    )


def plain_albumentations(colours: float) -> Augment:
    """The usual pipeline of albumentations."""
    jitter = albumentations.ColorJitter(colours, colours, colours, (0, 0), p=1.0)
    fill = tuple(round(255 * value) for value in IMAGENET_MEAN)
    pipeline = albumentations.Compose(
        [
            albumentations.RandomScale((SCALE[0] - 1, SCALE[1] - 1), p=1.0),
            albumentations.PadIfNeeded(*CROP, position="random", fill=fill, fill_mask=IGNORED),
            albumentations.RandomCrop(*CROP),
            albumentations.HorizontalFlip(p=0.5),
            *([jitter] if colours else []),
            albumentations.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ToTensorV2(),
        ]
    )

    def augment(image: NDArray[Any], mask: NDArray[Any], seed: int) -> Any:
        pipeline.set_random_seed(seed)
        found = pipeline(image=image, mask=mask)
        return found["image"], found["mask"]

    return augment


def torchvision_v2(colours: float) -> Augment:
    """The same steps with ``torchvision.transforms.v2``, on tensors."""
    fill = {tv_tensors.Image: [255 * value for value in IMAGENET_MEAN], tv_tensors.Mask: IGNORED}
    low, high = (round(SIZE[0] * factor) for factor in SCALE)
    pipeline = v2.Compose(
        [
            v2.RandomResize(low, high + 1, antialias=False),
            v2.RandomCrop(CROP, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(),
            *([v2.ColorJitter(colours, colours, colours)] if colours else []),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def augment(image: NDArray[Any], mask: NDArray[Any], seed: int) -> Any:
        torch.manual_seed(seed)
        pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        return pipeline(pixels, tv_tensors.Mask(torch.from_numpy(mask)))

    return augment


def official_order(colours: float) -> Augment:
    """The steps of the official HRNet code: resize the whole image, pad, crop, normalize, flip."""

    def augment(image: NDArray[Any], mask: NDArray[Any], seed: int) -> Any:
        rng = np.random.default_rng(seed)
        scale = rng.uniform(*SCALE)
        size = (int(SIZE[1] * scale), int(SIZE[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        bottom, right = (max(CROP[i] - size[1 - i], 0) for i in (0, 1))
        if bottom or right:
            image, mask = (
                cv2.copyMakeBorder(part, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=value)
                for part, value in ((image, (0, 0, 0)), (mask, IGNORED))
            )
        top, left = (int(rng.integers(mask.shape[i] - CROP[i] + 1)) for i in (0, 1))
        image = image[top : top + CROP[0], left : left + CROP[1]]
        mask = mask[top : top + CROP[0], left : left + CROP[1]].astype(np.int64)
        if colours:  # the official code changes only the brightness
            image = np.clip(image + rng.uniform(-255, 255) * colours, 0, 255).astype(np.uint8)
        pixels = image.astype(np.float32) / 255.0
        pixels = (pixels - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
        pixels = pixels.transpose(2, 0, 1)
        step = int(rng.choice([-1, 1]))
        return (
            torch.from_numpy(pixels[:, :, ::step].copy()),
            torch.from_numpy(mask[:, ::step].copy()),
        )

    return augment


AUGMENTS = {
    "ours": ours,
    "plain albumentations": plain_albumentations,
    "torchvision v2": torchvision_v2,
    "official order": official_order,
}


def augmentation_table(rounds: int) -> Iterator[str]:
    """Yield the lines of the table of augmentations, without decoding."""
    image, mask = street()
    yield "| augmentation | colours | ms per image | images/s | time / ours |"
    yield "|---|---|---:|---:|---:|"
    for colours in (0.0, 0.2):
        contenders = {name: make(colours) for name, make in AUGMENTS.items()}
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for augment in contenders.values():
            for seed in range(3):
                augment(image, mask, seed)
        for seed in range(rounds):
            for name, augment in contenders.items():
                start = time.perf_counter()
                augment(image, mask, seed)
                seconds[name].append(time.perf_counter() - start)
        # A mean, since the cost of a sample depends on its scale. The slowest tenth is left out:
        # other work on the machine has slowed it.
        means = {name: _trimmed_mean(found) for name, found in seconds.items()}
        for name, mean in means.items():
            yield (
                f"| {name} | {'yes' if colours else 'no'} | {1000 * mean:.2f} | {1 / mean:.0f} |"
                f" {mean / means['ours']:.2f} |"
            )


def _trimmed_mean(seconds: list[float]) -> float:
    kept = sorted(seconds)[: math.ceil(0.9 * len(seconds))]
    return statistics.fmean(kept)


# ---------------------------------------------------------------------- decoding


def encoded(kind: str) -> bytes:
    """Encode an image in the format `kind`."""
    stream = io.BytesIO()
    Image.fromarray(street()[0]).save(stream, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return stream.getvalue()


def decoders() -> dict[str, Callable[[bytes], NDArray[Any]]]:
    """Return the installed decoders by name; each takes a file's bytes and returns RGB pixels."""

    def pillow(data: bytes) -> NDArray[Any]:
        return np.array(Image.open(io.BytesIO(data)))

    def opencv(data: bytes) -> NDArray[Any]:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if found is None:
            raise ValueError("no image")
        return found

    def torchvision(decode: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        return lambda data: (
            decode(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()
        )

    found = {
        "ours": lambda data: Reader().decode_image(data, "file"),
        "Pillow": pillow,
        "OpenCV": opencv,
        "torchvision (JPEG)": torchvision(decode_jpeg),
        "torchvision (PNG)": torchvision(decode_png),
    }
    try:
        import simplejpeg  # noqa: PLC0415
    except ImportError:
        return found
    return {**found, "simplejpeg (JPEG)": simplejpeg.decode_jpeg}


def decoding_table(rounds: int) -> Iterator[str]:
    """Yield the lines of the table of decoders: speed, and how many truncated files they refuse."""
    yield "| decoder | file | ms per image | images/s | truncated files refused | same pixels |"
    yield "|---|---|---:|---:|---:|---|"
    for kind in ("JPEG", "PNG"):
        data = encoded(kind)
        expected = np.array(Image.open(io.BytesIO(data)))
        chosen = {name: f for name, f in decoders().items() if kind in name or "(" not in name}
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(rounds):
            for name, decode in chosen.items():
                start = time.perf_counter()
                decode(data)
                seconds[name].append(time.perf_counter() - start)
        for name, decode in chosen.items():
            middle = statistics.median(seconds[name])
            refused = sum(_refuses(decode, data[:length]) for length in _cuts(len(data)))
            same = "yes" if np.array_equal(decode(data), expected) else "no"
            yield (
                f"| {name} | {kind} | {1000 * middle:.2f} | {1 / middle:.0f} |"
                f" {refused} of {len(CUTS) + 1} | {same} |"
            )


def _cuts(length: int) -> list[int]:
    """Return the lengths of the truncated files; the last one lacks one byte."""
    return [*(int(length * cut) for cut in CUTS), length - 1]


def _refuses(decode: Callable[[bytes], Any], data: bytes) -> bool:
    try:
        decode(data)
    except Exception:  # noqa: BLE001  each library raises its own errors
        return True
    return False


# ---------------------------------------------------------------------- the loader


def loader_table(images: int, most_workers: int) -> Iterator[str]:
    """Yield the lines of the table of loaders: JPEG images and PNG masks to batches, by workers."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), images)
        dataset = build_dataset(
            "folder",
            root=folder,
            num_classes=NUM_CLASSES,
            train={"images": "images", "masks": "masks"},
        )
        colours = dict.fromkeys(("brightness", "contrast", "saturation"), 0.2)
        transform = TrainTransform(
            dataset.labels, AugmentationConfig(scale=SCALE, crop_size=CROP, **colours)
        )
        yield "| workers | images/s | ms per image |"
        yield "|---:|---:|---:|"
        alone = math.inf
        for workers in range(most_workers + 1):
            rate = _rate(dataset, transform, workers, images)
            alone = 1000 / rate if workers == 0 else alone
            yield f"| {workers} | {rate:.0f} | {1000 / rate:.1f} |"
        needed = math.ceil(alone / MODEL_MS)
        yield ""
        yield (
            f"A sample takes {alone:.1f} ms of one core, so {needed}"
            f" worker{'s' if needed > 1 else ''}, each with its own core, keep up with a model that"
            f" takes {MODEL_MS:.0f} ms per image."
        )


def _rate(dataset: Any, transform: TrainTransform, workers: int, images: int) -> float:
    sampler = StepSampler(len(dataset), batch_size=4, seed=0)
    stream = iterate(build_train_loader(dataset, transform, sampler, num_workers=workers))
    for _ in range(2 * workers + 2):  # until the workers have started and filled their queues
        next(stream)
    batches = max(images // 4, 1) * 3
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return 4 * batches / (time.perf_counter() - start)


def _write(root: Path, images: int) -> None:
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for index in range(images):
        image, mask = street(index)
        Image.fromarray(image).save(root / "images" / f"{index}.jpg", quality=90)
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")


def main(arguments: list[str]) -> int:
    """Measure and print the tables; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="samples per contender")
    parser.add_argument(
        "--images", type=int, default=24, help="number of images in the loader's dataset"
    )
    parser.add_argument("--workers", type=int, default=2, help="largest number of workers")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    lines = []
    for line in (
        f"Images of {SIZE[0]} x {SIZE[1]}, crops of {CROP[0]} x {CROP[1]}, scale {SCALE[0]} to"
        f" {SCALE[1]}, one thread; torch {torch.__version__}, OpenCV {cv2.__version__},"
        f" albumentations {albumentations.__version__}, Pillow {Image.__version__}",
        "",
        *(part for table in _tables(given) for part in (*table, "")),
    ):
        lines.append(line)
        print(line, flush=True)
    if given.output is not None:
        given.output.write_text("\n".join(lines), encoding="utf-8")
    return 0


def _tables(given: argparse.Namespace) -> Iterator[Iterator[str]]:
    yield augmentation_table(given.rounds)
    yield decoding_table(given.rounds)
    yield loader_table(given.images, given.workers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
