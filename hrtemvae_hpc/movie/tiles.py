"""Reading the pixels of a tile: all frames of a rectangle, preprocessed, with its bad frames noted.

Tiles overlap by nearly a window, and chunks of whole frames lie under all of them. Where reading each tile from the
movie would decode much of it again and again, the movie is staged first: decoded once, region by region, into pixels
that all tiles are then cut from (TileReader.regions, fill).

Where frames are resampled, rows and columns count resampled pixels; a tile holds the pixels of the movie that they are
made of, and is resampled patch by patch, so that a patch has the same values in any tile.
"""

import math
import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from hrtemvae_hpc.config import PreprocessSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preprocess import clip_outliers, low_pass
from hrtemvae_hpc.movie.resample import Resampler, held
from hrtemvae_hpc.pixels import floating

Region = tuple[slice, slice, slice]  # frames, rows and columns of a movie

_SLAB_BYTES = 64 * 2**20
_REGION_BYTES = 2**24  # staged by one thread: small, because all of a node's threads share the movie


@dataclass
class TilePixels:
    """What the engine needs of a tile, or of all tiles of a movie."""

    pixels: np.ndarray  # [frames, rows, columns] of the movie, its dtype, or floating after filters
    top: int  # row and column of the movie's frame at which they begin
    left: int
    resampler: Resampler | None
    frame_range: np.ndarray | None  # [frames, 2] lowest and highest finite pixel of the whole frame, float64
    pieces: tuple[list[slice], list[slice]]  # rows and columns of the movie that are decoded or lost as a whole
    lost: np.ndarray  # [frames, pieces along y, pieces along x] bool, which ones could not be decoded
    decoded_bytes: int = 0

    @classmethod
    def of(cls, pixels: np.ndarray, top: int, left: int, resampler: Resampler | None) -> "TilePixels":
        """Pixels [frames, rows, columns] that could all be decoded."""
        frames, height, width = pixels.shape
        whole = [slice(top, top + height)], [slice(left, left + width)]
        return cls(pixels, top, left, resampler, None, whole, np.zeros((frames, 1, 1), bool))

    @property
    def damaged(self) -> np.ndarray:
        """Whether any pixel could not be decoded [frames] bool."""
        return np.asarray(self.lost.any((1, 2)))

    def patch(self, rows: slice, columns: slice) -> np.ndarray:
        """The pixels [frames, rows, columns] that windows are cut from; resampled ones are floating."""
        y, x = self.inside(*held(self.resampler, rows, columns))
        own: np.ndarray = self.pixels[:, y, x]
        if self.resampler is None:
            return own
        return self.resampler.apply(torch.from_numpy(own.astype(floating(own.dtype))), rows, columns).numpy()

    def lose(self, frames: slice, rows: slice, columns: slice) -> None:
        """Note that the pieces which hold ``rows`` x ``columns`` of the movie can't be decoded."""
        y, x = self.inside(rows, columns)
        self.pixels[frames, y, x] = 0
        y, x = self._pieces(rows, columns)
        self.lost[frames, y, x] = True

    def bad_frames(self, rows: slice, columns: slice) -> list[int]:
        """The frames of a patch in which some pixel could not be decoded."""
        y, x = self._pieces(*held(self.resampler, rows, columns))
        return [int(t) for t in np.flatnonzero(self.lost[:, y, x].any((1, 2)))]

    def unreadable(self, frame: int, rows: slice, columns: slice) -> np.ndarray:
        """Which pixels [rows, columns] of a patch are made of such that could not be decoded."""
        undecoded: np.ndarray = self.lost[frame]
        for axis, (span, pieces) in enumerate(zip(held(self.resampler, rows, columns), self.pieces, strict=True)):
            own = _holding(pieces, span)
            parts = [_overlap(span, piece) for piece in pieces[own]]
            undecoded = undecoded.take(range(own.start, own.stop), axis)
            undecoded = undecoded.repeat([part.stop - part.start for part in parts], axis)
        if self.resampler is None:
            return undecoded
        marked = torch.where(torch.from_numpy(undecoded), torch.nan, 0.0)
        return self.resampler.apply(marked, rows, columns).isnan().numpy()

    @property
    def span(self) -> tuple[slice, slice]:
        """The movie's rows and columns that ``pixels`` holds."""
        _, height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def inside(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The movie's ``rows`` x ``columns``, as far as they are held, as those of ``pixels``."""
        return _overlap(rows, self.span[0]), _overlap(columns, self.span[1])

    def _pieces(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The pieces that hold rows and columns of the movie."""
        return _holding(self.pieces[0], rows), _holding(self.pieces[1], columns)


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
        return floating(self.movie.dtype) if self.filters else self.movie.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame that windows are laid over."""
        return self.movie.shape[1:] if self.resampler is None else self.resampler.shape

    @property
    def frame(self) -> tuple[slice, slice]:
        """Rows and columns of a whole frame of the movie."""
        return slice(0, self.movie.shape[1]), slice(0, self.movie.shape[2])

    def held(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The movie's pixels that a tile holds for its rows and columns."""
        return held(self.resampler, rows, columns)

    def spans(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The movie's pixels that are read for a tile's rows and columns."""
        if self.whole_frames:
            return self.frame
        return self.held(rows, columns)

    def working_bytes(self, rows: slice, columns: slice, threads: int) -> int:
        """Bytes that reading a tile on ``threads`` needs beside the tile itself."""
        frame = self._frame_pixels(rows, columns)
        longest = min(
            self.movie.shape[0], max(self.movie.chunk_grid.unit[0], _SLAB_BYTES // (frame * self.movie.dtype.itemsize))
        )
        return self._reading_bytes(longest, frame) * (threads if self.movie.decodes_in_parallel else 1)

    def filling_bytes(self) -> int:
        """Bytes that filling in one region of a staged movie needs, the pages that it touches there among them."""
        whole = slice(0, self.shape[0]), slice(0, self.shape[1])
        sizes = [[s.stop - s.start for s in region] for region in self.regions(*whole)]
        own = int(self.dtype.itemsize)
        row = self.shape[1] * own
        return max(
            int(self._reading_bytes(t, y * x) + t * y * min(row, x * own + 2 * mmap.PAGESIZE)) for t, y, x in sizes
        )

    def _reading_bytes(self, frames: int, frame: int) -> int:
        movie = self.movie
        slab = frames * frame * movie.dtype.itemsize
        copies = (not movie.reads_in_place) + self.whole_frames
        chunk = math.prod(movie.storage.chunk or ()) * movie.dtype.itemsize
        # Copies of a slab, a chunk packed, unpacked and in order, a filtered frame's spectrum and products.
        return int(copies * slab + 3 * chunk + 48 * frame * self.filters)

    def _frame_pixels(self, rows: slice, columns: slice) -> int:
        read_rows, read_columns = self.spans(rows, columns)
        pixels: int = (read_rows.stop - read_rows.start) * (read_columns.stop - read_columns.start)
        return pixels

    def read(
        self,
        rows: slice,
        columns: slice,
        skip_bad_frames: bool,
        each: Callable[[Callable[[Region], int], Iterable[Region]], Iterable[int]] = map,
    ) -> TilePixels:
        """The tile ``rows`` x ``columns``; ``each`` fills it in slab by slab, like ``map``, and may raise.

        Raises InputError at frames that can't be decoded, unless ``skip_bad_frames``.
        """
        frame_bytes = self._frame_pixels(rows, columns) * self.movie.dtype.itemsize
        rows, columns = self.held(rows, columns)
        shape = (self.movie.shape[0], rows.stop - rows.start, columns.stop - columns.start)
        pieces = self.movie.chunk_grid.pieces(1, rows), self.movie.chunk_grid.pieces(2, columns)
        tile = TilePixels(
            np.empty(shape, self.dtype),
            rows.start,
            columns.start,
            self.resampler,
            np.empty((shape[0], 2)) if self.frame_scaling else None,
            pieces,
            np.zeros((shape[0], len(pieces[0]), len(pieces[1])), bool),
        )
        slabs = [(frames, rows, columns) for frames in self.movie.chunk_grid.slabs(frame_bytes, _SLAB_BYTES)]
        tile.decoded_bytes = sum(each(lambda slab: self.fill(tile, slab, skip_bad_frames), slabs))
        return tile

    def regions(self, rows: slice, columns: slice) -> list[Region]:
        """Frames, rows and columns of the movie, region by region, that windows of ``rows`` x ``columns`` are cut from.

        Filling them one by one decodes every chunk once.
        """
        return self.movie.chunk_grid.regions(*self.held(rows, columns), _REGION_BYTES, self.whole_frames)

    def fill(self, tile: TilePixels, region: Region, skip_bad_frames: bool) -> int:
        """Fill in a region (frames, rows and columns of the movie) of ``tile``; returns the bytes decoded for it.

        Raises InputError at frames that can't be decoded, unless ``skip_bad_frames``.
        """
        slab, rows, columns = region
        self._fill(tile, slab, rows, columns)
        bad = self.movie.frame_indices[slab][tile.damaged[slab]]
        if len(bad) and not skip_bad_frames:
            raise InputError(
                f"{self.movie.where}: can't be decoded at frame {', '.join(map(str, bad))}; "
                "copy the movie again, or leave such frames out with --on-bad-frame skip."
            )
        if self.whole_frames:
            rows, columns = self.frame
        return self.movie.chunk_grid.decoded_bytes(rows, columns, slab)

    def sample(self, rows: slice, columns: slice, frames: int) -> tuple[np.ndarray, int]:
        """At most ``frames`` frames of a patch, for a trial, and the bytes decoded (and filtered) for the first slab.

        Where the file can't be decoded, noise takes their place: the time to encode is the same.
        """
        movie = self.movie
        count = min(frames, movie.shape[0])
        first = slice(0, min(count, movie.chunk_grid.slabs(1, 1)[0].stop))
        read_rows, read_columns = self.spans(rows, columns)
        try:
            pixels = movie.read(first, read_rows, read_columns)
        except OSError:
            shape = (1, rows.stop - rows.start, columns.stop - columns.start)
            return np.random.default_rng(0).integers(0, 100, shape).repeat(count, 0).astype(self.dtype), 0
        decoded = movie.chunk_grid.decoded_bytes(read_rows, read_columns, first)
        held_rows, held_columns = self.held(rows, columns)
        if self.whole_frames:
            pixels = np.stack([self._filter(frame)[held_rows, held_columns] for frame in pixels])
        patch = TilePixels.of(pixels, held_rows.start, held_columns.start, self.resampler).patch(rows, columns)
        return np.resize(patch, (count, *patch.shape[1:])), decoded

    def _fill(self, tile: TilePixels, slab: slice, rows: slice, columns: slice) -> None:
        """Fill in the frames ``slab`` of ``rows`` x ``columns`` of the movie."""
        y, x = tile.inside(rows, columns)
        try:
            if not self.whole_frames:
                self.movie.read_into(tile.pixels, slab, rows, columns, (slab, y, x))
                return
            pixels = self.movie.read(slab, *self.frame)
        except OSError:
            layers = self.movie.chunk_grid.layers(slab)
            if len(layers) > 1:
                for layer in layers:
                    self._fill(tile, layer, rows, columns)
            elif self.whole_frames:
                tile.lose(slab, rows, columns)
                if tile.frame_range is not None:
                    tile.frame_range[slab] = np.nan
            else:
                self._fill_by_piece(tile, slab, rows, columns)
            return
        for t, frame_pixels in zip(range(slab.start, slab.stop), pixels, strict=True):
            frame_pixels = self._filter(frame_pixels)
            tile.pixels[t, y, x] = frame_pixels[rows, columns]
            if tile.frame_range is not None:
                finite = frame_pixels[np.isfinite(frame_pixels)]
                tile.frame_range[t] = (finite.min(), finite.max()) if finite.size else np.nan

    def _fill_by_piece(self, tile: TilePixels, layer: slice, rows: slice, columns: slice) -> None:
        """What can be decoded of a layer, chunk by chunk, so that a chunk is lost for all tiles alike or for none."""
        for piece_rows in self.movie.chunk_grid.pieces(1, rows):
            for piece_columns in self.movie.chunk_grid.pieces(2, columns):
                try:
                    piece = self.movie.read(layer, piece_rows, piece_columns)
                except OSError:
                    tile.lose(layer, piece_rows, piece_columns)
                else:
                    y, x = tile.inside(piece_rows, piece_columns)
                    own = _overlap(tile.span[0], piece_rows), _overlap(tile.span[1], piece_columns)
                    tile.pixels[layer, y, x] = piece[:, own[0], own[1]]

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


def _holding(pieces: list[slice], span: slice) -> slice:
    """Which of neighbouring ``pieces`` hold something of ``span``."""
    own = [i for i, piece in enumerate(pieces) if piece.start < span.stop and span.start < piece.stop]
    return slice(own[0], own[-1] + 1)
