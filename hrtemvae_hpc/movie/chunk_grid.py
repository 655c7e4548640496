"""Which chunks a read touches: how the analysed part lies in the grid of a movie's chunks, or of lines without."""

import math
from dataclasses import dataclass
from itertools import pairwise, product, starmap
from typing import NamedTuple

import numpy as np

from hrtemvae_hpc.area import Area

_SIEVE = 2**16  # bytes of the buffer through which HDF5 reads what is not stored in chunks
_PIECE = 64  # pixels on the side of what is read of a damaged frame that is not stored in chunks


class Region(NamedTuple):
    """An area of some frames of a movie."""

    frames: slice
    area: Area


@dataclass(frozen=True)
class ChunkGrid:
    """The analysed part of a movie in the grid of its chunks. Nothing here reads the file.

    Frames, rows and columns count from the start of the analysed part, as those of ``Movie``.
    """

    full_shape: tuple[int, int, int]  # frames, rows and columns of the file
    frames: np.ndarray  # [frames] int, in the file
    area: Area  # in the file
    chunk: tuple[int, int, int] | None  # frames, rows and columns; None without chunks
    unit: tuple[int, int, int]  # frames, rows and columns that are read together: a chunk, or lines
    itemsize: int  # bytes of a pixel

    def slabs(self, frame_bytes: int, most: int) -> list[slice]:
        """The frames, of ``frame_bytes`` each, in slabs of about ``most`` bytes that share no chunk or line."""
        depth = self.unit[0]
        borders = np.flatnonzero(np.diff(self.frames // depth)) + 1
        starts, slab_start = [0], 0
        for border in borders:
            if (border - slab_start + depth) * frame_bytes > most:
                starts.append(int(border))
                slab_start = int(border)
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(self.frames)], strict=True)]

    def layers(self, slab: slice) -> list[slice]:
        """The frames of ``slab`` chunk by chunk: a chunk that can't be decoded is lost for all frames of a layer."""
        depth = self.chunk[0] if self.chunk else 1
        borders = np.flatnonzero(np.diff(self.frames[slab] // depth)) + 1 + slab.start
        return [slice(int(a), int(b)) for a, b in pairwise([slab.start, *borders, slab.stop])]

    def pieces(self, area: Area) -> tuple[list[slice], list[slice]]:
        """The rows and the columns of the chunks that ``area`` touches, cut to the region of interest."""
        _, height, width = self.chunk or (1, _PIECE, _PIECE)
        return self._cut(1, area.rows, height), self._cut(2, area.columns, width)

    def _cut(self, axis: int, span: slice, depth: int) -> list[slice]:
        """Each ``depth`` rows (axis 1) or columns (2) of the file that ``span`` touches, cut to the region."""
        start, stop = self.area[axis - 1].start, self.area[axis - 1].stop
        first, last = (start + span.start) // depth, (start + span.stop - 1) // depth
        borders = [(i * depth - start, (i + 1) * depth - start) for i in range(first, last + 1)]
        return [slice(max(0, a), min(stop - start, b)) for a, b in borders]

    def regions(self, area: Area, most: int, whole: bool) -> list[Region]:
        """All frames of ``area`` in regions of about ``most`` bytes, no two of which share a chunk or line.

        Each holds all of ``area`` if ``whole``.
        """
        areas = [area]
        if not whole:
            depth, height, width = self.unit
            columns = self._pieces_together(2, area.columns, most // (depth * height * self.itemsize))
            widest = max(width, *(span.stop - span.start for span in columns))
            rows = self._pieces_together(1, area.rows, most // (depth * widest * self.itemsize))
            areas = list(starmap(Area, product(rows, columns)))
        slabs = self.slabs(max(piece.pixels for piece in areas) * self.itemsize, most)
        return list(starmap(Region, product(slabs, areas)))

    def _pieces_together(self, axis: int, span: slice, most: int) -> list[slice]:
        """``span`` cut between chunks or lines into pieces of at most ``most`` rows (axis 1) or columns (2)."""
        starts = [span.start]
        for piece in self._cut(axis, span, self.unit[axis])[1:]:
            if min(piece.stop, span.stop) - starts[-1] > most:
                starts.append(piece.start)
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], span.stop], strict=True)]

    def decoded_bytes(self, area: Area, frames: slice = slice(None)) -> int:
        """Bytes that reading ``area`` of ``frames`` decodes: whole chunks or lines, each once."""
        return math.prod(self.decoded_extent(axis, span) for axis, span in enumerate((frames, *area))) * self.itemsize

    def decoded_extent(self, axis: int, span: slice) -> int:
        """Frames (axis 0), rows (1) or columns (2) of the chunks or lines that reading ``span`` touches."""
        size, depth = self.full_shape[axis], self.unit[axis]
        if axis == 0:
            chunks = np.unique(self.frames[span] // depth)
        else:
            start = self.area[axis - 1].start
            chunks = np.arange((start + span.start) // depth, (start + span.stop - 1) // depth + 1)
        return int(np.minimum(depth, size - chunks * depth).sum())


def line_together(shape: tuple[int, int, int], axes: str, itemsize: int) -> tuple[int, int, int]:
    """Frames, rows and columns that HDF5 reads together of a dataset that is not stored in chunks.

    All along an axis where they fit its buffer, which it fills with all that lies between the first and the last.
    ``shape`` is frames, rows and columns, ``axes`` their order in the file.
    """
    sizes = dict(zip("tyx", shape, strict=True))
    together = dict.fromkeys("tyx", 1)
    line = itemsize
    for axis in reversed(axes):
        line *= sizes[axis]
        if line <= _SIEVE:
            together[axis] = sizes[axis]
    return together["t"], together["y"], together["x"]
