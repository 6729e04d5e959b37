"""Distance transforms, and the boundaries between the classes of a target.

A boundary runs between two pixels, so the pixels next to it are half a pixel away from it.
"""

from __future__ import annotations

import importlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FAR = 1e6  # finite, and above any distance in an image


def distance_to(mask: Tensor) -> Tensor:
    """Euclidean distance from each pixel to the nearest True pixel of its map, in pixels.

    The result is exact up to float32 rounding. OpenCV computes it on the CPU. A map on another
    device is copied to the CPU and the result back, which synchronises that device.

    Args:
        mask: Maps of pixels. Where a map has no True pixel, all its distances are ``FAR``.

    Shape:
        - mask: ``(N, H, W)``, bool.
        - output: ``(N, H, W)``, float32, without a graph.

    Example:
        >>> distance_to(torch.tensor([[[True, False, False], [False, False, False]]]))
        tensor([[[0.0000, 1.0000, 2.0000],
                 [1.0000, 1.4142, 2.2361]]])

    References:
        Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions, Theory of Computing
        2012, which is what ``DIST_MASK_PRECISE`` stands for.
    """
    # Even an eager call of the operator would import torch._dynamo, which takes a second.
    found: Tensor = _opaque_distances(mask) if torch.compiler.is_compiling() else _distances(mask)
    return found


def signed_distance(mask: Tensor, valid: Tensor | None = None) -> Tensor:
    r"""Distance from each pixel to the boundary of `mask`: negative inside, positive outside.

    .. math:: \phi_i = \begin{cases} \tfrac{1}{2} - \min_{j \notin M} |i - j| & i \in M \\
              \min_{j \in M} |i - j| - \tfrac{1}{2} & i \notin M \end{cases}

    Args:
        mask: True inside.
        valid: False at pixels that are neither inside nor outside; the edge of `mask` towards them
            is not a boundary. All pixels are valid by default.

    Shape:
        - mask, valid: ``(N, H, W)``, bool.
        - output: ``(N, H, W)``, float32, without a graph; 0 at pixels that are not valid, and in a
          whole map without inside or without outside, because it has no boundary.

    Note:
        Inside and outside are treated alike: the complement of `mask` has the negated distances.
        The code of Kervadec et al. measures to the pixels next to the boundary and not to the line
        between them. It returns 0 and 1 where this function returns -1/2 and 1/2, so a line one
        pixel wide is 0 along its whole length.

    Example:
        >>> signed_distance(torch.tensor([[[False, False, True, True, True]]]))
        tensor([[[ 1.5000,  0.5000, -0.5000, -1.5000, -2.5000]]])
    """
    valid = torch.ones_like(mask) if valid is None else valid
    inside, outside = mask & valid, ~mask & valid
    distance = torch.where(inside, 0.5 - distance_to(outside), distance_to(inside) - 0.5)
    has_boundary = inside.flatten(1).any(1) & outside.flatten(1).any(1)
    return torch.where(valid & has_boundary[:, None, None], distance, 0)


def boundary_pixels(target: Tensor, ignore_label: int, width: int = 1) -> Tensor:
    """Find the pixels that have another class nearby.

    Args:
        target: Class ids.
        ignore_label: Value of pixels without a class. They are not boundary pixels, and the edge
            towards them is not a boundary.
        width: Largest distance to the other class in rows and in columns, at least 1. A boundary is
            ``2 * width`` pixels wide.

    Shape:
        - target: ``(N, H, W)``, integer.
        - output: ``(N, H, W)``, bool.

    Example:
        >>> boundary_pixels(torch.tensor([[[0, 0, 0, 1, 1, 255, 2]]]), ignore_label=255)
        tensor([[[False, False,  True,  True, False, False, False]]])
    """
    valid, ids = target != ignore_label, target.float()
    largest = _largest_near(torch.where(valid, ids, -torch.inf), width)
    smallest = -_largest_near(torch.where(valid, -ids, -torch.inf), width)
    return valid & (largest > smallest)


def boundary_distance(target: Tensor, ignore_label: int) -> Tensor:
    """Distance from each pixel to the nearest boundary between two classes, in pixels.

    One transform serves all classes: it measures the distance to the pixels next to a boundary, and
    half a pixel is added. Off rows and columns, the result is up to half a pixel too small.

    Args:
        target: Class ids.
        ignore_label: Value of pixels without a class; see :func:`boundary_pixels`.

    Shape:
        - target: ``(N, H, W)``, integer.
        - output: ``(N, H, W)``, float32; ``FAR`` in an image without a boundary.

    Example:
        >>> boundary_distance(torch.tensor([[[0, 0, 0, 1, 1]]]), ignore_label=255)
        tensor([[[2.5000, 1.5000, 0.5000, 0.5000, 1.5000]]])
    """
    return (distance_to(boundary_pixels(target, ignore_label)) + 0.5).clamp(max=FAR)


def _largest_near(values: Tensor, width: int) -> Tensor:
    """Maximum over a square of side ``2 * width + 1`` around each pixel, ``(N, H, W)``."""
    size = 2 * width + 1
    rows = F.max_pool2d(values[:, None], (size, 1), stride=1, padding=(width, 0))
    square: Tensor = F.max_pool2d(rows, (1, size), stride=1, padding=(0, width))
    return square[:, 0]


def _distances(mask: Tensor) -> Tensor:
    cv2 = importlib.import_module("cv2")
    # OpenCV measures the distance to the nearest zero.
    away = (~mask).to("cpu", torch.uint8).contiguous().numpy()
    found = np.full(away.shape, FAR, dtype=np.float32)
    for index, image in enumerate(away):
        if not image.all():
            distance = cv2.distanceTransform(image, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            # OpenCV's last digit depends on its memory layout; squared distances are integers.
            found[index] = np.sqrt(np.rint(distance.astype(np.float64) ** 2))
    return torch.from_numpy(found).to(mask.device)


@torch.library.custom_op("segtrain::distances", mutates_args=())
def _opaque_distances(mask: Tensor) -> Tensor:
    """:func:`_distances` as an operator that torch.compile calls without tracing it."""
    return _distances(mask)


@_opaque_distances.register_fake
def _(mask: Tensor) -> Tensor:
    return torch.empty_like(mask, dtype=torch.float32)
