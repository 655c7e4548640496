"""A rectangle of pixels."""

from collections.abc import Sequence
from typing import NamedTuple


class Area(NamedTuple):
    """The pixels ``rows`` x ``columns`` of a frame; ``frame[area]`` cuts them out."""

    rows: slice
    columns: slice

    @classmethod
    def whole(cls, height: int, width: int) -> "Area":
        """All of a frame of ``height`` x ``width`` pixels."""
        return cls(slice(0, height), slice(0, width))

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self.rows.stop - self.rows.start)

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.columns.stop - self.columns.start)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def moved(self, rows: int, columns: int) -> "Area":
        """This area, so many ``rows`` further down and ``columns`` further right."""
        y, x = self
        return Area(slice(y.start + rows, y.stop + rows), slice(x.start + columns, x.stop + columns))

    def within(self, other: "Area") -> "Area":
        """The part of this area that lies in ``other``, counted from the start of ``other``."""
        return Area(_within(self.rows, other.rows), _within(self.columns, other.columns))


def _within(span: slice, other: slice) -> slice:
    size = other.stop - other.start
    return slice(*(min(max(0, border - other.start), size) for border in (span.start, span.stop)))


def around(areas: Sequence[Area]) -> Area:
    """The smallest area that contains ``areas``, of which there is at least one."""
    axes = ([area[i] for area in areas] for i in range(2))
    return Area(*(slice(min(s.start for s in spans), max(s.stop for s in spans)) for spans in axes))
