"""Which chunks a read touches: how the analysed part of a movie lies in the grid of its chunks, or of lines without."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_SIEVE = 2**16  # bytes of the buffer through which HDF5 reads what is not stored in chunks
_PIECE = 64  # pixels on the side of what is read of a damaged frame that is not stored in chunks


@dataclass(frozen=True)
class ChunkGrid:
    """The analysed frames and region of a movie in the grid of its chunks. Nothing here reads the file.

    Spans of frames, rows and columns count from the start of the analysed part, as those of ``Movie``.
    """

    full_shape: tuple[int, int, int]  # frames, rows and columns of the file
    frames: np.ndarray  # [frames] int, in the file
    top: int
    left: int
    height: int
    width: int
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
        """The frames of ``slab`` chunk by chunk: what can't be decoded of one is lost for all frames of a layer."""
        depth = self.chunk[0] if self.chunk else 1
        borders = np.flatnonzero(np.diff(self.frames[slab] // depth)) + 1 + slab.start
        return [slice(int(a), int(b)) for a, b in pairwise([slab.start, *borders, slab.stop])]

    def pieces(self, axis: int, span: slice) -> list[slice]:
        """The rows (axis 1) or columns (2) of the chunks that ``span`` touches, cut to the region of interest."""
        return self._cut(axis, span, self.chunk[axis] if self.chunk else _PIECE)

    def _cut(self, axis: int, span: slice, depth: int) -> list[slice]:
        """Each ``depth`` rows (axis 1) or columns (2) of the file that ``span`` touches, cut to the region."""
        start = (self.top, self.left)[axis - 1]
        first, last = (start + span.start) // depth, (start + span.stop - 1) // depth
        borders = [(i * depth - start, (i + 1) * depth - start) for i in range(first, last + 1)]
        return [slice(max(0, a), min((self.height, self.width)[axis - 1], b)) for a, b in borders]

    def regions(self, rows: slice, columns: slice, most: int, whole: bool) -> list[tuple[slice, slice, slice]]:
        """All frames of a region in pieces of about ``most`` bytes, no two of which share a chunk or line.

        Frames, rows and columns of each; all rows and columns in each if ``whole``.
        """
        ys, xs = [rows], [columns]
        if not whole:
            depth, height, width = self.unit
            xs = self._pieces_together(2, columns, most // (depth * height * self.itemsize))
            widest = max(width, *(x.stop - x.start for x in xs))
            ys = self._pieces_together(1, rows, most // (depth * widest * self.itemsize))
        pixels = max(y.stop - y.start for y in ys) * max(x.stop - x.start for x in xs)
        slabs = self.slabs(pixels * self.itemsize, most)
        return [(slab, y, x) for slab in slabs for y in ys for x in xs]

    def _pieces_together(self, axis: int, span: slice, most: int) -> list[slice]:
        """``span`` cut between chunks or lines into pieces of at most ``most`` rows (axis 1) or columns (2)."""
        starts = [span.start]
        for piece in self._cut(axis, span, self.unit[axis])[1:]:
            if min(piece.stop, span.stop) - starts[-1] > most:
                starts.append(piece.start)
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], span.stop], strict=True)]

    def decoded_bytes(self, rows: slice, columns: slice, frames: slice = slice(None)) -> int:
        """Bytes that reading ``frames`` of a region decodes: whole chunks or lines, each once."""
        t, y, x = self.decoded_extent(0, frames), self.decoded_extent(1, rows), self.decoded_extent(2, columns)
        return t * y * x * self.itemsize

    def decoded_extent(self, axis: int, span: slice) -> int:
        """Frames (axis 0), rows (1) or columns (2) of the chunks or lines that reading ``span`` touches."""
        size, depth = self.full_shape[axis], self.unit[axis]
        if axis == 0:
            chunks = np.unique(self.frames[span] // depth)
        else:
            start = (self.top, self.left)[axis - 1]
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
