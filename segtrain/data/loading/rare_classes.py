"""Rare-class sampling: an epoch of images that are drawn by the classes in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segtrain.data.loading.seeds import SampleKey, Stream, epoch_generator
from segtrain.errors import DataError

MIN_SHARE = 0.0015  # 3000 pixels of the 1052 x 1914 images of the paper


@dataclass(frozen=True)
class RareClassOrder:
    """The order of an epoch in which a class is drawn first, then an image that holds it.

    An epoch has the same number of draws as samples, so an image may occur several times. The
    images of a class come in random order, and none is repeated before all of them were drawn.

    Args:
        probabilities: The probability of each class, ``(C,)``, float64.
        images: The images of each class.
        length: Number of draws in an epoch.
        seed: The seed of the run.
    """

    probabilities: NDArray[np.float64]
    images: Sequence[NDArray[np.int64]]
    length: int
    seed: int
    _known: dict[int, dict[int, list[int]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def class_of(self, key: SampleKey) -> int:
        """Return the class that a sample was drawn for."""
        epoch, index, *repeat = key
        if epoch not in self._known:
            self._known.clear()  # one epoch after the other
            found: dict[int, list[int]] = defaultdict(list)
            for image, drawn in zip(self(epoch).tolist(), self._classes(epoch), strict=True):
                found[image].append(int(drawn))
            self._known[epoch] = found
        return self._known[epoch][index][sum(repeat)]

    def _classes(self, epoch: int) -> NDArray[np.int64]:
        return epoch_generator(self.seed, Stream.RARE_CLASSES, epoch).choice(
            len(self.probabilities), size=self.length, p=self.probabilities
        )

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        """Return the samples of an epoch in order, a function of the seed and the epoch only."""
        drawn = self._classes(epoch)
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
    min_share: float = MIN_SHARE,
) -> RareClassOrder:
    r"""Draw class :math:`c` with a probability proportional to :math:`\exp((1 - f_c) / T)`.

    :math:`f_c` is the share of the class in all pixels; a class without a pixel is never drawn. An
    image can be drawn for a class if the class fills at least `min_share` of it, so that a random
    crop is likely to contain it. If no image holds that much of a class, every image that holds it
    can be drawn.

    Args:
        image_pixels: Pixels of each class in each image, ``(N, C)``.
        areas: Valid pixels of each image, ``(N,)``; None: the sum over the classes.
        temperature: :math:`T`. Near 0 only the rarest class is drawn; a large value draws all
            classes equally often.
        seed: The seed of the run.
        min_share: The smallest share of an image, see above.

    Raises:
        DataError: When no pixel has a class.

    References:
        Hoyer, Dai, Van Gool: DAFormer: Improving Network Architectures and Training Strategies for
        Domain-Adaptive Semantic Segmentation. CVPR 2022, section 3.2. There an image needs 3000
        pixels of the class, which is the default `min_share` of its images. As there, up to ten
        more crops are drawn until one holds half as many: see
        :class:`~segtrain.data.transforms.training.TrainTransform`.

    Example:
        >>> order = rare_class_order(np.array([[90, 0], [90, 0], [80, 10]]), temperature=0.1)
        >>> order(epoch=0)  # the third image is the only one of the second class
        array([2, 2, 2])
    """
    image_pixels = np.asarray(image_pixels, dtype=np.int64)
    areas = image_pixels.sum(1) if areas is None else np.asarray(areas, dtype=np.int64)
    if not image_pixels.any():
        raise DataError(
            "loader.sampling=rare_class draws classes, but no pixel of the train split has a class;"
            " use loader.sampling=uniform"
        )
    probabilities = _probabilities(image_pixels.sum(0), int(areas.sum()), temperature)
    images = [_images_of(pixels, areas, min_share) for pixels in image_pixels.T]
    return RareClassOrder(probabilities, images, len(image_pixels), seed)


def _probabilities(
    class_pixels: NDArray[np.int64], total: int, temperature: float
) -> NDArray[np.float64]:
    exponents = (1 - class_pixels / total) / temperature
    exponents[class_pixels == 0] = -np.inf
    likely = np.exp(exponents - exponents.max())
    probabilities: NDArray[np.float64] = likely / likely.sum()
    return probabilities


def _images_of(
    pixels: NDArray[np.int64], areas: NDArray[np.int64], min_share: float
) -> NDArray[np.int64]:
    """Return the images that hold enough of a class, or all that hold it if none does."""
    chosen = np.flatnonzero((pixels > 0) & (pixels >= min_share * areas))
    return chosen if len(chosen) else np.flatnonzero(pixels)
