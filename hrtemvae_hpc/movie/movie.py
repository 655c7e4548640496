"""An HDF5 movie opened for reading: its shape, storage and calibration, and its pixels frame range by frame range."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.hdf5 import CHUNK_CACHE, DAMAGED, filters_of, open_hdf5
from hrtemvae_hpc.movie.chunk_grid import ChunkGrid, line_together
from hrtemvae_hpc.movie.chunks import check_chunks, decodes_outside, read_chunks
from hrtemvae_hpc.movie.layouts import locate, open_dataset
from hrtemvae_hpc.movie.sources import FILTER_NAMES, Watch, find_sources

_MOST_FRAMES = 2**22
_CACHES = 2**26  # bytes of HDF5's caches of chunks, all sources of a virtual movie together


@dataclass(frozen=True)
class Storage:
    """How the pixels lie in the file."""

    layout: str  # contiguous or chunks, of a virtual dataset those of its sources
    chunk: tuple[int, int, int] | None  # frames, rows, columns
    compression: str

    def __str__(self) -> str:
        chunk = "" if self.chunk is None else f" of {' x '.join(map(str, self.chunk))}"
        return f"{self.layout}{chunk}, {self.compression}"


class Movie:
    """The analysed part of a movie: frames x rows x columns.

    Frames, rows and columns count from the start of the frame range and region of interest; ``frame_indices``,
    ``top`` and ``left`` are their place in the file. Use as a context manager.
    """

    def __init__(self, path: Path, section: MovieSection | None = None) -> None:
        """Open ``path``; raises InputError when it holds no movie that can be analysed."""
        self.path = path
        self._file = open_hdf5(path, "the movie")
        try:
            self._find(section or MovieSection())
        except InputError:
            self._file.close()
            raise
        except DAMAGED as error:
            self._file.close()
            what = printable(" ".join(str(error).split()))[:200]
            raise InputError(
                f"{path}: its structure can't be read and may be damaged ({what}); copy it again."
            ) from error

    def _find(self, section: MovieSection) -> None:
        self.located = located = locate(self._file, self.path, section.dataset)
        self._dataset = open_dataset(self._file, located.dataset)
        self.axes = section.axes or located.axes
        self._check()
        order = [self.axes.index(a) for a in "tyx"]
        self.full_shape: tuple[int, int, int] = tuple(int(self._dataset.shape[i]) for i in order)  # type: ignore[assignment]
        (self.top, bottom), (self.left, right) = self._region(section)
        self._frames = self._frame_range(section)
        bounds = (self._frames.start, self._frames.stop), (self.top, bottom), (self.left, right)
        self.sources = find_sources(self._dataset, [bounds["tyx".index(a)] for a in self.axes], self.where)
        self.cache_bytes = self._share_cache()
        if len(range(self._frames.start, self._frames.stop, self._frames.step)) > _MOST_FRAMES:
            raise InputError(f"{self.where}: has more than {_MOST_FRAMES:,} frames; choose some with --frames.")
        self.frame_indices = np.arange(self._frames.start, self._frames.stop, self._frames.step)
        self.shape = (len(self.frame_indices), bottom - self.top, right - self.left)
        self.dtype = self._dataset.dtype.newbyteorder("=")
        self.storage = self._storage(order)
        self.chunk_grid = ChunkGrid(
            full_shape=self.full_shape,
            frames=self.frame_indices,
            area=Area(slice(self.top, bottom), slice(self.left, right)),
            chunk=self.storage.chunk,
            unit=self.storage.chunk or line_together(self.full_shape, self.axes, self.dtype.itemsize),
            itemsize=self.dtype.itemsize,
        )
        self.pixel_size_nm, frame_time = located.calibration(self.axes)
        self.frame_time_s = frame_time * self._frames.step if frame_time else None
        self.decodes_in_parallel = decodes_outside(self._dataset)  # else HDF5 lets one thread in at a time
        self._watch = Watch(self.files)
        self.fingerprint = self._fingerprint()

    def _share_cache(self) -> int:
        """Limit HDF5's caches to ``_CACHES`` bytes for all sources of a virtual movie; returns that limit."""
        count = len(self.sources.hdf5)
        if count * CHUNK_CACHE <= _CACHES:
            return CHUNK_CACHE * max(1, count)
        self._file.close()
        self._file = open_hdf5(self.path, "the movie", _CACHES // count)
        self._dataset = open_dataset(self._file, self.located.dataset)
        return _CACHES

    @property
    def files(self) -> list[Path]:
        """All files that the movie's pixels are read from."""
        opened = [self.path, Path(self._dataset.file.filename)]
        return [*opened, *(path for path, _ in self.sources.hdf5), *self.sources.raw]

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
        self._file.close()

    @property
    def where(self) -> str:
        """File and dataset, for messages."""
        return f"{self.path}, dataset {printable(self.located.dataset)}"

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
        first, step = int(self.frame_indices[0]), self._frames.step
        selection = {
            "t": slice(first + frames.start * step, first + (frames.stop - 1) * step + 1, step * (frames.step or 1)),
            "y": slice(self.top + area.rows.start, self.top + area.rows.stop),
            "x": slice(self.left + area.columns.start, self.left + area.columns.stop),
        }
        source = tuple(selection[a] for a in self.axes)
        if self.decodes_in_parallel:
            target = pixels[place or ...].transpose(["tyx".index(a) for a in self.axes])
            read_chunks(self._dataset, source, target)
            return
        check_chunks(self._dataset, source)
        if self.reads_in_place:
            self._dataset.read_direct(pixels, source, place)
        else:
            pixels[place or ...] = self._dataset[source].transpose([self.axes.index(a) for a in "tyx"])

    @property
    def reads_in_place(self) -> bool:
        """Whether pixels reach their place without a copy in the file's order of axes."""
        return self.axes == "tyx" or self.decodes_in_parallel

    def _fingerprint(self) -> str:
        """SHA-256 over what distinguishes this movie from another or a changed one: files, shape, type."""
        facts = (self._watch.fingerprint(), self.located.dataset, self.axes, self.full_shape, self.dtype.str)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _storage(self, order: Sequence[int]) -> Storage:
        """How the pixels lie in the file; those of a virtual dataset as in the first of its sources."""
        if not self.sources.hdf5:
            kind = "virtual" if self._dataset.is_virtual else "raw files beside it, " if self.sources.raw else ""
            return _storage_of(self._dataset, order, kind)
        path, name = sorted(self.sources.hdf5)[0]
        with open_hdf5(path, "the movie") as source:
            return _storage_of(source[name], order, "virtual, sources ")

    def _check(self) -> None:
        dataset = self._dataset
        if dataset.ndim != 3:
            raise InputError(
                f"{self.where}: has shape {dataset.shape}, not three dimensions (frames, rows, columns); "
                "name another with --dataset."
            )
        if dataset.dtype.kind not in "iuf":
            kinds = {"c": "complex numbers", "V": "compound values", "b": "booleans"}
            what = kinds.get(dataset.dtype.kind, "text")
            raise InputError(
                f"{self.where}: holds {what} ({dataset.dtype}), not integer or real pixels; "
                "name another with --dataset."
            )
        if 0 in dataset.shape:
            raise InputError(f"{self.where}: is empty (its shape is {dataset.shape}); nothing can be analysed.")

    def _region(self, section: MovieSection) -> tuple[tuple[int, int], tuple[int, int]]:
        bounds = section.roi or ((None, None), (None, None))
        resolved = []
        for name, size, (start, stop) in zip(("rows", "columns"), self.full_shape[1:], bounds, strict=True):
            a, b = start or 0, size if stop is None else stop
            if not 0 <= a < b <= size:
                raise InputError(
                    f"{self.where}: the region's {name} {a}:{b} do not lie in 0:{size}; fix --roi y0:y1,x0:x1."
                )
            resolved.append((a, b))
        return resolved[0], resolved[1]

    def _frame_range(self, section: MovieSection) -> slice:
        total = self.full_shape[0]
        start, stop, step = section.frames or (None, None, None)
        a, b = start or 0, total if stop is None else stop
        if not 0 <= a < b <= total:
            raise InputError(f"{self.where}: frames {a}:{b} do not lie in 0:{total}; fix --frames.")
        return slice(a, b, step or 1)


def _storage_of(dataset: h5py.Dataset, order: Sequence[int], prefix: str) -> Storage:
    chunk = dataset.chunks
    if chunk and dataset.ndim == 2 and order[0] == 0:  # a source of a virtual movie that holds one frame
        chunk = (1, *chunk)
    if chunk and len(chunk) != 3:
        chunk = None
    return Storage(
        f"{prefix}{'contiguous' if chunk is None else 'chunks'}",
        (chunk[order[0]], chunk[order[1]], chunk[order[2]]) if chunk else None,
        " + ".join(FILTER_NAMES.get(code, f"filter {code}") for code in filters_of(dataset)) or "not compressed",
    )
