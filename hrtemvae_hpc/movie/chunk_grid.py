"""Which chunks a read touches: how the analysed part lies in the grid of a movie's chunks, or of lines without."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
    shifts: np.ndarray | None = None  # [frames, 2] int, rows and columns by which an area lies elsewhere in a frame

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
        return self.decoded_bytes_of_grid([area.rows], [area.columns], frames)

    def decoded_bytes_of_grid(
        self, rows: Sequence[slice], columns: Sequence[slice], frames: slice = slice(None)
    ) -> int:
        """Bytes that reading each of ``rows`` x ``columns`` by itself decodes of ``frames``."""
        decoded, moves = self._all_moves if frames == slice(None) else self._moves(frames)
        by_row, by_column = self._decoded(1, rows, moves[:, 0]), self._decoded(2, columns, moves[:, 1])
        return int((decoded * by_row * by_column).sum()) * self.itemsize

    @cached_property
    def _all_moves(self) -> tuple[np.ndarray, np.ndarray]:
        return self._moves(slice(None))

    def _moves(self, frames: slice) -> tuple[np.ndarray, np.ndarray]:
        """Of each layer of chunks that holds ``frames``: how many frames are decoded, and how far areas are moved.

        The latter is [layers, 2, 2]: rows and columns, least and most. All layers are one where nothing moves.
        """
        depth = self.unit[0]
        layers, first = np.unique(self.frames[frames] // depth, return_index=True)
        decoded = np.minimum(depth, self.full_shape[0] - layers * depth)
        if self.shifts is None:
            return decoded.sum(keepdims=True), np.zeros((1, 2, 2), int)
        moved = self.shifts[frames]
        bounds = np.stack([np.minimum.reduceat(moved, first), np.maximum.reduceat(moved, first)], -1)
        return decoded, bounds

    def _decoded(self, axis: int, spans: Sequence[slice], moves: np.ndarray) -> np.ndarray:
        """Rows (axis 1) or columns (2) that reading each of ``spans`` decodes, together, for each of ``moves``."""
        distinct, which = np.unique(moves, axis=0, return_inverse=True)
        sums = [sum(self._extent(axis, span, int(low), int(high)) for span in spans) for low, high in distinct]
        return np.array(sums)[which.ravel()]

    def _extent(self, axis: int, span: slice, low: int, high: int) -> int:
        """Rows or columns of the chunks or lines that ``span`` touches where it is moved by ``low`` to ``high``."""
        size, depth, start = self.full_shape[axis], self.unit[axis], self.area[axis - 1].start
        first, stop = max(0, start + span.start + low), min(size, start + span.stop + high)
        return 0 if first >= stop else min(-(-stop // depth) * depth, size) - first // depth * depth


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
