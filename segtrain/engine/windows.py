"""A model applied to an image in overlapping windows, whose logits are blended.

The windows start at multiples of 32 pixels, a multiple of every model's output stride. Their logits
therefore lie on the grid of the logits of the whole image, and are blended there, before any
upsampling. An image is processed from the top, one row of windows at a time, so that neither the
image nor its logits need to fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segtrain.criterion.strips.axis import Axis, linear_axis
from segtrain.schema.sections import WINDOW_MULTIPLE

Span = tuple[int, int]  # first entry, and the entry after the last
_STRIDES = [stride for stride in range(1, WINDOW_MULTIPLE + 1) if WINDOW_MULTIPLE % stride == 0]
_ROWS = 256  # rows of the result that are returned at a time, at most


class Band(NamedTuple):
    """Some rows of the logits of an image, ``(N, C, r, w)``, which follow those of the last band.

    Attributes:
        logits: The logits.
        first: Index of their first row in the logits of the whole image.
        height: Number of rows of these.
    """

    logits: Tensor
    first: int
    height: int


class Windows:
    """The windows that cover an image.

    Args:
        size: Height and width of the image.
        window: Height and width of a window, multiples of 32. It is as large as the image along an
            axis along which the image is smaller.
        stride: Distance of the windows, multiples of 32. The last window along an axis starts at a
            smaller distance if that is enough to reach the end of the image, and may be up to 31
            pixels larger.
        blend: ``gaussian``: the weight of a window falls off from its centre, with a standard
            deviation of an eighth of its size, as in nnU-Net. ``uniform``: all weights are equal.

    Example:
        >>> windows = Windows((100, 64), (64, 64), (32, 32), "uniform")
        >>> windows.rows, windows.columns
        ([(0, 64), (32, 100)], [(0, 64)])
    """

    def __init__(self, size: Span, window: Span, stride: Span, blend: str) -> None:
        self.size = size
        self.blend = blend
        self.rows, self.columns = map(_spans, size, window, stride)

    def bands(
        self,
        read: Callable[[Span, Span], Tensor],
        logits_of: Callable[[Tensor], Tensor],
        batch_size: int = 1,
    ) -> Iterator[Band]:
        """Yield the logits of the image from the top.

        Args:
            read: Returns the pixels of some rows and columns, ``(N, channels, h, w)``.
            logits_of: Applies the model, ``(N, C, h / s, w / s)``.
            batch_size: Number of windows of one size that the model gets at a time.
        """
        if len(self.rows) == len(self.columns) == 1:
            logits = logits_of(read(self.rows[0], self.columns[0]))
            yield Band(logits, 0, logits.shape[2])
            return
        grid = self._grid(read, logits_of)
        most = max(-(-(stop - start) // grid.down) for start, stop in self.rows)
        pending = _Pending(grid, most, self.blend)
        for index, rows in enumerate(self.rows):
            for columns, logits in self._row(rows, read, logits_of, batch_size):
                pending.add(rows[0] // grid.down, columns[0] // grid.across, logits)
            is_last = index + 1 == len(self.rows)
            yield pending.pop(grid.height if is_last else self.rows[index + 1][0] // grid.down)

    def _grid(
        self, read: Callable[[Span, Span], Tensor], logits_of: Callable[[Tensor], Tensor]
    ) -> _Grid:
        """The logits of the whole image, from those of the window at its lower right corner."""
        rows, columns = self.rows[-1], self.columns[-1]
        height, width = logits_of(read(rows, columns)).shape[2:]
        down, across = _stride(rows, height, self.rows), _stride(columns, width, self.columns)
        return _Grid(rows[0] // down + height, columns[0] // across + width, down, across)

    def _row(
        self,
        rows: Span,
        read: Callable[[Span, Span], Tensor],
        logits_of: Callable[[Tensor], Tensor],
        batch_size: int,
    ) -> Iterator[tuple[Span, Tensor]]:
        """Yield the columns and logits of the windows of one row."""
        waiting: list[tuple[Span, Tensor]] = []
        for columns in self.columns:
            pixels = read(rows, columns)
            is_other = bool(waiting) and waiting[0][1].shape != pixels.shape
            if is_other or len(waiting) == batch_size:
                yield from _logits_of_each(waiting, logits_of)
                waiting = []
            waiting.append((columns, pixels))
        yield from _logits_of_each(waiting, logits_of)


def _logits_of_each(
    windows: Sequence[tuple[Span, Tensor]], logits_of: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Span, Tensor]]:
    logits = logits_of(torch.cat([pixels for _, pixels in windows]))
    parts = logits.split(len(windows[0][1]))  # type: ignore[no-untyped-call]
    yield from zip([columns for columns, _ in windows], parts, strict=True)


def _spans(length: int, window: int, stride: int) -> list[Span]:
    """The windows along one axis."""
    if length <= window:
        return [(0, length)]
    starts = range(0, length - window, stride)
    last = (length - window) // WINDOW_MULTIPLE * WINDOW_MULTIPLE
    spans = [(start, start + window) for start in starts if start < last]
    return [*spans, (last, length)]


def _stride(span: Span, entries: int, spans: Sequence[Span]) -> int:
    """The number of pixels per logit along one axis, a divisor of 32."""
    if len(spans) == 1:
        return 1  # of no account, as there is one window at 0
    length = span[1] - span[0]
    for stride in _STRIDES:
        if entries in (length // stride, -(-length // stride)):
            return stride
    raise ValueError(
        f"the model returns {entries} logits for {length} pixels, so windows cannot be blended: a"
        f" logit must stand for {', '.join(map(str, _STRIDES))} pixels"
    )


class _Grid(NamedTuple):
    """The size of the logits of an image, and the pixels per logit along each axis."""

    height: int
    width: int
    down: int
    across: int


class _Pending:
    """The weighted sum of the logits of windows, for the rows that are not complete.

    Args:
        grid: The logits of the image.
        rows: The largest number of rows of the logits of a window.
        blend: How windows are weighted.
    """

    def __init__(self, grid: _Grid, rows: int, blend: str) -> None:
        self.grid, self.rows, self.blend = grid, rows, blend
        self.first = 0
        self.total: Tensor | None = None  # (N, C, rows, width)
        self.weight = torch.zeros(rows, grid.width)

    def add(self, top: int, left: int, logits: Tensor) -> None:
        """Add the logits ``(N, C, h, w)`` of a window whose first row and column are given."""
        height, width = logits.shape[2:]
        if self.total is None:
            shape = (*logits.shape[:2], self.rows, self.grid.width)
            self.total = torch.zeros(shape, device=logits.device)
            self.weight = self.weight.to(logits.device)
        down = slice(top - self.first, top - self.first + height)
        across = slice(left, left + width)
        weight = _weights(height, self.blend)[:, None] * _weights(width, self.blend)
        weight = weight.to(logits.device)
        self.total[:, :, down, across].addcmul_(logits.float(), weight)
        self.weight[down, across] += weight

    def pop(self, stop: int) -> Band:
        """Return the rows before `stop`, which no further window reaches, and forget them."""
        assert self.total is not None
        done = stop - self.first
        band = Band(self.total[:, :, :done] / self.weight[:done], self.first, self.grid.height)
        for sums in (self.total, self.weight):
            kept = sums[..., done:, :].clone()
            sums.zero_()[..., : self.rows - done, :] = kept
        self.first = stop
        return band


def _weights(entries: int, blend: str) -> Tensor:
    if blend == "uniform":
        return torch.ones(entries)
    place = torch.arange(entries) - (entries - 1) / 2
    return (-0.5 * (place / (entries / 8)) ** 2).exp()


class Rows(NamedTuple):
    """Some rows of an image, and the logits that they are upsampled from.

    Attributes:
        rows: The rows.
        part: Where they lie between the rows of `logits`.
        logits: ``(N, C, r, w)``.
    """

    rows: slice
    part: Axis
    logits: Tensor


def rows_of(
    bands: Iterable[Band], height: int, align_corners: bool, most: int = _ROWS
) -> Iterator[Rows]:
    """Yield the rows of an image of some `height` as soon as a band completes their logits.

    Args:
        bands: The logits.
        height: Number of rows of the image.
        align_corners: How the logits are upsampled.
        most: The largest number of rows that are yielded together.
    """
    done, held, first = 0, None, 0
    for band in bands:
        axis = linear_axis(band.height, height, align_corners)
        held = band.logits if held is None else torch.cat([held, band.logits], 2)
        ready = int(torch.searchsorted(axis.high, band.first + band.logits.shape[2]))
        while done < ready:
            stop = min(done + most, ready)
            above, below = int(axis.low[done]), int(axis.high[stop - 1]) + 1
            part = axis.part(done, stop, offset=above)
            yield Rows(slice(done, stop), part, held[:, :, above - first : below - first])
            done = stop
        if done < height:
            kept = int(axis.low[done])
            held, first = held[:, :, kept - first :].clone(), kept
