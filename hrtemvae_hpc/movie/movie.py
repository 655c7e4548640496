"""An HDF5 movie opened for reading: its shape, storage and calibration, and its pixels frame range by frame range."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

# Lustre and GPFS refuse HDF5's locks; inputs are only read. External files inherit this setting alone.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

import h5py
import hdf5plugin  # noqa: F401  registers blosc, bitshuffle, lz4, zstd and others
import numpy as np

from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.layouts import locate


@dataclass(frozen=True)
class Storage:
    """How the pixels lie in the file."""

    layout: str  # contiguous, chunked or virtual
    chunk: tuple[int, int, int] | None  # frames, rows, columns
    compression: str

    def __str__(self) -> str:
        where = self.layout if self.chunk is None else f"chunks of {' x '.join(map(str, self.chunk))}"
        return f"{where}, {self.compression}"


class Movie:
    """The analysed part of a movie: frames x rows x columns.

    Frames, rows and columns count from the start of the frame range and region of interest; ``frame_indices``,
    ``top`` and ``left`` tell where they lie in the file. Use as a context manager.
    """

    def __init__(self, path: Path, section: MovieSection | None = None) -> None:
        """Open ``path``; raises InputError when it holds no movie that can be analysed."""
        section = section or MovieSection()
        self.path = path
        self._file = _open(path)
        try:
            self.located = located = locate(self._file, path, section.dataset)
            self._dataset = self._file[located.dataset]
            self.axes = section.axes or located.axes
            self._check()
        except BaseException:
            self._file.close()
            raise
        order = [self.axes.index(a) for a in "tyx"]
        self.full_shape: tuple[int, int, int] = tuple(int(self._dataset.shape[i]) for i in order)  # type: ignore[assignment]
        try:
            (self.top, bottom), (self.left, right) = self._region(section)
            self._frames = self._frame_range(section)
        except BaseException:
            self._file.close()
            raise
        self.frame_indices = np.arange(self.full_shape[0])[self._frames]
        self.shape = (len(self.frame_indices), bottom - self.top, right - self.left)
        self.dtype = self._dataset.dtype.newbyteorder("=")
        chunk = self._dataset.chunks
        self.storage = Storage(
            "virtual" if self._dataset.is_virtual else "contiguous" if chunk is None else "chunked",
            (chunk[order[0]], chunk[order[1]], chunk[order[2]]) if chunk else None,
            _compression(self._dataset),
        )
        self.pixel_size_nm = located.pixel_size_nm
        self.frame_time_s = located.frame_time_s * (self._frames.step or 1) if located.frame_time_s else None

    def __enter__(self) -> "Movie":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def where(self) -> str:
        """File and dataset, for messages."""
        return f"{self.path}, dataset {self.located.dataset}"

    def read(self, frames: slice, rows: slice, columns: slice) -> np.ndarray:
        """Pixels [frames, rows, columns] in the machine's byte order; OSError when they can't be decoded."""
        pixels = np.empty([s.stop - s.start for s in (frames, rows, columns)], self.dtype)
        self.read_into(pixels, frames, rows, columns)
        return pixels

    def read_into(self, pixels: np.ndarray, frames: slice, rows: slice, columns: slice) -> None:
        """Like ``read``, into a contiguous array of the movie's dtype; without a copy if ``reads_in_place``."""
        first, step = int(self.frame_indices[0]), self._frames.step
        selection = {
            "t": slice(first + frames.start * step, first + (frames.stop - 1) * step + 1, step),
            "y": slice(self.top + rows.start, self.top + rows.stop),
            "x": slice(self.left + columns.start, self.left + columns.stop),
        }
        place = tuple(selection[a] for a in self.axes)
        if self.reads_in_place:
            self._dataset.read_direct(pixels, place)
        else:
            pixels[...] = self._dataset[place].transpose([self.axes.index(a) for a in "tyx"])

    @property
    def reads_in_place(self) -> bool:
        """Whether the file's order of axes is ours."""
        return self.axes == "tyx"

    def frames_a_slab(self, row_bytes: int, most: int) -> list[slice]:
        """The frames in slabs that end at chunk borders, each of about ``most`` bytes at ``row_bytes`` a frame."""
        depth = self.storage.chunk[0] if self.storage.chunk else 1
        in_chunk = self.frame_indices // depth
        borders = np.flatnonzero(np.diff(in_chunk)) + 1
        starts, slab_start = [0], 0
        for border in borders:
            if (border - slab_start + depth) * row_bytes > most:
                starts.append(int(border))
                slab_start = int(border)
        return [slice(a, b) for a, b in zip(starts, [*starts[1:], self.shape[0]], strict=True)]

    def decoded_bytes(self, rows: slice, columns: slice) -> int:
        """Bytes that reading all frames of a region decodes: whole chunks, each once."""
        t, y, x = self.decoded_extent(0, rows), self.decoded_extent(1, rows), self.decoded_extent(2, columns)
        return t * y * x * int(self.dtype.itemsize)

    def decoded_extent(self, axis: int, span: slice) -> int:
        """Frames (axis 0), rows (1) or columns (2) of the chunks that reading ``span`` touches."""
        size = self.full_shape[axis]
        depth = self.storage.chunk[axis] if self.storage.chunk else 1
        if axis == 0:
            chunks = np.unique(self.frame_indices // depth)
        else:
            start = (self.top, self.left)[axis - 1]
            chunks = np.arange((start + span.start) // depth, (start + span.stop - 1) // depth + 1)
        return int(np.minimum(depth, size - chunks * depth).sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what tells this movie's file from another or a changed one: sizes, times, shape, type."""
        files = {self.path, Path(self._dataset.file.filename), *self._virtual_sources()}
        facts = [(f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(files)]
        text = repr((facts, self.located.dataset, self.axes, self.full_shape, self.dtype.str))
        return hashlib.sha256(text.encode()).hexdigest()

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
        for source in self._virtual_sources():
            if not source.exists():
                raise InputError(
                    f"{self.where}: a virtual dataset whose source {source} is missing; put it back where it was."
                )
        if 0 in dataset.shape:
            raise InputError(f"{self.where}: is empty, its shape is {dataset.shape}; nothing can be analysed.")

    def _virtual_sources(self) -> set[Path]:
        """The files that a virtual dataset is made of; names with a running number (%b) can't be listed."""
        if not self._dataset.is_virtual:
            return set()
        own = Path(self._dataset.file.filename)
        names = {source.file_name for source in self._dataset.virtual_sources()}
        return {own if name == "." else own.parent / name for name in names if "%" not in name}

    def _region(self, section: MovieSection) -> tuple[tuple[int, int], tuple[int, int]]:
        bounds = section.roi or ((None, None), (None, None))
        resolved = []
        for name, size, (start, stop) in zip(("rows", "columns"), self.full_shape[1:], bounds, strict=True):
            a, b = start or 0, size if stop is None else stop
            if not 0 <= a < b <= size:
                raise InputError(
                    f"{self.where}: the region's {name} {a}:{b} do not lie in 0:{size}; mend --roi y0:y1,x0:x1."
                )
            resolved.append((a, b))
        return resolved[0], resolved[1]

    def _frame_range(self, section: MovieSection) -> slice:
        total = self.full_shape[0]
        start, stop, step = section.frames or (None, None, None)
        a, b = start or 0, total if stop is None else stop
        if not 0 <= a < b <= total:
            raise InputError(f"{self.where}: frames {a}:{b} do not lie in 0:{total}; mend --frames.")
        return slice(a, b, step or 1)


def _open(path: Path) -> h5py.File:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the movie's HDF5 file.")
    if not path.exists():
        raise InputError(f"{path}: there is no such file.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); copy the movie again.")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "truncated" in str(error):
            raise InputError(f"{path}: is truncated, its end is missing; copy the movie again.") from error
        if not h5py.is_hdf5(path):
            raise InputError(f"{path}: is not an HDF5 file; convert the movie to HDF5 first.") from error
        raise InputError(f"{path}: is a damaged HDF5 file ({error}); copy the movie again.") from error


def _compression(dataset: h5py.Dataset) -> str:
    """Names of the filters of a dataset, in the order they were applied."""
    pipeline = dataset.id.get_create_plist()
    codes = [pipeline.get_filter(i)[0] for i in range(pipeline.get_nfilters())]
    return " + ".join(_FILTER_NAMES.get(code, f"filter {code}") for code in codes) or "not compressed"


# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_FILTER_NAMES = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
}
