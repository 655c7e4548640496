"""Frames that lie uncompressed in files, at known offsets: read as they are, without a copy of the movie.

Pixels are read with ``pread``, not mapped: a file that is cut off while it is read ends with an error, where a mapped
one would kill the process.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.movie.frames import Description, FrameSource, Storage, check_complete, count_complete
from hrtemvae_hpc.movie.open_files import OpenFiles


@dataclass(frozen=True)
class Placement:
    """Where frames begin in ``files``, as if these were one long file."""

    files: Sequence[Path]
    sizes: Sequence[int]  # bytes of each file that count
    offsets: np.ndarray  # [frames] int64, of each frame's first pixel
    dtype: np.dtype[Any]  # as it is stored
    bottom_up: bool = False  # whether the last row comes first


class RawFrames(FrameSource):
    """Uncompressed frames [rows, columns] without gaps between their rows. A frame may go on in the next file."""

    def __init__(self, path: Path, where: str, placement: Placement, description: Description) -> None:
        """Frames of ``description`` placed by ``placement``, which name the same number of them."""
        self.path, self.where = path, where
        self.description = description
        self._placement = placement
        self._ends = np.cumsum(placement.sizes).tolist()
        columns = description.shape[2]
        self._row_bytes = columns * placement.dtype.itemsize
        self.files = [path, *placement.files] if path.is_file() else list(placement.files)
        self.raw_files = [file for file in placement.files if file != path] if path.is_file() else []
        self.storage = Storage("contiguous", None, "not compressed")
        self.unit = (1, 1, columns)
        self._native = placement.dtype == description.dtype and not placement.bottom_up
        self._open_files = OpenFiles(placement.files)

    def complete(self, known: int) -> int:
        return known + count_complete(self._lie_in_files(slice(known, None)))

    def prepare(self, frames: slice, area: Area) -> None:
        check_complete(self.where, self.description.shape[0], frames, self._lie_in_files(frames))
        self.reads_in_place = self._native and area.width == self.description.shape[2]

    def read_into(
        self, pixels: np.ndarray, frames: slice, area: Area, place: tuple[slice, slice, slice] | None = None
    ) -> None:
        target = pixels[place or ...]
        _, rows, columns = self.description.shape
        first = rows - area.rows.stop if self._placement.bottom_up else area.rows.start
        band = np.empty((area.height, columns), self._placement.dtype)
        for image, t in zip(target, range(frames.start, frames.stop, frames.step or 1), strict=True):
            direct = self._native and image.flags.c_contiguous and area.width == columns
            read: np.ndarray = image if direct else band
            offset = int(self._placement.offsets[t]) + first * self._row_bytes
            self._read(offset, memoryview(read.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]
            if not direct:
                image[...] = (band[::-1] if self._placement.bottom_up else band)[:, area.columns]

    def _lie_in_files(self, frames: slice) -> np.ndarray:
        """Which of ``frames`` do, to their last byte [frames] bool."""
        offsets, most = self._placement.offsets[frames], self._ends[-1] - self.description.shape[1] * self._row_bytes
        return np.asarray((offsets >= 0) & (offsets <= most))

    def close(self) -> None:
        self._open_files.close()

    def _read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset`` on, out of as many files as it takes."""
        i = bisect_right(self._ends, offset)
        while buffer:
            begin = self._ends[i] - self._placement.sizes[i]
            part = buffer[: self._ends[i] - offset]
            with self._open_files.opened(i) as file:
                done = os.preadv(file, [part], offset - begin)
            if done == 0 and part:
                raise OSError(f"{self._placement.files[i]} ends too early")
            buffer, offset = buffer[done:], offset + done
            i += offset >= self._ends[i]
