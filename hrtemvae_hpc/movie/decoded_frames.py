"""Frames that must be decoded: each by itself, in chunks of some of its rows and columns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.movie.frames import Description, FrameSource, Storage, check_complete, count_complete


class Decoder(ABC):
    """What decodes the chunks of frames, on many threads at a time."""

    files: Sequence[Path]
    chunk: tuple[int, int]  # rows and columns; at the lower and right border of a frame there may be fewer
    compression: str

    @abstractmethod
    def complete(self, frames: range) -> np.ndarray:
        """Whether all that is stored of each frame lies in its file [frames] bool."""

    @abstractmethod
    def decode(self, frame: int, row: int, column: int) -> np.ndarray:
        """The pixels of a chunk [rows, columns], which is number ``row`` from the top and ``column`` from the left.

        Raises OSError if it can't be decoded.
        """

    @abstractmethod
    def followed_by(self, others: Sequence["Decoder"]) -> "Decoder":
        """All frames of this decoder and then those of ``others``.

        Raises ValueError if those are stored in another way.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the files."""


class DecodedFrames(FrameSource):
    """Frames of a decoder."""

    def __init__(self, path: Path, where: str, decoder: Decoder, description: Description) -> None:
        """Frames of ``description`` that ``decoder`` decodes."""
        self.path, self.where = path, where
        self.description = description
        self._decoder = decoder
        self.files = list(decoder.files)
        self.unit = (1, *decoder.chunk)
        self.storage = Storage("chunks", self.unit, decoder.compression)

    def complete(self, known: int) -> int:
        return known + count_complete(self._decoder.complete(range(known, self.description.shape[0])))

    def prepare(self, frames: slice, area: Area) -> None:
        chosen = range(frames.start, frames.stop, frames.step or 1)
        check_complete(self.where, self.description.shape[0], frames, self._decoder.complete(chosen))

    def read_into(
        self, pixels: np.ndarray, frames: slice, area: Area, place: tuple[slice, slice, slice] | None = None
    ) -> None:
        target = pixels[place or ...]
        height, width = self._decoder.chunk
        rows, columns = _touched(area.rows, height), _touched(area.columns, width)
        for image, t in zip(target, range(frames.start, frames.stop, frames.step or 1), strict=True):
            for i, j in product(rows, columns):
                chunk = self._decoder.decode(t, i, j)
                into_rows, from_rows = _common(area.rows, i * height, chunk.shape[0])
                into_columns, from_columns = _common(area.columns, j * width, chunk.shape[1])
                image[into_rows, into_columns] = chunk[from_rows, from_columns]

    def close(self) -> None:
        self._decoder.close()


def _touched(span: slice, size: int) -> range:
    """The numbers of chunks of ``size`` that ``span`` touches."""
    return range(span.start // size, (span.stop - 1) // size + 1)


def _common(span: slice, begin: int, size: int) -> tuple[slice, slice]:
    """Where ``span`` and a chunk of ``size`` from ``begin`` on overlap: counted in the one, and in the other."""
    first, last = max(span.start, begin), min(span.stop, begin + size)
    return slice(first - span.start, last - span.start), slice(first - begin, last - begin)
