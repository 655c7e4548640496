"""Chunks of pixels compressed outside of HDF5, on many threads, as its filters would compress them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import hdf5plugin
import numpy as np
from isal import isal_zlib
from numcodecs import blosc

blosc.use_threads = False  # each of our threads compresses chunks by itself, which also determines the bytes
BLOSC = 32001  # HDF5's number of the filter
_LEVEL = 1
_HEADER = 16  # bytes at the start of what blosc packs


@dataclass(frozen=True)
class Packing:
    """A compression: what HDF5 is told about it, and the function that does the same to an array."""

    filters: Mapping[str, Any]  # arguments of h5py's create_dataset
    pack: Callable[[np.ndarray], bytes]  # a contiguous chunk


def _blosc(name: Literal["zstd", "lz4"]) -> Packing:
    filters = hdf5plugin.Blosc(cname=name, clevel=_LEVEL, shuffle=hdf5plugin.Blosc.BITSHUFFLE)
    return Packing(filters, lambda chunk: blosc.compress(chunk, name.encode(), _LEVEL, blosc.BITSHUFFLE))


def _gzip(chunk: np.ndarray) -> bytes:
    planes = np.ascontiguousarray(chunk.reshape(-1, 1).view(np.uint8).T)
    return isal_zlib.compress(planes, _LEVEL)


PACKINGS = {
    "blosc-zstd": _blosc("zstd"),
    "blosc-lz4": _blosc("lz4"),
    "gzip": Packing({"compression": "gzip", "compression_opts": _LEVEL, "shuffle": True}, _gzip),
    "none": Packing({}, np.ndarray.tobytes),
}


def unpack_blosc(packed: bytes, size: int) -> bytes:
    """The ``size`` bytes that blosc packed; OSError if ``packed`` is damaged, or claims to hold any other number."""
    claimed, stored = (int.from_bytes(packed[i : i + 4], "little") for i in (4, 12))
    if len(packed) < _HEADER or stored != len(packed) or claimed != size:
        raise OSError(f"a chunk can't be read: {len(packed)} bytes of blosc that claim to hold {claimed}, not {size}")
    try:
        unpacked: bytes = blosc.decompress(packed)
    except RuntimeError as error:
        raise OSError(f"a chunk can't be read: {error}") from error
    return unpacked
