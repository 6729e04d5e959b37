"""Checks of image files beyond their size: the range of their values, and EXIF orientations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from segtrain.data.dataset import FileDataset
from segtrain.data.io.image_values import ImageValues
from segtrain.data.io.raster import UPRIGHT
from segtrain.data.scan.findings import Finding
from segtrain.errors import DataError

_PROBED = 5  # images whose values are read
_HUGE = 1e30
_FEW_LEVELS = 32  # of 256, that the high byte keeps
_MIRRORED, _AND_TURNED = "mirrors it", "mirrors and turns it"
_TURNS = {
    2: _MIRRORED,
    3: "turns it by 180 degrees",
    4: _MIRRORED,
    5: _AND_TURNED,
    6: "turns it by 90 degrees",
    7: _AND_TURNED,
    8: "turns it by 90 degrees",
}


def probe_images(dataset: FileDataset) -> ImageValues | None:
    """Return the values in up to five image files of a split; None: they cannot be read."""
    if not dataset.reads_whole_files or not len(dataset):
        return None
    chosen = np.unique(np.linspace(0, len(dataset) - 1, _PROBED).round().astype(int))
    found = []
    for index in chosen:
        with contextlib.suppress(DataError):  # the scan itself reports it
            found.append(dataset.reader.values(dataset.files[index].image))
    return ImageValues.together(found) if found else None


def check_values(dataset: FileDataset, values: ImageValues | None) -> Iterator[Finding]:
    """Find values that the reader would make into something that is not meant."""
    if values is None:
        return
    where = f"the images in {dataset.files[0].image.parent} hold {values}"
    given = dataset.reader.value_range
    if given is not None:
        if dataset.reader.clip:
            return
        low, high = given
        span = high - low
        if values.low < low - span or values.high > high + span:
            far = f"{where}, far outside dataset.value_range={[low, high]}"
            yield Finding("range", "", f"{far}; {_advise(values, given)}")
    elif values.dtype == "uint16" and 0 < values.high < _FEW_LEVELS * 256:
        top = _power(values.high)
        lost = f"the high byte keeps {int(values.high) // 256 + 1} levels of them"
        if dataset.channels not in (1, 3):
            lost = f"at most {values.high / 65535:.2g} of the range is used"
        text = f"{where}, and {lost}; set dataset.value_range=[0,{top}], or [0,65535] to keep it"
        yield Finding("range", "", text)


def _advise(values: ImageValues, given: tuple[float, float]) -> str:
    """The key that marks pixels without data, or the range to set."""
    odd = values.low if values.low < given[0] else values.high
    if abs(odd) >= _HUGE or (odd < 0 and odd == round(odd) and given[0] >= 0):
        return f"if {odd:g} marks pixels without data, set dataset.nodata={odd!r}"
    return (
        f"set dataset.value_range=[{values.low:g},{values.high:g}], convert the images, or, if the"
        " range is a window, clip values at its ends by dataset.clip=true"
    )


def _power(high: float) -> int:
    """The largest value of the bit depth that holds `high`.

    Example:
        >>> _power(3000), _power(1023)
        (4095, 1023)
    """
    return int(2 ** np.ceil(np.log2(high + 1))) - 1


def check_orientations(
    dataset: FileDataset, orientations: Sequence[int], sizes: Sequence[Sequence[int]]
) -> Iterator[Finding]:
    """Find images with an EXIF orientation, and masks that may have been drawn without it.

    Args:
        dataset: The dataset.
        orientations: The orientation of each image, 1 to 8.
        sizes: Height and width of each image, as they are read.
    """
    turned = [index for index, value in enumerate(orientations) if value != UPRIGHT]
    if not turned:
        return
    undecided = []
    if dataset.reader.exif is None:
        for index in turned:
            height, width = sizes[index]
            told_by_size = dataset.masks_have_sizes and orientations[index] > 4 and height != width
            is_turned = dataset.masks_have_sizes and _masks_are_turned(dataset, index)
            if not told_by_size and not is_turned:
                undecided.append(index)
    if undecided:
        files = dataset.files[undecided[0]]
        yield Finding(
            "orientation",
            str(files.image),
            f"{files.image}: its EXIF orientation {_TURNS[orientations[undecided[0]]]}, and its"
            f" mask {files.mask} has none; {len(undecided)} of {len(dataset)} images are like that;"
            " set dataset.exif=apply if the masks were drawn on images as a viewer shows them;"
            " set dataset.exif=ignore if they were drawn on the pixels as they are stored",
            undecided[0],
        )
        return
    done = "applied" if dataset.reader.turns else "ignored"
    yield Finding(
        "oriented",
        str(dataset.files[turned[0]].image),
        f"{len(turned)} of {len(dataset)} images have an EXIF orientation, which is {done}, such as"
        f" {dataset.files[turned[0]].image}",
    )


def _masks_are_turned(dataset: FileDataset, index: int) -> bool:
    """Whether the mask of a sample has an orientation of its own."""
    try:
        masks = [mask for mask in dataset.files[index].masks if mask is not None]
        return all(dataset.reader.header(mask)[2] != UPRIGHT for mask in masks)
    except DataError:  # an array file, or one that the scan reports
        return False
