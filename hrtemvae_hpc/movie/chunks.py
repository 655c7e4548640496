"""Chunks that are decoded outside of HDF5, which lets only one thread of a process in at a time.

HDF5 hands out a chunk as it lies in the file; gzip and shuffle, which most movies have, are undone here, on as many
threads as read. Other compressions, and chunks that can't be decoded so, are left to HDF5.
"""

import math
from itertools import product
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib

_GZIP, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
_DECODED = ((_GZIP,), (_SHUFFLE, _GZIP))
_LEAST_BYTES = 2**15  # of a chunk: below, HDF5 is as fast


def filters_of(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Codes of the filters of a dataset, in the order they were applied."""
    pipeline = dataset.id.get_create_plist()
    return tuple(pipeline.get_filter(i)[0] for i in range(pipeline.get_nfilters()))


def decodes_outside(dataset: h5py.Dataset) -> bool:
    """Whether the chunks of ``dataset`` can be decoded outside of HDF5: all are there, and large enough to pay."""
    if dataset.chunks is None or filters_of(dataset) not in _DECODED:
        return False
    if math.prod(dataset.chunks) * dataset.dtype.itemsize < _LEAST_BYTES:
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

    All chunks are there, the slices have starts, stops and positive steps. Raises OSError where a chunk can't be
    decoded.
    """
    axes = [
        _parts(range(s.start, s.stop, s.step or 1), depth) for s, depth in zip(selection, dataset.chunks, strict=True)
    ]
    filters = filters_of(dataset)
    for parts in product(*axes):
        offset, own, within = zip(*parts, strict=True)
        target[own] = _chunk(dataset, filters, offset)[within]


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
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    try:
        skipped, raw = dataset.id.read_direct_chunk(offset)
        applied = [code for i, code in enumerate(filters) if not skipped >> i & 1]
        raw = isal_zlib.decompress(raw, bufsize=size) if _GZIP in applied else raw
    except (OSError, RuntimeError, isal_zlib.error):  # type: ignore[misc]  # isal's stub has an instance there
        return _left_to_hdf5(dataset, offset)
    if len(raw) != size:
        raise OSError(f"a chunk can't be read: it has {len(raw)} bytes instead of {size}")
    pixels: np.ndarray = _in_order(np.frombuffer(raw, np.uint8), applied, dataset.dtype).reshape(dataset.chunks)
    return pixels


def _in_order(pixels: np.ndarray, filters: list[int], dtype: np.dtype[Any]) -> np.ndarray:
    """The numbers that the bytes ``pixels`` are."""
    if _SHUFFLE in filters:
        planes = pixels.reshape(dtype.itemsize, -1)
        pixels = np.empty(planes.shape[::-1], np.uint8)
        for i, plane in enumerate(planes):
            pixels[:, i] = plane
    return pixels.ravel().view(dtype)


def _left_to_hdf5(dataset: h5py.Dataset, offset: tuple[int, ...]) -> np.ndarray:
    chunk = np.zeros(dataset.chunks, dataset.dtype)
    inside = [range(o, min(o + c, n)) for o, c, n in zip(offset, dataset.chunks, dataset.shape, strict=True)]
    there = dataset[tuple(slice(r.start, r.stop) for r in inside)]
    chunk[tuple(slice(len(r)) for r in inside)] = there
    return chunk
