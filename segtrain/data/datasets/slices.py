"""Cut the samples whose files are volumes into one sample per slice."""

from __future__ import annotations

from pathlib import Path

from segtrain.data.dataset import SampleFiles
from segtrain.data.io.nifti import VOLUME_ENDINGS
from segtrain.data.io.raster import NeedsPackageError
from segtrain.data.io.storage import is_volume, list_slices, split_archive
from segtrain.errors import DataError


def cut_into_slices(sample: SampleFiles) -> list[SampleFiles]:
    """Return a sample per slice if the files of a sample are volumes, else the sample.

    Slices are named after the sample: ``case_01/000``, ``case_01/001``, ....

    Raises:
        DataError: When a volume cannot be read, or its mask or valid file does not have the same
            number of slices.

    Example:
        >>> sample = SampleFiles(Path("a.png"), (Path("b.png"),), "a")
        >>> cut_into_slices(sample) == [sample]
        True
    """
    files = [file for file in (sample.image, *sample.masks, sample.valid) if file is not None]
    slices = {file: slices_of(file) for file in files}
    if not any(slices.values()):
        return [sample]
    for file in files:
        if len(slices[file]) != len(slices[sample.image]):
            raise DataError(
                f"{file} has {_count(slices[file])}, but its image {sample.image} has"
                f" {_count(slices[sample.image])}; a volume and its mask need the same number, so"
                " replace one of them or remove both"
            )
    return [
        SampleFiles(
            image,
            tuple(None if mask is None else slices[mask][index] for mask in sample.masks),
            f"{sample.name}/{image.stem}",
            None if sample.valid is None else slices[sample.valid][index],
        )
        for index, image in enumerate(slices[sample.image])
    ]


def slices_of(file: Path) -> list[Path]:
    """Return the slices of a volume; none for another file.

    Raises:
        DataError: When a volume cannot be read, or is in an archive.
    """
    if not file.name.lower().endswith(VOLUME_ENDINGS):
        return []
    archive = split_archive(file)
    if archive is not None:
        raise DataError(f"{file}: a volume in an archive is not supported; unpack {archive[0]}")
    if not is_volume(file):
        raise DataError(f"{file}: the volume does not exist")
    try:
        return list_slices(file)
    except NeedsPackageError as error:
        raise DataError(f"{file}: {error}") from None
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error}); fetch or write it again, or remove it from the"
            " dataset"
        ) from None


def _count(slices: list[Path]) -> str:
    number = len(slices)
    return (
        f"{number} slice{'' if number == 1 else 's'}" if number else "no slices, as it is one image"
    )
