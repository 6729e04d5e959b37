"""Rare-class sampling: an epoch of which the rare classes choose the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segtrain.data.loading.seeds import Stream, epoch_generator
from segtrain.errors import DataError

_MIN_SHARE = 0.0015  # 3000 pixels of the 1052 x 1914 images of the paper


@dataclass(frozen=True)
class RareClassOrder:
    """The order of each epoch: a class is drawn, then an image that holds it.

    An epoch has as many draws as there are samples, and one image may come several times. The
    images of a class come in a random order, and again only when each of them was there.

    Args:
        probabilities: Of each class, ``(C,)``, float64.
        images: The images of each class.
        length: Draws in an epoch.
        seed: The seed of the run.
    """

    probabilities: NDArray[np.float64]
    images: Sequence[NDArray[np.int64]]
    length: int
    seed: int

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        """The samples of an epoch in their order, a function of the seed and the epoch alone."""
        drawn = epoch_generator(self.seed, Stream.RARE_CLASSES, epoch).choice(
            len(self.probabilities), size=self.length, p=self.probabilities
        )
        rng = epoch_generator(self.seed, Stream.IMAGES_OF_RARE_CLASSES, epoch)
        order = np.empty(self.length, dtype=np.int64)
        for class_id, images in enumerate(self.images):
            places = np.flatnonzero(drawn == class_id)
            if len(places):
                rounds = -(-len(places) // len(images))
                stream = np.concatenate([rng.permutation(images) for _ in range(rounds)])
                order[places] = stream[: len(places)]
        return order


def rare_class_order(
    image_pixels: NDArray[np.int64],
    areas: NDArray[np.int64] | None = None,
    *,
    temperature: float = 0.01,
    seed: int = 0,
    min_share: float = _MIN_SHARE,
) -> RareClassOrder:
    r"""Draw class :math:`c` with a probability proportional to :math:`\exp((1 - f_c) / T)`.

    :math:`f_c` is the share of the class in all pixels; a class without a pixel is never drawn. An
    image stands for a class when the class fills at least `min_share` of it, so that a crop has a
    chance to meet it; where no image has so much of a class, all that hold it stand for it.

    Args:
        image_pixels: Pixels of each class in each image, ``(N, C)``.
        areas: Pixels of each image that have an answer, ``(N,)``; None: the sum over the classes.
        temperature: :math:`T`. Near 0 only the rarest class is drawn, and with a large one each
            class as often as any other.
        seed: The seed of the run.
        min_share: As above.

    Raises:
        DataError: When no pixel has a class.

    References:
        Hoyer, Dai, Van Gool: DAFormer: Improving Network Architectures and Training Strategies for
        Domain-Adaptive Semantic Segmentation. CVPR 2022, section 3.2. There an image needs 3000
        pixels of the class, which is `min_share` of its images.

    Example:
        >>> order = rare_class_order(np.array([[90, 0], [90, 0], [80, 10]]), temperature=0.1)
        >>> order(epoch=0)  # the third image is the only one of the second class
        array([2, 2, 2])
    """
    image_pixels = np.asarray(image_pixels, dtype=np.int64)
    areas = image_pixels.sum(1) if areas is None else np.asarray(areas, dtype=np.int64)
    present = image_pixels.any(0)
    if not present.any():
        raise DataError(
            "loader.sampling=rare_class draws classes, but no pixel of the train split has one; use"
            " loader.sampling=uniform"
        )
    exponents = (1 - image_pixels.sum(0) / areas.sum()) / temperature
    exponents[~present] = -np.inf
    likely = np.exp(exponents - exponents[present].max())
    images = []
    for pixels in image_pixels.T:
        enough = np.flatnonzero((pixels > 0) & (pixels >= min_share * areas))
        images.append(enough if len(enough) else np.flatnonzero(pixels))
    return RareClassOrder(likely / likely.sum(), images, len(image_pixels), seed)
