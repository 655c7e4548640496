"""A movie opened for reading: its shape, storage and calibration, and its pixels frame range by frame range."""

import dataclasses
import hashlib
from copy import copy
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from hrtemvae_hpc.area import Area, around
from hrtemvae_hpc.config import MovieSection, Roi
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.chunk_grid import ChunkGrid
from hrtemvae_hpc.movie.frames import FrameSource
from hrtemvae_hpc.movie.opening import open_frames
from hrtemvae_hpc.movie.watch import Watch

_MOST_FRAMES = 2**22


class Movie:
    """The analysed part of a movie: frames x rows x columns.

    Frames, rows and columns count from the start of the frame range and region of interest; ``frame_indices``,
    ``top`` and ``left`` are their place in the file. Use as a context manager.
    """

    def __init__(
        self,
        path: Path,
        section: MovieSection | None = None,
        other_roi: Roi | None = None,
        source: FrameSource | None = None,
    ) -> None:
        """Open ``path``, or use its ``source``, to read the region of ``section`` and, through ``region``, another.

        Raises InputError when it holds no movie that can be analysed.
        """
        self.path = path
        section = section or MovieSection()
        self.source = source or open_frames(path, section)
        try:
            self._select(section, other_roi)
        except InputError:
            self.source.close()
            raise

    def _select(self, section: MovieSection, other_roi: Roi | None) -> None:
        about = self.source.description
        self.where = self.source.where
        self.full_shape = about.shape
        area = self._area_of(section.roi, "--roi")
        self.top, self.left = area.rows.start, area.columns.start
        frames = self._frame_range(section)
        if len(range(frames.start, frames.stop, frames.step)) > _MOST_FRAMES:
            raise InputError(f"{self.where}: has more than {_MOST_FRAMES:,} frames; choose some with --frames.")
        others = [self._area_of(other_roi, "--drift-roi")] if other_roi else []
        self._selected = frames
        self.source.prepare(frames, around([area, *others]))
        self.frame_indices = np.arange(frames.start, frames.stop, frames.step)
        self.shape = (len(self.frame_indices), area.height, area.width)
        self.dtype = about.dtype
        self.storage = self.source.storage
        self.chunk_grid = ChunkGrid(
            full_shape=self.full_shape,
            frames=self.frame_indices,
            area=area,
            chunk=self.storage.chunk,
            unit=self.source.unit,
            itemsize=self.dtype.itemsize,
        )
        self.pixel_size_nm = (section.pixel_size,) * 2 if section.pixel_size else about.pixel_size_nm
        frame_time = section.frame_time or about.frame_time_s
        self.frame_time_s = frame_time * frames.step if frame_time else None
        self.seconds = self._seconds(None if section.frame_time else about.times_s, frame_time)
        self.times_s = None if self.seconds is None else self.seconds - self.seconds[0]  # since the first that is used
        self.counts_per_electron = about.counts_per_electron
        self.shown: np.ndarray | None = None
        self._watch = Watch(self.files)
        self.fingerprint = self._fingerprint()

    @property
    def files(self) -> list[Path]:
        """All files that the movie is read from."""
        return self.source.files

    @property
    def decodes_in_parallel(self) -> bool:
        """Whether many threads can read at the same time."""
        return self.source.decodes_in_parallel

    @property
    def reads_in_place(self) -> bool:
        """Whether pixels reach their place without a copy."""
        return self.source.reads_in_place and not self.is_moved

    @property
    def is_moved(self) -> bool:
        """Whether areas lie elsewhere in some frames than in others."""
        return self.chunk_grid.shifts is not None

    def follow(self, shifts: np.ndarray, left_out: np.ndarray) -> None:
        """Move what is read by ``shifts`` [frames, 2] int, rows and columns, and leave out frames [frames] bool.

        From then on an area is read where it lies in each frame. ``shown`` [frames, 2, 2] says which rows and which
        columns of ``area``, first and last + 1, lie within each frame, none of those left out; it is None if all do.
        Pixels beyond the frame are read as zeros. Raises InputError if pixels that are to be read now are missing.
        """
        sizes, origin = np.array(self.shape[1:]), np.array([self.top, self.left])
        if shifts.any():
            whole, area = Area.whole(*self.full_shape[1:]), self.area.moved(self.top, self.left)
            ends = (area.moved(*map(int, end)).within(whole) for end in (shifts.min(0), shifts.max(0)))
            self.source.prepare(self._selected, around([area, *(end for end in ends if end.pixels)]))
            self.chunk_grid = dataclasses.replace(self.chunk_grid, shifts=shifts)
        first = np.clip(-(origin + shifts), 0, sizes)
        stop = np.clip(self.full_shape[1:] - (origin + shifts), 0, sizes)
        shown = np.stack([first, stop], -1)
        shown[left_out] = 0
        self.shown = None if (shown == np.stack([0 * sizes, sizes], -1)).all() else shown

    def has_changed(self, *, thorough: bool = False) -> bool:
        """Whether a file of the movie was changed or replaced since it was opened.

        By inodes, sizes and times; if ``thorough`` by a sample of the content too.
        """
        try:
            changed = self._watch.has_changed(thorough=thorough)
            return changed or (thorough and self._fingerprint() != self.fingerprint)
        except OSError:
            return True

    def check_unchanged(self, *, thorough: bool = False) -> None:
        """Raise InputError if ``has_changed``."""
        if self.has_changed(thorough=thorough):
            raise InputError(
                f"{self.path}: changed while it was read, so its maps would mix two movies; run the same command "
                "again when it is complete."
            )

    def __enter__(self) -> "Movie":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.close()

    @property
    def area(self) -> Area:
        """All pixels of a frame."""
        return Area.whole(*self.shape[1:])

    def read(self, frames: slice, area: Area) -> np.ndarray:
        """Pixels [frames, rows, columns] in the machine's byte order; OSError when they can't be decoded.

        ``frames`` may have a step.
        """
        count = len(range(frames.start, frames.stop, frames.step or 1))
        pixels = np.empty((count, area.height, area.width), self.dtype)
        self.read_into(pixels, frames, area)
        return pixels

    def read_into(
        self, pixels: np.ndarray, frames: slice, area: Area, place: tuple[slice, slice, slice] | None = None
    ) -> None:
        """Like ``read``, into a contiguous array of the movie's dtype, or a ``place`` in it.

        Without a copy if ``reads_in_place``.
        """
        if self.is_moved:
            self._read_moved(pixels[place or ...], np.arange(self.shape[0])[frames], area)
        else:
            self.source.read_into(pixels, self._in_file(frames), area.moved(self.top, self.left), place)

    def _in_file(self, frames: slice) -> slice:
        first, step = int(self.frame_indices[0]), self._selected.step
        return slice(first + frames.start * step, first + (frames.stop - 1) * step + 1, step * (frames.step or 1))

    def _read_moved(self, target: np.ndarray, frames: np.ndarray, area: Area) -> None:
        """Read ``area`` of ``frames``, wherever it lies in each. Frames of one chunk are decoded once."""
        shifts = self.chunk_grid.shifts
        assert shifts is not None
        whole = Area.whole(*self.full_shape[1:])
        layers = np.flatnonzero(np.diff(self.frame_indices[frames] // self.source.unit[0])) + 1
        target[...] = 0
        for a, b in pairwise([0, *layers, len(frames)]):
            moved = [area.moved(self.top + int(y), self.left + int(x)) for y, x in shifts[frames[a:b]]]
            shown = [each.within(whole) for each in moved]
            visible = [each for each in shown if each.pixels]
            if not visible:
                continue
            together = around(visible)
            step = int(frames[1] - frames[0]) if len(frames) > 1 else 1
            pixels = np.empty((b - a, together.height, together.width), self.dtype)
            self.source.read_into(pixels, self._in_file(slice(int(frames[a]), int(frames[b - 1]) + 1, step)), together)
            for image, source, place, inside in zip(target[a:b], pixels, moved, shown, strict=True):
                if inside.pixels:
                    image[inside.within(place)] = source[inside.within(together)]

    def _seconds(self, known: np.ndarray | None, frame_time: float | None) -> np.ndarray | None:
        """Seconds since the movie's first frame [frames] float64: as the files hold them, else by ``frame_time``."""
        if known is not None:
            return np.asarray(known[self.frame_indices] - known[0])
        return None if frame_time is None else self.frame_indices * frame_time

    def _fingerprint(self) -> str:
        """SHA-256 over what distinguishes this movie from another or a changed one: files, shape, type."""
        facts = (self._watch.fingerprint(), *self.source.identity)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def region(self, roi: Roi) -> "Movie":
        """The same movie, opened with ``roi`` as its other region, of which that is the analysed part."""
        area = self._area_of(roi, "--drift-roi")
        other = copy(self)
        other.top, other.left = area.rows.start, area.columns.start
        other.shape = (self.shape[0], area.height, area.width)
        other.chunk_grid = dataclasses.replace(self.chunk_grid, area=area)
        return other

    def part(self, frames: slice) -> "Movie":
        """The same movie, of which only ``frames`` (without a step) are analysed, followed as they are here."""
        other = copy(self)
        grid = self.chunk_grid
        other.frame_indices = self.frame_indices[frames]
        other.shape = (len(other.frame_indices), *self.shape[1:])
        shifts = None if grid.shifts is None else grid.shifts[frames]
        other.chunk_grid = dataclasses.replace(grid, frames=other.frame_indices, shifts=shifts)
        other.times_s = None if self.times_s is None else self.times_s[frames]
        other.shown = None if self.shown is None else self.shown[frames]
        return other

    def _area_of(self, roi: Roi | None, option: str) -> Area:
        bounds = roi or ((None, None), (None, None))
        resolved = []
        for name, size, (start, stop) in zip(("rows", "columns"), self.full_shape[1:], bounds, strict=True):
            a, b = start or 0, size if stop is None else stop
            if not 0 <= a < b <= size:
                raise InputError(
                    f"{self.where}: the region's {name} {a}:{b} do not lie in 0:{size}; fix {option} y0:y1,x0:x1."
                )
            resolved.append(slice(a, b))
        return Area(*resolved)

    def _frame_range(self, section: MovieSection) -> slice:
        total = self.full_shape[0]
        start, stop, step = section.frames or (None, None, None)
        a, b = start or 0, total if stop is None else stop
        if not 0 <= a < b <= total:
            raise InputError(f"{self.where}: frames {a}:{b} do not lie in 0:{total}; fix --frames.")
        return slice(a, b, step or 1)
