"""Compressed or tiled TIFF pages, whose strips or tiles tifffile decodes."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.hdf5 import inflate
from hrtemvae_hpc.movie.decoded_frames import Decoder
from hrtemvae_hpc.movie.open_files import OpenFiles

_DEFLATE, _LZMA = {8, 32946}, 34925
_HARMLESS = 2**18  # bytes of a deflated strip, which can't become more than a thousand times as many


class TiffDecoder(Decoder):
    """The strips or tiles of pages of one kind, of one or more files with the same number of pages."""

    def __init__(
        self, files: Sequence[Path], page: Any, offsets: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, ...]]
    ) -> None:
        """``page`` is the first, ``offsets`` and ``sizes`` are those of the strips or tiles of each page.

        Raises InputError if they can't be decoded here.
        """
        self.files = files
        self.chunk = int(page.chunks[0]), int(page.chunks[1])
        self.compression = "not compressed" if page.compression == 1 else printable(page.compression.name.lower())
        self._page, self._offsets, self._sizes = page, offsets, sizes
        self._across = int(page.chunked[1])
        self._pages_each = len(offsets) // len(files)
        self._open_files = OpenFiles(files)
        self._check(int(page.chunked[0]) * self._across)

    @staticmethod
    def all_compressions() -> bool:
        """Whether the library is installed that decodes those that Python doesn't."""
        return find_spec("imagecodecs") is not None

    def followed_by(self, others: Sequence[Decoder]) -> "TiffDecoder":
        files, offsets, sizes = list(self.files), list(self._offsets), list(self._sizes)
        for other in others:
            if not isinstance(other, TiffDecoder) or other._page.hash != self._page.hash:
                raise ValueError("stored in another way")
            files += other.files
            offsets += other._offsets
            sizes += other._sizes
            other.close()
        return TiffDecoder(files, self._page, offsets, sizes)

    def complete(self, frames: range) -> np.ndarray:
        lengths = {i: self.files[i].stat().st_size for i in sorted({t // self._pages_each for t in frames})}
        return np.array([self._ends_before(t, lengths[t // self._pages_each]) for t in frames], bool)

    def decode(self, frame: int, row: int, column: int) -> np.ndarray:
        try:
            return self._decode(frame, row, column)
        except Exception as error:  # the library raises anything on damaged pixels
            raise OSError(f"page {frame} can't be decoded: {printable(str(error))[:200]}") from error

    def close(self) -> None:
        self._open_files.close()

    def _decode(self, frame: int, row: int, column: int) -> np.ndarray:
        number = row * self._across + column
        offset, size = self._offsets[frame][number], self._sizes[frame][number]
        with self._open_files.opened(frame // self._pages_each) as file:
            data = os.pread(file, size, offset) if size else None
        if data and self._page.compression in _DEFLATE and size > _HARMLESS:
            inflate(data, int(1.1 * prod(self.chunk) * self._page.dtype.itemsize) + 1024)
        tables = {"jpegtables": self._page.jpegtables} if self._page.jpegtables else {}
        pixels, _, shape = self._page.decode(data, number, _fullsize=self._page.is_tiled, **tables)
        if pixels is None:
            return np.full(shape[1:3], self._page.nodata, self._page.dtype)
        rows, columns = self._page.imagelength - row * self.chunk[0], self._page.imagewidth - column * self.chunk[1]
        cut: np.ndarray = pixels[0, :rows, :columns, 0]
        return cut

    def _ends_before(self, frame: int, length: int) -> bool:
        pieces = zip(self._offsets[frame], self._sizes[frame], strict=True)
        return all(0 <= size <= length and 0 <= offset <= length - size for offset, size in pieces)

    def _check(self, expected: int) -> None:
        path = self.files[0]
        both = zip(self._offsets, self._sizes, strict=True)
        if any(len(places) != expected or len(sizes) != expected for places, sizes in both):
            raise InputError(f"{path}: its pages have not as many strips or tiles as their pixels; copy it again.")
        if not self.complete(range(1)).all():
            return
        try:
            if self._page.compression == _LZMA and not self.all_compressions():
                raise ImportError  # of Python, without a bound on what it unpacks
            self._decode(0, 0, 0)
        except Exception as error:  # damaged pixels are met when they are read
            if isinstance(error, ImportError) or "imagecodecs" in str(error):
                raise InputError(
                    f"{path}: is compressed ({self.compression}) in a way that needs imagecodecs, which isn't "
                    "installed; install the extra [formats]."
                ) from error
        finally:
            self.close()
