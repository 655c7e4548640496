"""Window positions on a frame, and rectangles of them.

A block is the unit of computation: a small rectangle of window positions whose latents are computed together, at
fixed places of the grid. A tile is the unit of work: a rectangle of whole blocks. Whatever the tiling, the same
windows share the same block, so the maps are identical to the bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hrtemvae_hpc.area import Area


@dataclass(frozen=True)
class WindowGrid:
    """All positions of a square window on a frame of ``height`` x ``width`` pixels, ``step`` pixels apart."""

    height: int
    width: int
    window: int
    step: int

    @property
    def rows(self) -> int:
        """Window positions along y."""
        return (self.height - self.window) // self.step + 1

    @property
    def columns(self) -> int:
        """Window positions along x."""
        return (self.width - self.window) // self.step + 1

    @property
    def covered(self) -> Area:
        """The area that all windows cover."""
        return self.area(Rectangle(0, self.rows, 0, self.columns))

    def area(self, windows: "Rectangle") -> Area:
        """The area that ``windows`` cover."""
        return Area(self._pixels(windows.row0, windows.row1), self._pixels(windows.column0, windows.column1))

    def _pixels(self, start: int, stop: int) -> slice:
        """The pixels that windows ``start:stop`` of one axis cover."""
        return slice(start * self.step, (stop - 1) * self.step + self.window)

    def centres(self, count: int) -> np.ndarray:
        """Centres [count] of the windows of one axis, in pixels (the first pixel's centre is 0)."""
        return np.arange(count) * self.step + (self.window - 1) / 2


@dataclass(frozen=True)
class Rectangle:
    """Window positions row0:row1 x column0:column1 of a grid."""

    row0: int
    row1: int
    column0: int
    column1: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.row1 - self.row0, self.column1 - self.column0

    @property
    def windows(self) -> int:
        return self.shape[0] * self.shape[1]

    def within(self, other: "Rectangle") -> tuple[slice, slice]:
        """The rows and columns of ``other``, which it lies in, that are its own."""
        rows = slice(self.row0 - other.row0, self.row1 - other.row0)
        return rows, slice(self.column0 - other.column0, self.column1 - other.column0)

    def __str__(self) -> str:
        return f"window rows {self.row0}:{self.row1}, columns {self.column0}:{self.column1}"


def _spans(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    return [(a, min(a + size, stop)) for a in range(start, stop, size)]


def cut(rectangle: Rectangle, rows: int, columns: int) -> Iterator[Rectangle]:
    """``rectangle`` cut row by row into pieces of at most ``rows`` x ``columns`` window positions."""
    for row0, row1 in _spans(rectangle.row0, rectangle.row1, rows):
        for column0, column1 in _spans(rectangle.column0, rectangle.column1, columns):
            yield Rectangle(row0, row1, column0, column1)


@dataclass(frozen=True)
class Tiling:
    """A grid cut into tiles of ``block_rows`` x ``block_columns`` blocks of ``block`` x ``block`` windows."""

    grid: WindowGrid
    block: int
    block_rows: int
    block_columns: int

    @property
    def row_spans(self) -> list[tuple[int, int]]:
        """First and last + 1 window row of each row of tiles."""
        return _spans(0, self.grid.rows, self.block_rows * self.block)

    @property
    def column_spans(self) -> list[tuple[int, int]]:
        """First and last + 1 window column of each column of tiles."""
        return _spans(0, self.grid.columns, self.block_columns * self.block)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.row_spans) * len(self.column_spans)

    @property
    def largest(self) -> Rectangle:
        """The first tile; no other is larger."""
        return Rectangle(*self.row_spans[0], *self.column_spans[0])

    @cached_property
    def tiles(self) -> list[Rectangle]:
        """The tiles, row by row."""
        return [Rectangle(*rows, *columns) for rows in self.row_spans for columns in self.column_spans]

    def blocks(self, tile: Rectangle) -> list[Rectangle]:
        """The blocks of a tile, in the coordinates of the whole grid."""
        return list(cut(tile, self.block, self.block))
