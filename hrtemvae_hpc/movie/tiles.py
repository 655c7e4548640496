"""Reading the pixels of a tile: all frames of a rectangle, preprocessed, with its bad frames noted.

Tiles overlap by nearly a window, and chunks of whole frames lie under all of them. If reading each tile from the
movie would decode much of it repeatedly, the movie is staged first: decoded once, region by region, into pixels
that all tiles are then cut from (TileReader.regions, fill).

If frames are resampled or scaled locally, tiles and patches are areas of such pixels; a tile holds the pixels of the
movie that they are made of, and is transformed patch by patch, so that a patch has the same values in any tile.
"""

import math
import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product, starmap

import numpy as np
import torch

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import PreprocessSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.chunk_grid import Region
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preprocess import clip_outliers, low_pass
from hrtemvae_hpc.movie.transform import UNCHANGED, Transform
from hrtemvae_hpc.patch import Patch
from hrtemvae_hpc.pixels import floating

_SLAB_BYTES = 64 * 2**20
_REGION_BYTES = 2**24  # staged by one thread: small, to share the movie among all threads of a node


@dataclass
class TilePixels:
    """What the engine needs of a tile, or of all tiles of a movie."""

    pixels: np.ndarray  # [frames, rows, columns] of the movie, its dtype, or floating after filters
    area: Area  # of the movie's frame
    transform: Transform
    frame_range: np.ndarray | None  # [frames, 2] lowest and highest finite pixel of the whole frame, float64
    pieces: tuple[list[slice], list[slice]]  # rows and columns of the movie that are decoded or lost as a whole
    lost: np.ndarray  # [frames, pieces along y, pieces along x] bool, which ones could not be decoded
    shown: np.ndarray | None = None  # [frames, 2, 2] rows and columns that lie within each frame, None if all do
    decoded_bytes: int = 0

    @classmethod
    def of(cls, pixels: np.ndarray, area: Area, transform: Transform) -> "TilePixels":
        """Pixels [frames, rows, columns] of ``area`` of the movie's frame, all of which could be decoded."""
        lost = np.zeros((len(pixels), 1, 1), bool)
        return cls(pixels, area, transform, None, ([area.rows], [area.columns]), lost)

    def frame(self, t: int) -> "TilePixels":
        """One frame alone."""
        one = slice(t, t + 1)
        frame_range, shown = (None if each is None else each[one] for each in (self.frame_range, self.shown))
        return replace(self, pixels=self.pixels[one], frame_range=frame_range, lost=self.lost[one], shown=shown)

    @property
    def damaged(self) -> np.ndarray:
        """Whether any pixel could not be decoded [frames] bool."""
        return np.asarray(self.lost.any((1, 2)))

    def patch(self, area: Area) -> Patch:
        """The pixels that windows are cut from."""
        source = self.transform.source(area)
        y, x = source.within(self.area)
        pixels: np.ndarray = self.pixels[:, y, x]
        if not self.transform:
            return Patch.of(pixels)
        unknown = partial(self._unknown, source) if self.transform.local else None
        shape = len(pixels), area.height, area.width
        return Patch(pixels, shape, partial(self.transform.apply, area=area), unknown)

    def lose(self, frames: slice, area: Area) -> None:
        """Note that the pieces which ``area`` of the movie's frame touches can't be decoded."""
        y, x = area.within(self.area)
        self.pixels[frames, y, x] = 0
        y, x = self._touched(area)
        self.lost[frames, y, x] = True

    def bad_frames(self, area: Area) -> list[int]:
        """The frames of a patch in which some pixel could not be decoded."""
        y, x = self._touched(self.transform.shown(area))
        return [int(t) for t in np.flatnonzero(self.lost[:, y, x].any((1, 2)))]

    def unreadable(self, frame: int, area: Area) -> np.ndarray:
        """Which pixels [rows, columns] of a patch show pixels that could not be decoded."""
        undecoded = self._undecoded(frame, self.transform.shown(area))
        if self.transform.resampler is None:
            return undecoded
        marked = torch.where(torch.from_numpy(undecoded), torch.nan, 0.0)
        return self.transform.resampler.apply(marked, area).isnan().numpy()

    def _undecoded(self, frame: int, source: Area) -> np.ndarray:
        """Which pixels [rows, columns] of ``source`` in the movie's frame could not be decoded."""
        undecoded: np.ndarray = self.lost[frame]
        for axis, (span, pieces) in enumerate(zip(source, self.pieces, strict=True)):
            undecoded = undecoded.take(_numbers(pieces, range(span.start, span.stop)), axis)
        return undecoded

    def _unknown(self, source: Area, frames: slice) -> np.ndarray | None:
        """Which pixels [frames, rows, columns] of ``source`` could not be decoded or lie outside of a frame, if any."""
        y, x = self._touched(source)
        lost = np.flatnonzero(self.lost[frames, y, x].any((1, 2)))
        if not len(lost) and self.shown is None:
            return None
        numbers = range(len(self.pixels))[frames]
        unknown = np.zeros((len(numbers), source.height, source.width), bool)
        for t in lost:
            unknown[t] = self._undecoded(numbers[t], source)
        if self.shown is not None:
            shown = self.shown[frames]
            for axis, span in enumerate(source):
                place = np.arange(span.start, span.stop)
                outside = (place < shown[:, axis, :1]) | (place >= shown[:, axis, 1:])
                unknown |= np.expand_dims(outside, 2 - axis)
        return unknown

    def shows(self, rows: Sequence[slice], columns: Sequence[slice]) -> np.ndarray:
        """Which of ``rows`` x ``columns`` of the movie's frame lie within each frame [frames, rows, columns] bool."""
        if self.shown is None:
            return np.ones((len(self.pixels), len(rows), len(columns)), bool)
        axes = []
        for i, spans in enumerate((rows, columns)):
            starts, stops = (np.array([getattr(span, end) for span in spans]) for end in ("start", "stop"))
            axes.append((self.shown[:, i, :1] <= starts) & (stops <= self.shown[:, i, 1:]))
        inside: np.ndarray = axes[0][:, :, None] & axes[1][:, None, :]
        return inside

    def _touched(self, area: Area) -> tuple[slice, slice]:
        """The pieces that ``area`` of the movie's frame touches."""
        ends = (_numbers(pieces, (span.start, span.stop - 1)) for span, pieces in zip(area, self.pieces, strict=True))
        rows, columns = (slice(first, last + 1) for first, last in ends)
        return rows, columns


class TileReader:
    """Reads tiles of a movie. Whole frames are read if preprocessing or the scaling needs them."""

    def __init__(
        self, movie: Movie, preprocess: PreprocessSection, frame_scaling: bool, transform: Transform = UNCHANGED
    ) -> None:
        self.movie = movie
        self.transform = transform
        self.preprocess = preprocess
        self.frame_scaling = frame_scaling

    def of_frames(self, frames: slice) -> "TileReader":
        """A reader of some ``frames`` of the movie only."""
        return TileReader(self.movie.part(frames), self.preprocess, self.frame_scaling, self.transform)

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
        resampler = self.transform.resampler
        return self.movie.shape[1:] if resampler is None else resampler.shape

    def source(self, area: Area) -> Area:
        """The area of the movie's frame that the tile ``area`` is made of."""
        return self.transform.source(area)

    def read_area(self, area: Area) -> Area:
        """The area of the movie's frame that is read for the tile ``area``."""
        return self.movie.area if self.whole_frames else self.source(area)

    def working_bytes(self, area: Area, threads: int) -> int:
        """Bytes that reading the tile ``area`` on ``threads`` needs besides the tile itself."""
        read = self.read_area(area)
        most = _SLAB_BYTES // (read.pixels * self.movie.dtype.itemsize)
        longest = min(self.movie.shape[0], max(self.movie.chunk_grid.unit[0], most))
        return self._reading_bytes(longest, read) * (threads if self.movie.decodes_in_parallel else 1)

    def filling_bytes(self) -> int:
        """Bytes that filling in one region of a staged movie needs, including the pages that it touches there."""
        itemsize = int(self.dtype.itemsize)
        row = self.shape[1] * itemsize
        needed = []
        for slab, area in self.regions(Area.whole(*self.shape)):
            frames = int(slab.stop - slab.start)
            touched = frames * area.height * min(row, area.width * itemsize + 2 * mmap.PAGESIZE)
            needed.append(self._reading_bytes(frames, area) + touched)
        return max(needed)

    def _reading_bytes(self, frames: int, area: Area) -> int:
        movie = self.movie
        slab = frames * area.pixels * movie.dtype.itemsize
        copies = (not movie.reads_in_place) + self.whole_frames
        if chunk := movie.storage.chunk:  # packed, unpacked and in order
            together = 3 * math.prod(chunk) * movie.dtype.itemsize
        else:
            together = movie.chunk_grid.decoded_bytes(area, slice(0, 1))
        # Copies of a slab, what is read together, a filtered frame's spectrum and products.
        return int(copies * slab + together + 48 * area.pixels * self.filters)

    def read(
        self,
        area: Area,
        skip_bad_frames: bool,
        each: Callable[[Callable[[Region], int], Iterable[Region]], Iterable[int]] = map,
    ) -> TilePixels:
        """The tile ``area``; ``each`` fills it in slab by slab, like ``map``, and may raise.

        Raises InputError at frames that can't be decoded, unless ``skip_bad_frames``.
        """
        frames, source = self.movie.shape[0], self.source(area)
        pieces = self.movie.chunk_grid.pieces(source)
        tile = TilePixels(
            np.empty((frames, source.height, source.width), self.dtype),
            source,
            self.transform,
            np.empty((frames, 2)) if self.frame_scaling else None,
            pieces,
            np.zeros((frames, len(pieces[0]), len(pieces[1])), bool),
            self.movie.shown,
        )
        frame_bytes = self.read_area(area).pixels * self.movie.dtype.itemsize
        slabs = [Region(slab, source) for slab in self.movie.chunk_grid.slabs(frame_bytes, _SLAB_BYTES)]
        tile.decoded_bytes = sum(each(lambda slab: self.fill(tile, slab, skip_bad_frames), slabs))
        return tile

    def regions(self, area: Area) -> list[Region]:
        """The regions of the movie that windows in ``area`` are cut from.

        Filling them one by one decodes every chunk once, or nearly: borders of moved areas lie within chunks.
        """
        whole = self.whole_frames or self.movie.is_moved
        return self.movie.chunk_grid.regions(self.source(area), _REGION_BYTES, whole)

    def fill(self, tile: TilePixels, region: Region, skip_bad_frames: bool) -> int:
        """Fill in a region of the movie in ``tile``; returns the bytes decoded for it.

        Raises InputError at frames that can't be decoded, unless ``skip_bad_frames``.
        """
        slab, area = region
        self._fill(tile, slab, area)
        bad = self.movie.frame_indices[slab][tile.damaged[slab]]
        if len(bad) and not skip_bad_frames:
            raise InputError(
                f"{self.movie.where}: can't be decoded at frame {', '.join(map(str, bad))}; "
                "copy the movie again, or leave such frames out with --on-bad-frame skip."
            )
        return self.movie.chunk_grid.decoded_bytes(self.movie.area if self.whole_frames else area, slab)

    def sample(self, area: Area, frames: int) -> tuple[Patch, int]:
        """At most ``frames`` frames of a patch, for a trial, and the bytes decoded (and filtered) for the first slab.

        If the file can't be decoded, noise takes their place: the time to encode is the same.
        """
        movie = self.movie
        count = min(frames, movie.shape[0])
        first = slice(0, min(count, movie.chunk_grid.slabs(1, 1)[0].stop))
        read_area, source = self.read_area(area), self.source(area)
        try:
            pixels = movie.read(first, read_area)
        except OSError:
            shape = (1, area.height, area.width)
            return Patch.of(np.random.default_rng(0).integers(0, 100, shape).repeat(count, 0).astype(self.dtype)), 0
        decoded = movie.chunk_grid.decoded_bytes(read_area, first)
        if self.whole_frames:
            pixels = np.stack([self._filter(frame)[source] for frame in pixels])
        repeated = np.resize(pixels, (count, *pixels.shape[1:]))
        return TilePixels.of(repeated, source, self.transform).patch(area), decoded

    def _fill(self, tile: TilePixels, slab: slice, area: Area) -> None:
        """Fill in ``area`` of the movie's frames ``slab``."""
        y, x = area.within(tile.area)
        try:
            if not self.whole_frames:
                self.movie.read_into(tile.pixels, slab, area, (slab, y, x))
                return
            pixels = self.movie.read(slab, self.movie.area)
        except OSError:
            layers = self.movie.chunk_grid.layers(slab)
            if len(layers) > 1:
                for layer in layers:
                    self._fill(tile, layer, area)
            elif self.whole_frames:
                tile.lose(slab, area)
                if tile.frame_range is not None:
                    tile.frame_range[slab] = np.nan
            else:
                self._fill_by_piece(tile, slab, area)
            return
        for t, frame_pixels in zip(range(slab.start, slab.stop), pixels, strict=True):
            inside = self._filter(frame_pixels[self._shown(t)])
            frame_pixels = frame_pixels.astype(self.dtype, copy=False)
            frame_pixels[self._shown(t)] = inside
            tile.pixels[t, y, x] = frame_pixels[area]
            if tile.frame_range is not None:
                finite = inside[np.isfinite(inside)]
                tile.frame_range[t] = (finite.min(), finite.max()) if finite.size else np.nan

    def _shown(self, t: int) -> Area:
        """The part of the analysed area that lies within frame ``t``."""
        if self.movie.shown is None:
            return self.movie.area
        return Area(*(slice(int(first), int(stop)) for first, stop in self.movie.shown[t]))

    def _fill_by_piece(self, tile: TilePixels, layer: slice, area: Area) -> None:
        """Fill in what can be decoded of a layer, chunk by chunk, so that a chunk is lost for all tiles or for none."""
        for piece in starmap(Area, product(*self.movie.chunk_grid.pieces(area))):
            try:
                pixels = self.movie.read(layer, piece)
            except OSError:
                tile.lose(layer, piece)
            else:
                y, x = piece.within(tile.area)
                rows, columns = tile.area.within(piece)
                tile.pixels[layer, y, x] = pixels[:, rows, columns]

    def _filter(self, pixels: np.ndarray) -> np.ndarray:
        if not self.filters or not pixels.size:
            return pixels
        frame = torch.from_numpy(pixels.astype(self.dtype))
        if self.preprocess.clip_outliers:
            frame = clip_outliers(frame)
        if self.preprocess.low_pass:
            frame = low_pass(frame)
        return frame.numpy()


def _numbers(pieces: list[slice], places: Sequence[int]) -> np.ndarray:
    """For each of ``places`` the number of the piece that it lies in; the ``pieces`` lie side by side."""
    return np.searchsorted([piece.stop for piece in pieces], places, "right")
