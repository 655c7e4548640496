"""Reading HDF5 files: they are opened without locks, and their claims are checked before memory is allocated."""

import math
import os
from pathlib import Path
from typing import Any

# Lustre and GPFS refuse HDF5's locks; inputs are only read. External files inherit this setting alone.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
# Files that a dataset lies in are looked for beside its own file.
os.environ["HDF5_EXTFILE_PREFIX"] = "${ORIGIN}"
os.environ.pop("HDF5_VDS_PREFIX", None)

import h5py
import hdf5plugin  # noqa: F401  registers blosc, bitshuffle, lz4, zstd and others
import numpy as np
from isal import isal_zlib

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import CREATOR, content_of, is_file, is_folder

CHUNK_CACHE = 2**20  # bytes of HDF5's cache of chunks, for each dataset that is open
GZIP, SHUFFLE, FLETCHER32, LZF = (
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
)
_OWN_FILTERS = {GZIP, SHUFFLE, FLETCHER32, LZF}
_OPEN_IN_WRITER = "already open for write"
_LARGEST = 2**28  # bytes of an array that is read as a whole, or of a chunk
_GROWTH = 64, 1.01  # bytes, and times its size, that packing may add to a chunk

# What h5py and HDF5 raise for files that are damaged, or not what they should be.
DAMAGED = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
)


def open_hdf5(path: Path, what: str, chunk_cache: int = CHUNK_CACHE, growing: bool = False) -> h5py.File:
    """Open ``path`` for reading; ``what`` it should be is for messages.

    HDF5 caches ``chunk_cache`` bytes of chunks for each dataset that is open, those of a virtual one among them. A file
    that is ``growing`` may be open in a writer, if that uses HDF5's mode for one writer and many readers (SWMR).

    Raises InputError if it can't be opened.
    """
    try:
        str(path).encode()
        size = path.stat().st_size
    except UnicodeEncodeError as error:
        raise InputError(f"{printable(str(path))}: HDF5 can't open names that are not UTF-8; rename it.") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", error)
        raise InputError(f"{path}: can't be accessed ({why}); fix the path or its permissions.") from error
    if is_folder(path):
        raise InputError(f"{path}: is a folder; name the HDF5 file of {what}.")
    if not is_file(path):
        raise InputError(f"{path}: is not a regular file; name the HDF5 file of {what}.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: is not readable; change its permissions.")
    if size == 0:
        raise InputError(f"{path}: is empty (0 bytes); copy {what} again.")
    try:
        return h5py.File(path, "r", locking=False, rdcc_nbytes=chunk_cache)
    except (OSError, RuntimeError) as error:
        if _OPEN_IN_WRITER in str(error):
            return _open_beside_writer(path, chunk_cache, growing)
        if "truncated" in str(error):
            raise InputError(f"{path}: is truncated (its end is missing); copy {what} again.") from error
        if not h5py.is_hdf5(path):
            raise InputError(f"{path}: is not an HDF5 file; name the file of {what}, or convert it first.") from error
        raise InputError(f"{path}: is a damaged HDF5 file ({_one_line(error)}); copy {what} again.") from error


def _open_beside_writer(path: Path, chunk_cache: int, growing: bool) -> h5py.File:
    if growing:
        try:
            return h5py.File(path, "r", locking=False, rdcc_nbytes=chunk_cache, swmr=True)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{path}: its writer lets nobody read it ({_one_line(error)}); have it written in SWMR mode, or "
                "analyse it when it is complete."
            ) from error
    raise InputError(
        f"{path}: is still being written, or its writer was killed; wait, analyse it meanwhile with `hrtemvae analyze "
        "--follow`, or mark it as closed with `h5clear --status`."
    )


def sign(file: h5py.File, kind: str) -> None:
    """Mark a new ``file`` as written by this program as a file of ``kind``, before anything else is in it.

    The mark is text of fixed length at the start of the file, and is read without HDF5, which may search forever in a
    damaged file.
    """
    file.attrs.update(creator=np.bytes_(CREATOR), content=np.bytes_(content_of(kind)))


def read_array(
    group: h5py.Group, name: str, kinds: str, ndim: int | None = None, most: int = _LARGEST
) -> np.ndarray[Any, Any]:
    """The dataset ``name`` as a whole, of dtype kinds such as "iuf" and of ``ndim`` axes, in the machine's byte order.

    Raises ValueError if it is something else, lies in other files, claims more than ``most`` bytes, or can't be
    decoded; KeyError if there is none.
    """
    dataset = check_array(group, name, kinds, ndim, most)
    check_inflated(dataset)
    try:
        values = dataset[...]
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} can't be decoded ({_one_line(error)})") from error
    return np.asarray(values, values.dtype.newbyteorder("="))


def check_array(
    group: h5py.Group, name: str, kinds: str, ndim: int | None = None, most: int | None = None
) -> h5py.Dataset:
    """The dataset ``name``, unread; raises as ``read_array`` does, except for what can't be decoded."""
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError(f"{name} is not a dataset")
    if dataset.dtype.kind not in kinds:
        raise ValueError(f"{name} has type {dataset.dtype}")
    if ndim is not None and dataset.ndim != ndim:
        raise ValueError(f"{name} has shape {dataset.shape}")
    if dataset.is_virtual or dataset.external or h5py.h5f.get_name(dataset.id) != h5py.h5f.get_name(group.id):
        raise ValueError(f"{name} lies in another file")
    largest = max(math.prod(dataset.shape) * int(dataset.dtype.itemsize), chunk_bytes(dataset))
    if most is not None and largest > most:
        raise ValueError(f"{name} claims more than {most // 2**20} MiB, with shape {dataset.shape}")
    if others := set(filters_of(dataset)) - _OWN_FILTERS:
        raise ValueError(f"{name} is compressed with HDF5 filter {min(others)}")
    return dataset


def filters_of(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Codes of the filters of a dataset, in the order they were applied."""
    pipeline = dataset.id.get_create_plist()
    return tuple(pipeline.get_filter(i)[0] for i in range(pipeline.get_nfilters()))


def chunk_bytes(dataset: h5py.Dataset) -> int:
    """Bytes of a decoded chunk; 0 if ``dataset`` isn't stored in chunks."""
    return math.prod(dataset.chunks) * int(dataset.dtype.itemsize) if dataset.chunks else 0


def check_inflated(dataset: h5py.Dataset) -> None:
    """Raise ValueError if a chunk of ``dataset`` is huge, or takes more bytes than it should once it is inflated.

    HDF5 itself gives gzip all the memory that it asks for.
    """
    if chunk_bytes(dataset) > _LARGEST:
        raise ValueError(f"{dataset.name} has chunks of {dataset.chunks}")
    filters = filters_of(dataset)
    for i in range(dataset.id.get_num_chunks() if GZIP in filters else 0):
        try:
            inflate_chunk(dataset, filters, dataset.id.get_chunk_info(i).chunk_offset)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{dataset.name} can't be decoded ({_one_line(error)})") from error


def inflate_chunk(dataset: h5py.Dataset, filters: tuple[int, ...], offset: tuple[int, ...]) -> tuple[bytes, list[int]]:
    """The bytes of the chunk at ``offset`` after gzip is undone, and which of its ``filters`` remain to be undone.

    Checksums are taken off, not checked. Raises OSError if the chunk can't be read or is larger than a chunk of
    ``dataset`` can be.
    """
    size = chunk_bytes(dataset)
    room = int(_GROWTH[0] + _GROWTH[1] * size)
    try:
        skipped, raw = dataset.id.read_direct_chunk(offset)
    except RuntimeError as error:
        raise OSError(f"a chunk can't be read: {_one_line(error)}") from error
    applied = [code for i, code in enumerate(filters) if not skipped >> i & 1]
    if len(raw) > room:
        raise OSError(f"a chunk can't be read: {len(raw)} bytes are stored for one of {size}")
    if applied and applied[-1] == FLETCHER32:
        raw, applied = raw[:-4], applied[:-1]
    if not applied or applied[-1] != GZIP:
        return raw, applied
    return inflate(raw, room), applied[:-1]


def inflate(packed: bytes, most: int) -> bytes:
    """``packed`` by zlib, unpacked; OSError if that is damaged or takes more than ``most`` bytes."""
    unpacking = isal_zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(packed, max_length=most + 1)
    except isal_zlib.error as error:  # type: ignore[misc]  # isal's stub has an instance there
        raise OSError(f"a chunk can't be read: it is not gzip ({error})") from error
    if not unpacking.eof:
        larger = len(unpacked) > most
        raise OSError("a chunk can't be read: " + (f"it holds more than {most} bytes" if larger else "it is cut off"))
    return unpacked


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))[:200]
