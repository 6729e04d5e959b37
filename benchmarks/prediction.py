"""Peak memory and seconds of `segtrain predict` for pictures of 1 to 400 megapixels.

    python benchmarks/prediction.py --checkpoint RUN_DIR --images data/camvid/images/val

The pictures are tiled TIFF files, mosaics of the images. Every case is a process of its own that
writes class ids and overlays, and the model sees the picture at its own size. Its seconds include
the start of Python and the loading of the model; its memory is the largest resident set of the
process. The first picture, of 256 x 256 pixels, shows what the program needs itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

TILE = 256
MEGAPIXELS = {
    0: (256, 256),
    1: (1024, 1024),
    12: (3072, 4096),
    48: (6144, 8192),
    400: (20480, 20480),
}
WINDOWS = ("evaluation.window=[1024,1024]",)
LARGEST_WHOLE = 48


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    peak_mib: float


def tiles(
    pictures: Sequence[NDArray[np.uint8]], size: tuple[int, int]
) -> Iterator[NDArray[np.uint8]]:
    """The tiles of a mosaic that repeats the pictures, row by row."""
    height, width = size
    rows, columns = pictures[0].shape[:2]
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            y, x = np.arange(top, top + TILE), np.arange(left, left + TILE)
            index = (y[:, None] // rows + x[None] // columns) % len(pictures)
            stack = np.stack(pictures)
            yield stack[index, (y % rows)[:, None], (x % columns)[None]]


def write_mosaic(path: Path, pictures: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> None:
    """Write a mosaic of that height and width."""
    height, width = (max(length, TILE) for length in size)
    tifffile.imwrite(
        path,
        tiles(pictures, (height, width)),
        shape=(height, width, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        bigtiff=True,
    )


def measure(command: Sequence[str]) -> Cost:
    """Run a command; return its seconds and the largest resident set of its processes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(time.perf_counter() - start, usage.ru_maxrss / 1024)


def main() -> None:
    """Print a row per picture and way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="a run directory or a checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="a folder of images of one size")
    parser.add_argument(
        "--megapixels", type=int, nargs="*", default=[*MEGAPIXELS], help="a selection"
    )
    options = parser.parse_args()
    files = sorted(path for path in options.images.rglob("*.*"))[:12]
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    sys.stdout.write("| picture | way | seconds | peak, MiB |\n|---|---|---:|---:|\n")
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in options.megapixels:
            size = MEGAPIXELS[megapixels]
            path = Path(folder) / f"{megapixels}.tif"
            write_mosaic(path, pictures, size)
            ways = {"whole": (), "windows": WINDOWS}
            if megapixels > LARGEST_WHOLE:
                del ways["whole"]
            for way, words in ways.items():
                command = [sys.executable, "-m", "segtrain", "predict", "device=cpu"]
                command += [f"checkpoint={options.checkpoint}", f"input={path}", *words]
                command += [f"size=[{size[0]},{size[1]}]"]
                command += [f"output={Path(folder) / way}", "outputs=[ids,overlay]"]
                cost = measure(command)
                sys.stdout.write(
                    f"| {size[0]} x {size[1]}, {megapixels} MP | {way} | {cost.seconds:.1f}"
                    f" | {cost.peak_mib:.0f} |\n"
                )
                sys.stdout.flush()
            path.unlink()


if __name__ == "__main__":
    main()
