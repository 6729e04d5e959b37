"""The connected regions of a class map, with outlines along the edges of pixels.

Pixels are connected to their left, right, upper and lower neighbour. Every pixel edge between two
classes is a step of an outline, directed so that the region lies on its right in the image. Which
step comes next depends on the neighbours of the pixel alone, so the steps are found band by band.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.inference.writers.regions import Ints, Region
from segtrain.inference.writers.rings import connected, occurs_twice, split_ring

_TOP, _RIGHT, _BOTTOM, _LEFT = range(4)
_OUTSIDE = -1
_ENOUGH = 1 << 19  # steps at which regions are looked for before the last row
# By side: the offsets (y, x) of the next pixel along the side, and of the one across the corner.
_ALONG = ((0, 1), (1, 0), (0, -1), (-1, 0))
_ACROSS = ((-1, 1), (1, 1), (1, -1), (-1, -1))
_BEFORE = ((-1, 0), (0, 1), (1, 0), (0, -1))  # the pixel on the other side of the edge
_START = np.array(((0, 0), (0, 1), (1, 1), (1, 0)))  # the corner (y, x) at which the step starts


class Outlines:
    """Finds the regions of a class map that comes in bands of rows.

    Args:
        width: Number of columns.
        num_ids: Number of class ids; pixels of other values belong to no region.
        first: The smallest class id with regions.

    Example:
        >>> outlines = Outlines(3, num_ids=2)
        >>> outlines.add(np.array([[0, 1, 1]]))
        >>> [(region.class_id, region.rings[0].tolist()) for region in outlines.regions()]
        [(0, [[0, 0], [1, 0], [1, 1], [0, 1]]), (1, [[1, 0], [3, 0], [3, 1], [1, 1]])]
    """

    def __init__(self, width: int, num_ids: int, *, first: int = 0) -> None:
        self.width, self.num_ids, self.first = width, num_ids, first
        self.height = 0
        self._above = self._outside(1)
        self._pending = self._outside(0)
        self._found: list[tuple[Ints, Ints, NDArray[Any]]] = []
        self._enough = _ENOUGH

    def add(self, ids: NDArray[Any]) -> None:
        """Add the next rows, ``(R, W)``, integers."""
        rows = np.concatenate([self._pending, ids.astype(np.int32, copy=False)])
        self._search(np.concatenate([self._above, rows]), len(rows) - 1)
        self._above = rows[-2:-1] if len(rows) > 1 else self._above
        self._pending = rows[-1:]
        self.height += len(ids)

    def closed(self, min_area: int = 1) -> Iterator[Region]:
        """Yield regions that no further row can change, once there are many steps of outlines.

        Regions that were yielded are forgotten, which bounds the memory for large images.
        """
        number = sum(len(keys) for keys, _, _ in self._found)
        if number < self._enough:
            return
        keys, following, classes = self._joined()
        part_of, last = self._parts(keys, following), self.height - len(self._pending)
        is_open = np.zeros(part_of.max() + 1, np.bool_)
        is_open[part_of[keys // (4 * self.width) == last - 1]] = True
        kept = is_open[part_of]
        self._found = [(keys[kept], following[kept], classes[kept])]
        self._enough = max(_ENOUGH, 2 * int(kept.sum()))
        yield from self._group(keys[~kept], following[~kept], classes[~kept], min_area)

    def regions(self, min_area: int = 1) -> Iterator[Region]:
        """Yield the regions of at least `min_area` pixels, after the last row was added."""
        self._search(np.concatenate([self._above, self._pending, self._outside(1)]), 1)
        if self._found:
            yield from self._group(*self._joined(), min_area)

    def _joined(self) -> tuple[Ints, Ints, NDArray[Any]]:
        """Return the steps found so far, which are then forgotten."""
        keys, following, classes = (
            np.concatenate([part[index] for part in self._found]) for index in range(3)
        )
        self._found = []
        return keys, following, classes

    def _parts(self, keys: Ints, following: Ints) -> Ints:
        """Return a number per step, the same for all steps found so far of one region."""
        left, right = _ends(keys)
        place = np.searchsorted(keys, following).clip(max=len(keys) - 1)
        known = np.flatnonzero(keys[place] == following)
        return connected(
            len(keys), np.concatenate([known, left]), np.concatenate([place[known], right])
        )

    def _outside(self, rows: int) -> NDArray[np.int32]:
        return np.full((rows, self.width), _OUTSIDE, np.int32)

    def _search(self, rows: NDArray[np.int32], number: int) -> None:
        """Find the steps around the pixels of `number` rows; one row above and one below is known.

        A step is the number of its pixel times 4, plus its side.
        """
        if number < 1:
            return
        padded = np.pad(rows, ((0, 0), (1, 1)), constant_values=_OUTSIDE)
        wide = padded.shape[1]
        inner = padded[1 : number + 1, 1:-1]
        edge = np.zeros(inner.shape, np.bool_)
        for dy, dx in _BEFORE:
            edge |= padded[1 + dy : number + 1 + dy, 1 + dx : wide - 1 + dx] != inner
        edge &= (inner >= self.first) & (inner < self.num_ids)
        y, x = np.nonzero(edge)
        flat, place = padded.ravel(), (y + 1) * wide + x + 1
        own = flat[place]
        pixel = (y + self.height - len(self._pending)) * self.width + x
        is_step = np.stack([flat[place + dy * wide + dx] != own for dy, dx in _BEFORE], 1).ravel()
        steps = [self._next(side, flat, place, pixel, wide) for side in range(4)]
        keys = (pixel[:, None] * 4 + np.arange(4)).ravel()[is_step]
        following = np.stack(steps, 1).ravel()[is_step]
        self._found.append((keys, following, np.repeat(own, 4)[is_step]))

    def _next(
        self, side: int, flat: NDArray[np.int32], place: Ints, pixel: Ints, wide: int
    ) -> Ints:
        """Return the step after the one at `side` of each pixel."""
        own = flat[place]
        along, across = _ALONG[side], _ACROSS[side]
        goes_on = flat[place + along[0] * wide + along[1]] == own
        turns_left = flat[place + across[0] * wide + across[1]] == own
        straight = (pixel + along[0] * self.width + along[1]) * 4 + side
        left = (pixel + across[0] * self.width + across[1]) * 4 + (side - 1) % 4
        right = pixel * 4 + (side + 1) % 4
        return np.where(goes_on, np.where(turns_left, left, straight), right)

    def _rings(self, keys: Ints, following: Ints) -> list[Ints]:
        """Return rings of steps, each visiting a corner at most once."""
        after = array("q", np.searchsorted(keys, following).astype(np.int64).tobytes())
        seen = bytearray(len(keys))
        order, starts = array("q"), array("q")
        for first in range(len(keys)):
            if seen[first]:
                continue
            starts.append(len(order))
            step = first
            while not seen[step]:
                seen[step] = 1
                order.append(step)
                step = after[step]
        steps, begin = np.array(order), np.array(starts)
        corners = self._corners(keys[steps]) @ [1, self.width + 1]
        number = np.repeat(np.arange(len(begin)), np.diff([*begin, len(steps)]))
        twice = occurs_twice(number * (corners.max() + 1) + corners)
        rings: list[Ints] = []
        for ring, places, is_twice in zip(
            *(np.split(values, begin[1:]) for values in (steps, corners, twice)), strict=True
        ):
            rings.extend(split_ring(ring, places, is_twice) if is_twice.any() else [ring])
        return rings

    def _corners(self, keys: Ints) -> Ints:
        """Return where steps start, ``(n, 2)``, as x and y."""
        pixel, side = np.divmod(keys, 4)
        y, x = np.divmod(pixel, self.width)
        start = _START[side]
        return np.stack([x + start[:, 1], y + start[:, 0]], 1)

    def _group(
        self, keys: Ints, following: Ints, classes: NDArray[Any], min_area: int
    ) -> Iterator[Region]:
        """Put the rings of a region together: a row of its pixels runs from ring to ring."""
        if not len(keys):
            return
        rings = self._rings(keys, following)
        ring_of = np.empty(len(keys), np.int64)
        for number, ring in enumerate(rings):
            ring_of[ring] = number
        left, right = _ends(keys)
        region_of = connected(len(rings), ring_of[left], ring_of[right])
        lengths = keys[right] // 4 - keys[left] // 4 + 1
        areas = np.bincount(region_of[ring_of[left]], lengths).astype(np.int64)
        members: list[list[Ints]] = [[] for _ in areas]
        for ring, region in zip(rings, region_of, strict=True):
            if areas[region] >= min_area:
                members[region].append(ring)
        for area, parts in zip(areas, members, strict=True):
            if parts:
                yield self._region(keys, int(classes[parts[0][0]]), int(area), parts)

    def _region(self, keys: Ints, class_id: int, area: int, parts: Sequence[Ints]) -> Region:
        # The first step of a region, in reading order, belongs to its outer ring.
        rings = [self._simple(keys[ring]) for ring in sorted(parts, key=np.min)]
        steps = keys[np.concatenate(parts)]
        tops, bottoms = (steps[steps % 4 == side] // 4 for side in (_TOP, _BOTTOM))
        starts, stops = (
            np.stack([pixels % self.width, pixels // self.width + below], 1)
            for pixels, below in ((tops, 0), (bottoms, 1))
        )
        return Region(class_id, area, tuple(rings), starts, stops)

    def _simple(self, keys: Ints) -> Ints:
        """Return the corners of a ring at which its direction changes."""
        sides = keys % 4
        turns = np.empty(len(keys), np.bool_)
        turns[0] = sides[0] != sides[-1]
        turns[1:] = sides[1:] != sides[:-1]
        return self._corners(keys[turns])


def _ends(keys: Ints) -> tuple[Ints, Ints]:
    """Return the steps at the left and the right end of every row of pixels of one region."""
    left, right = (np.flatnonzero(keys % 4 == side) for side in (_LEFT, _RIGHT))
    return left, right
