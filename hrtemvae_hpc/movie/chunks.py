"""Chunks that are decoded outside of HDF5, which lets only one thread of a process in at a time.

HDF5 returns a chunk as it lies in the file; gzip and shuffle, which most movies use, and blosc, which this program
writes, are undone here, on all threads that read. Other compressions are left to HDF5.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import h5py
import numpy as np

from hrtemvae_hpc.hdf5 import GZIP, SHUFFLE, chunk_bytes, filters_of, inflate_chunk
from hrtemvae_hpc.movie.packing import BLOSC, unpack_blosc

_DECODED = ((GZIP,), (SHUFFLE, GZIP), (BLOSC,))
_BLOSC_WITH_SNAPPY = 3  # which only the filter of HDF5 knows
_LEAST_BYTES = 2**15  # of a chunk: below, HDF5 is as fast


def decodes_outside(dataset: h5py.Dataset) -> bool:
    """Whether the chunks of ``dataset`` can be decoded outside of HDF5: all exist, and are large enough for a gain."""
    if dataset.chunks is None or filters_of(dataset) not in _DECODED:
        return False
    if chunk_bytes(dataset) < _LEAST_BYTES:
        return False
    if filters_of(dataset) == (BLOSC,) and _BLOSC_WITH_SNAPPY in dataset.id.get_create_plist().get_filter(0)[2][6:7]:
        return False
    if not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype)):  # HDF5 converts, say 12 bits of 16
        return False
    count = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    try:
        return bool(dataset.id.get_num_chunks() == count)
    except (OSError, RuntimeError):  # the index of chunks is damaged
        return False


def read_chunks(dataset: h5py.Dataset, selection: tuple[slice, ...], target: np.ndarray) -> None:
    """Read ``selection`` of ``dataset`` into ``target``, which has the selection's shape and any numeric dtype.

    All chunks exist, the slices have starts, stops and positive steps. Raises OSError if a chunk can't be
    decoded.
    """
    filters = filters_of(dataset)
    for offset, place, within in _touched(dataset, selection):
        target[place] = _chunk(dataset, filters, offset)[within]


def check_chunks(dataset: h5py.Dataset, selection: tuple[slice, ...]) -> None:
    """Raise OSError if HDF5 would inflate a chunk that ``selection`` touches to more than a chunk's size.

    HDF5 gives gzip all the memory that it asks for: a thousand times as much as is stored.
    """
    filters = filters_of(dataset)
    if GZIP in filters:
        for offset, _, _ in _touched(dataset, selection):
            inflate_chunk(dataset, filters, offset)


def _touched(dataset: h5py.Dataset, selection: tuple[slice, ...]) -> Iterator[tuple[Any, Any, Any]]:
    """Of each chunk that ``selection`` touches: its offset, its part of the selection, the same in the chunk."""
    axes = [
        _parts(range(s.start, s.stop, s.step or 1), depth) for s, depth in zip(selection, dataset.chunks, strict=True)
    ]
    for parts in product(*axes):
        yield tuple(zip(*parts, strict=True))


def _parts(span: range, depth: int) -> list[tuple[int, slice, slice]]:
    """Of each chunk along an axis that ``span`` touches: its offset, its part of the span, the same in the chunk."""
    parts, done = [], 0
    while done < len(span):
        offset = span[done] // depth * depth
        inside = range(span[done] - offset, min(offset + depth, span.stop) - offset, span.step)
        parts.append((offset, slice(done, done + len(inside)), slice(inside.start, inside.stop, inside.step)))
        done += len(inside)
    return parts


def _chunk(dataset: h5py.Dataset, filters: tuple[int, ...], offset: tuple[int, ...]) -> np.ndarray:
    """The whole chunk at ``offset``, also where it reaches beyond the dataset."""
    size = chunk_bytes(dataset)
    raw, applied = inflate_chunk(dataset, filters, offset)
    if applied == [BLOSC]:
        raw, applied = unpack_blosc(raw, size), []
    if len(raw) != size:
        raise OSError(f"a chunk can't be read: it has {len(raw)} bytes instead of {size}")
    pixels: np.ndarray = _in_order(np.frombuffer(raw, np.uint8), applied, dataset.dtype).reshape(dataset.chunks)
    return pixels


def _in_order(pixels: np.ndarray, filters: list[int], dtype: np.dtype[Any]) -> np.ndarray:
    """The numbers that the bytes ``pixels`` are."""
    if SHUFFLE in filters:
        planes = pixels.reshape(dtype.itemsize, -1)
        pixels = np.empty(planes.shape[::-1], np.uint8)
        for i, plane in enumerate(planes):
            pixels[:, i] = plane
    return pixels.ravel().view(dtype)
