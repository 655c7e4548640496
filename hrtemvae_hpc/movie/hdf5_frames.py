"""Frames in an HDF5 file of any layout."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.hdf5 import CHUNK_CACHE, DAMAGED, filters_of, open_hdf5, read_array
from hrtemvae_hpc.movie.chunk_grid import line_together
from hrtemvae_hpc.movie.chunks import check_chunks, decodes_outside, read_chunks
from hrtemvae_hpc.movie.frames import Description, FrameSource, Storage, count_complete
from hrtemvae_hpc.movie.joined_frames import JoinedFrames
from hrtemvae_hpc.movie.layouts import all_datasets, listed, locate, open_dataset
from hrtemvae_hpc.movie.located import Located
from hrtemvae_hpc.movie.sources import FILTER_NAMES, find_sources

_CACHES = 2**26  # bytes of HDF5's caches of chunks, all sources of a virtual movie together


def open_hdf5_frames(path: Path, dataset: str | None, axes: str | None, growing: bool = False) -> FrameSource:
    """The frames of ``dataset`` of ``path``, by default the only movie, which may be in several datasets.

    ``axes`` is the order of its axes, by default what the file says; ``growing`` as of ``open_hdf5``. Raises InputError
    if it is no movie.
    """
    file = open_hdf5(path, "the movie", growing=growing)
    with _or_damaged(path, file):
        located = locate(file, path, dataset)
    file.close()
    if not located.parts:
        return Hdf5Frames(path, located, axes, growing)
    if axes not in (None, "tyx"):
        raise InputError(f"{path}: its movie is in parts, of which the first axis counts frames; leave out --axes.")
    parts: list[FrameSource] = []
    try:
        parts.extend(
            Hdf5Frames(path, replace(located, dataset=f"{located.dataset.rstrip('/')}/{name}", parts=()), axes, growing)
            for name in located.parts
        )
    except InputError:
        for part in parts:
            part.close()
        raise
    where = f"{path}, {len(parts)} datasets in {printable(located.dataset)}"
    first = parts[0].description
    total = sum(part.description.shape[0] for part in parts)
    return JoinedFrames(path, where, parts, replace(first, shape=(total, *first.shape[1:])), located.dataset)


def read_only_image(path: Path) -> tuple[str, np.ndarray] | None:
    """The only image [rows, columns] of a file without movies, and the dataset that holds it; None if there is none.

    It may be boolean. Raises InputError if there are several, or it can't be read.
    """
    file = open_hdf5(path, "the image")
    with _or_damaged(path, file):
        datasets = all_datasets(file)
        movies = any(dataset.ndim == 3 for dataset in datasets.values())
        images = [name for name, dataset in datasets.items() if dataset.ndim == 2 and not movies]
        if len(images) > 1:
            raise InputError(f"{path}: holds several images; keep one in a file" + listed(": {}.", images))
        try:
            image = read_array(file, images[0], "biuf") if images else None
        except ValueError as error:
            raise InputError(f"{path}: {printable(str(error))}; save the image again, as .npy for example.") from error
    file.close()
    return None if image is None else (images[0], image)


@contextmanager
def _or_damaged(path: Path, file: h5py.File) -> Iterator[None]:
    """Close the file where it is refused; what HDF5 raises for damaged files becomes InputError."""
    try:
        yield
    except InputError:
        file.close()
        raise
    except DAMAGED as error:
        file.close()
        what = printable(" ".join(str(error).split()))[:200]
        raise InputError(f"{path}: its structure can't be read and may be damaged ({what}); copy it again.") from error


class Hdf5Frames(FrameSource):
    """The frames of a dataset [frames, rows, columns], or in another order of axes."""

    def __init__(self, path: Path, located: Located, axes: str | None, growing: bool = False) -> None:
        """Open the dataset that was ``located`` in ``path``.

        ``axes`` is the order of its axes, by default what the file says; ``growing`` as of ``open_hdf5``. Raises
        InputError if it is no movie.
        """
        self.path = path
        self._growing = growing
        self._file = open_hdf5(path, "the movie", growing=growing)
        self.is_open_in_writer = bool(self._file.swmr_mode)
        with _or_damaged(path, self._file):
            self.dataset = located.dataset
            self.where = f"{path}, dataset {printable(self.dataset)}"
            self._dataset = open_dataset(self._file, self.dataset)
            self._axes = axes or located.axes
            _check(self._dataset, self.where)
            self._order = [self._axes.index(a) for a in "tyx"]
            frames, rows, columns = (int(self._dataset.shape[i]) for i in self._order)
            pixel_size, frame_time = located.calibration(self._axes)
            times = located.times_s(self._axes)
            self.description = Description(
                located.layout,
                (frames, rows, columns),
                self._dataset.dtype.newbyteorder("="),
                pixel_size,
                frame_time,
                times if times is not None and len(times) == frames else None,
                counts_per_electron=_counts_per_electron(self._dataset),
                diffraction=located.is_diffraction(self._axes),
            )

    @property
    def identity(self) -> tuple[object, ...]:
        return self.dataset, self._axes, self.description.shape, self.description.dtype.str

    def complete(self, known: int) -> int:
        dataset, first = self._dataset, self._axes.index("t")
        if not dataset.chunks or dataset.is_virtual:
            return self.description.shape[0]
        chunks = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
        depth, in_layer = dataset.chunks[first], math.prod(chunks) // chunks[first]
        written = np.zeros(chunks[first], np.int64)  # chunks of each layer

        def count(chunk: h5py.h5d.StoreInfo) -> None:
            written[chunk.chunk_offset[first] // depth] += 1

        try:
            if dataset.id.get_num_chunks() == math.prod(chunks):
                return self.description.shape[0]
            dataset.id.chunk_iter(count)
        except DAMAGED:  # as its writer has it half written
            return known
        return min(int(depth) * count_complete(written >= in_layer), self.description.shape[0])

    def prepare(self, frames: slice, area: Area) -> None:
        bounds = dict(zip("tyx", ((span.start, span.stop) for span in (frames, *area)), strict=True))
        with _or_damaged(self.path, self._file):
            self._sources = find_sources(self._dataset, [bounds[a] for a in self._axes], self.where)
            self._share_cache()
            self.storage = self._storage()
            self.decodes_in_parallel = decodes_outside(self._dataset)  # else HDF5 lets one thread in at a time
        self.reads_in_place = self._axes == "tyx" or self.decodes_in_parallel
        shape, itemsize = self.description.shape, self.description.dtype.itemsize
        self.unit = self.storage.chunk or line_together(shape, self._axes, itemsize)
        opened = [self.path, Path(self._dataset.file.filename)]
        self.raw_files = self._sources.raw
        self.files = [*opened, *(path for path, _ in self._sources.hdf5), *self._sources.raw]

    def read_into(
        self, pixels: np.ndarray, frames: slice, area: Area, place: tuple[slice, slice, slice] | None = None
    ) -> None:
        selection = dict(zip("tyx", (frames, *area), strict=True))
        source = tuple(selection[a] for a in self._axes)
        if self.decodes_in_parallel:
            target = pixels[place or ...].transpose(["tyx".index(a) for a in self._axes])
            read_chunks(self._dataset, source, target)
            return
        check_chunks(self._dataset, source)
        if self.reads_in_place:
            self._dataset.read_direct(pixels, source, place)
        else:
            pixels[place or ...] = self._dataset[source].transpose(self._order)

    def close(self) -> None:
        self._file.close()

    def _share_cache(self) -> None:
        """Limit HDF5's caches to ``_CACHES`` bytes for all sources of a virtual movie."""
        count = len(self._sources.hdf5)
        self.cache_bytes = min(_CACHES, CHUNK_CACHE * max(1, count))
        if count * CHUNK_CACHE > _CACHES:
            self._file.close()
            self._file = open_hdf5(self.path, "the movie", _CACHES // count, self._growing)
            self._dataset = open_dataset(self._file, self.dataset)

    def _storage(self) -> Storage:
        """How the pixels lie in the file; those of a virtual dataset as in the first of its sources."""
        if not self._sources.hdf5:
            kind = "virtual" if self._dataset.is_virtual else "raw files beside it, " if self._sources.raw else ""
            return _storage_of(self._dataset, self._order, kind)
        path, name = sorted(self._sources.hdf5)[0]
        with open_hdf5(path, "the movie") as source:
            return _storage_of(source[name], self._order, "virtual, sources ")


def _check(dataset: h5py.Dataset, where: str) -> None:
    if dataset.ndim != 3:
        raise InputError(
            f"{where}: has shape {dataset.shape}, not three dimensions (frames, rows, columns); "
            "name another with --dataset."
        )
    if dataset.dtype.kind not in "iuf":
        kinds = {"c": "complex numbers", "V": "compound values", "b": "booleans"}
        what = kinds.get(dataset.dtype.kind, "text")
        raise InputError(
            f"{where}: holds {what} ({dataset.dtype}), not integer or real pixels; name another with --dataset."
        )
    if 0 in dataset.shape:
        raise InputError(f"{where}: is empty (its shape is {dataset.shape}); nothing can be analysed.")


def _counts_per_electron(dataset: h5py.Dataset) -> float | None:
    """What `hrtemvae convert` notes about the detector, None if there is no such number."""
    value = np.ravel(dataset.attrs.get("counts_per_electron", ()))
    if value.size != 1 or value.dtype.kind not in "iuf" or not 0 < value[0] < 1e9:
        return None
    return float(value[0])


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
