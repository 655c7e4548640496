"""Reading the pixels of a tile: all frames of a rectangle, preprocessed, with its bad frames told.

Where frames are resampled, rows and columns count resampled pixels; a tile holds the pixels of the movie that they are
made of, and is resampled patch by patch, so that a patch has the same values in any tile.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from hrtemvae_hpc.config import PreprocessSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preprocess import clip_outliers, low_pass
from hrtemvae_hpc.movie.resample import Resampler

_SLAB_BYTES = 64 * 2**20


@dataclass
class TilePixels:
    """What the engine needs of a tile."""

    pixels: np.ndarray  # [frames, rows, columns] of the movie, its dtype, or floating after filters
    top: int  # row and column of the movie's frame at which they begin
    left: int
    resampler: Resampler | None
    frame_range: np.ndarray | None  # [frames, 2] lowest and highest finite pixel of the whole frame, float64
    decoded_bytes: int = 0
    # By frame of the tile: the pixels [rows, columns] that could not be decoded, True where not.
    undecoded: dict[int, np.ndarray] = field(default_factory=dict)

    def patch(self, rows: slice, columns: slice) -> np.ndarray:
        """The pixels [frames, rows, columns] that windows are cut from; resampled ones are floating."""
        own_rows, own_columns = self._own(rows, columns)
        own = self.pixels[:, own_rows, own_columns]
        if self.resampler is None:
            return own
        wide = own.dtype.itemsize > 4 or (own.dtype.kind in "iu" and own.dtype.itemsize > 2)
        floating = torch.from_numpy(own.astype(np.float64 if wide else np.float32))
        return self.resampler.apply(floating, rows, columns).numpy()

    def unreadable(self, frame: int, rows: slice, columns: slice) -> np.ndarray:
        """Which pixels [rows, columns] of a patch are made of such that could not be decoded."""
        undecoded = self.undecoded[frame][self._own(rows, columns)]
        if self.resampler is None:
            return undecoded
        marked = torch.where(torch.from_numpy(undecoded), torch.nan, 0.0)
        return self.resampler.apply(marked, rows, columns).isnan().numpy()

    def _own(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        if self.resampler is not None:
            rows, columns = self.resampler.source(0, rows), self.resampler.source(1, columns)
        return (
            slice(rows.start - self.top, rows.stop - self.top),
            slice(columns.start - self.left, columns.stop - self.left),
        )


class TileReader:
    """Reads tiles of a movie. Whole frames are read where preprocessing or the scaling needs them."""

    def __init__(
        self, movie: Movie, preprocess: PreprocessSection, frame_scaling: bool, resampler: Resampler | None = None
    ) -> None:
        self.movie = movie
        self.resampler = resampler
        self.preprocess = preprocess
        self.frame_scaling = frame_scaling

    @property
    def whole_frames(self) -> bool:
        """Whether every tile costs the reading of whole frames."""
        return self.frame_scaling or self.filters

    @property
    def filters(self) -> bool:
        """Whether whole frames are filtered before they are cut."""
        return self.preprocess.clip_outliers or self.preprocess.low_pass

    @property
    def dtype(self) -> np.dtype:
        """The type of a tile's pixels; frames that are filtered become floating."""
        own = self.movie.dtype
        return np.dtype(np.float64 if own.itemsize > 4 else np.float32) if self.filters else own

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame that windows are laid over."""
        return self.movie.shape[1:] if self.resampler is None else self.resampler.shape

    def held(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The movie's pixels that a tile holds for its rows and columns."""
        if self.resampler is None:
            return rows, columns
        return self.resampler.source(0, rows), self.resampler.source(1, columns)

    def spans(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The movie's pixels that are read for a tile's rows and columns."""
        if self.whole_frames:
            return slice(0, self.movie.shape[1]), slice(0, self.movie.shape[2])
        return self.held(rows, columns)

    def working_bytes(self, rows: slice, columns: slice) -> int:
        """Bytes that reading a tile needs beside the tile itself."""
        movie = self.movie
        frame = self._frame_pixels(rows, columns)
        depth = movie.storage.chunk[0] if movie.storage.chunk else 1
        longest = min(movie.shape[0], max(depth, _SLAB_BYTES // (frame * movie.dtype.itemsize)))
        slab = longest * frame * movie.dtype.itemsize
        copies = (not movie.reads_in_place) + self.whole_frames
        chunk = math.prod(movie.storage.chunk or ()) * movie.dtype.itemsize
        # Copies of a slab, a chunk packed and unpacked, a filtered frame's spectrum and products.
        return int(copies * slab + 2 * chunk + 48 * frame * self.filters)

    def _frame_pixels(self, rows: slice, columns: slice) -> int:
        read_rows, read_columns = self.spans(rows, columns)
        pixels: int = (read_rows.stop - read_rows.start) * (read_columns.stop - read_columns.start)
        return pixels

    def read(
        self, rows: slice, columns: slice, skip_bad_frames: bool, check: Callable[[], None] = lambda: None
    ) -> TilePixels:
        """The tile ``rows`` x ``columns``; ``check`` is called between slabs and may raise.

        Raises InputError at frames that can't be decoded, unless ``skip_bad_frames``.
        """
        movie = self.movie
        frame_bytes = self._frame_pixels(rows, columns) * movie.dtype.itemsize
        decoded_bytes = movie.decoded_bytes(*self.spans(rows, columns))
        rows, columns = self.held(rows, columns)
        tile = TilePixels(
            np.zeros((movie.shape[0], rows.stop - rows.start, columns.stop - columns.start), self.dtype),
            rows.start,
            columns.start,
            self.resampler,
            np.full((movie.shape[0], 2), np.nan) if self.frame_scaling else None,
            decoded_bytes,
        )
        for slab in movie.frames_a_slab(frame_bytes, _SLAB_BYTES):
            check()
            self._fill(tile, slab, rows, columns)
            if tile.undecoded and not skip_bad_frames:
                frames = ", ".join(str(movie.frame_indices[t]) for t in tile.undecoded)
                raise InputError(
                    f"{movie.where}: can't be decoded at frame {frames}; "
                    "copy the movie again, or leave such frames out with --on-bad-frame skip."
                )
        return tile

    def sample(self, rows: slice, columns: slice, frames: int) -> tuple[np.ndarray, int]:
        """At most ``frames`` frames of a patch, for a trial, and the bytes decoded (and filtered) for the first slab.

        Where the file can't be decoded, noise takes their place: the time to encode is the same.
        """
        movie = self.movie
        count = min(frames, movie.shape[0])
        first = slice(0, min(count, movie.frames_a_slab(1, 1)[0].stop))
        read_rows, read_columns = self.spans(rows, columns)
        try:
            pixels = movie.read(first, read_rows, read_columns)
        except OSError:
            shape = (1, rows.stop - rows.start, columns.stop - columns.start)
            return np.random.default_rng(0).integers(0, 100, shape).repeat(count, 0).astype(self.dtype), 0
        decoded = movie.decoded_bytes(read_rows, read_columns) // max(1, movie.shape[0] // first.stop)
        held_rows, held_columns = self.held(rows, columns)
        if self.whole_frames:
            pixels = np.stack([self._filter(frame)[held_rows, held_columns] for frame in pixels])
        patch = TilePixels(pixels, held_rows.start, held_columns.start, self.resampler, None).patch(rows, columns)
        return np.resize(patch, (count, *patch.shape[1:])), decoded

    def _fill(self, tile: TilePixels, slab: slice, rows: slice, columns: slice) -> None:
        """Fill in the frames ``slab`` of a tile that holds ``rows`` x ``columns`` of the movie."""
        try:
            if not self.whole_frames:
                self.movie.read_into(tile.pixels[slab], slab, rows, columns)
                return
            pixels = self.movie.read(slab, slice(0, self.movie.shape[1]), slice(0, self.movie.shape[2]))
        except OSError:
            if slab.stop - slab.start > 1:
                for t in range(slab.start, slab.stop):
                    self._fill(tile, slice(t, t + 1), rows, columns)
                return
            tile.pixels[slab] = 0
            tile.undecoded[slab.start] = np.ones(tile.pixels.shape[1:], bool)
            if not self.whole_frames:
                self._fill_by_piece(tile, slab.start, rows, columns)
            return
        for t, frame_pixels in zip(range(slab.start, slab.stop), pixels, strict=True):
            frame_pixels = self._filter(frame_pixels)
            tile.pixels[t] = frame_pixels[rows, columns]
            if tile.frame_range is not None:
                finite = frame_pixels[np.isfinite(frame_pixels)]
                tile.frame_range[t] = (finite.min(), finite.max()) if finite.size else np.nan

    def _fill_by_piece(self, tile: TilePixels, t: int, rows: slice, columns: slice) -> None:
        """What can be decoded of a frame, chunk by chunk, so that a chunk is lost for all tiles alike or for none."""
        for piece_rows in self.movie.pieces(1, rows):
            for piece_columns in self.movie.pieces(2, columns):
                try:
                    piece = self.movie.read(slice(t, t + 1), piece_rows, piece_columns)[0]
                except OSError:
                    continue
                y, x = _overlap(piece_rows, rows), _overlap(piece_columns, columns)
                own = _overlap(rows, piece_rows), _overlap(columns, piece_columns)
                tile.pixels[t, y, x] = piece[own]
                tile.undecoded[t][y, x] = False
        if not tile.undecoded[t].any():
            del tile.undecoded[t]  # the file could be read after all

    def _filter(self, pixels: np.ndarray) -> np.ndarray:
        if not self.filters:
            return pixels
        frame = torch.from_numpy(pixels.astype(self.dtype))
        if self.preprocess.clip_outliers:
            frame = clip_outliers(frame)
        if self.preprocess.low_pass:
            frame = low_pass(frame)
        return frame.numpy()


def _overlap(span: slice, within: slice) -> slice:
    """The part of ``span`` that lies in ``within``, counted from the start of ``within``."""
    return slice(max(span.start, within.start) - within.start, min(span.stop, within.stop) - within.start)
