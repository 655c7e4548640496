"""The file of a converted movie: a NeXus file with a digest of each frame, written from chunks that are packed already.

/entry/data (NXdata) holds the frames with their times and the places of their pixels, /entry/digests what verifies
them, /entry/process (NXprocess) what made them, and /entry/source (NXcollection) all that was known about where they
came from. The same movie, converted in the same way, gives the same bytes: the file holds no date of its own.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import xxhash

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import extend, hdf5_disk_errors, is_written_as, reserve
from hrtemvae_hpc.hdf5 import DAMAGED, check_array, open_hdf5, read_array, sign
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.packing import PACKINGS
from hrtemvae_hpc.threads import on_threads

DIGEST, DIGEST_BYTES = "xxh3_128", 16  # of the bytes of a frame, row by row
_SIDE = 128  # pixels, about, on the side of a chunk
_DEPTH = 8  # frames in a chunk
_LAYER_BYTES = 2**26  # of all chunks that share frames
_ROOM = 2**20, 200  # bytes of a file besides its chunks, and for each chunk or frame
_NAMED = 5  # frames in a message
_SMALL = 2**13  # bytes: HDF5 puts pieces below a quarter of this together
_HEAD = 64  # bytes by which a chunk is recognized


@dataclass(frozen=True)
class PackedBlock:
    """Some layers of a movie as they are stored."""

    digests: np.ndarray  # [frames, 16] uint8
    chunks: Sequence[bytes | memoryview]  # layer by layer, in each as ``places`` of the movie


@dataclass(frozen=True)
class ConvertedMovie:
    """What a converted movie holds besides its pixels."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    compression: str  # one of PACKINGS
    times: np.ndarray  # [frames] of each frame's beginning: seconds, or frames where these are not known
    timed: bool  # whether they are seconds
    pixel_size_nm: tuple[float, float] | None  # of rows and columns
    counts_per_electron: float | None
    process: Mapping[str, str]
    source: Mapping[str, str]

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a chunk.

        Tiles are read by small areas of all frames, so that a chunk is about as wide as a block of windows; its sides
        divide a frame nearly evenly. It holds as many frames as compress well, but all chunks of these frames, which
        are converted together, fit in 64 MiB.
        """
        frames, height, width = self.shape
        depth = max(1, min(_DEPTH, frames, _LAYER_BYTES // (height * width * self.dtype.itemsize)))
        return depth, _even(height), _even(width)

    def layers(self) -> list[slice]:
        """The frames that share chunks."""
        return [slice(a, min(a + self.chunk[0], self.shape[0])) for a in range(0, self.shape[0], self.chunk[0])]

    def places(self) -> list[Area]:
        """The areas of the chunks of a layer, in the order in which they are stored; they may exceed the frame."""
        (_, height, width), (_, h, w) = self.shape, self.chunk
        corners = product(range(0, height, h), range(0, width, w))
        return [Area(slice(y, y + h), slice(x, x + w)) for y, x in corners]


def _even(size: int) -> int:
    return -(-size // max(1, round(size / _SIDE)))


def frame_digest(frame: np.ndarray) -> bytes:
    """16 bytes that tell a contiguous ``frame`` from any other."""
    return xxhash.xxh3_128_digest(frame.data)


def write_converted(
    path: Path,
    about: ConvertedMovie,
    blocks: Iterable[PackedBlock],
    written: Callable[[PackedBlock, list[int]], object],
) -> None:
    """Write a movie to the existing file ``path``; ``blocks`` are all of its layers in order.

    ``written`` gets each block once it is in the file, and the offsets of its chunks there. Raises OSError if the disk
    is full or fails.
    """
    parts = list(product(about.layers(), about.places()))
    size = _ROOM[0] + _ROOM[1] * (len(parts) + about.shape[0])
    reserve(path, size)
    with hdf5_disk_errors(), h5py.File(path, "w") as file, path.open("rb", buffering=0) as there:
        sign(file, "movie")
        file.attrs["default"] = "entry"
        entry = _group(file, "entry", "NXentry")
        entry.attrs["default"] = "data"
        _write_texts(_group(entry, "process", "NXprocess"), about.process)
        _write_texts(_group(entry, "source", "NXcollection"), about.source)
        data = _group(entry, "data", "NXdata")
        data.attrs.update(signal="data", axes=["time", "y", "x"])
        _write_axes(data, about)
        filters = PACKINGS[about.compression].filters
        pixels = data.create_dataset("data", about.shape, about.dtype, chunks=about.chunk, **filters)
        if about.counts_per_electron is not None:
            pixels.attrs["counts_per_electron"] = about.counts_per_electron
        stored = iter(parts)
        digests = []
        reserved = 0
        for block in blocks:
            size += sum(map(len, block.chunks))
            extend(path, reserved, size)
            reserved = size
            offsets = []
            for chunk in block.chunks:
                layer, (rows, columns) = next(stored)
                offsets.append(_store(file, there, pixels, (layer.start, rows.start, columns.start), chunk))
            written(block, offsets)
            digests.append(block.digests)
        entry["digests"] = np.concatenate(digests)
        entry["digests"].attrs["algorithm"] = DIGEST
        file.flush()
        size = file.id.get_filesize()
    os.truncate(path, size)


def _store(
    file: h5py.File, written: BinaryIO, pixels: h5py.Dataset, corner: tuple[int, int, int], chunk: bytes | memoryview
) -> int:
    """Write a packed chunk; an offset at which ``written``, the same file, holds its bytes.

    HDF5 puts a chunk at the end of the file, or into room that it has left just before. Asked where, it would look
    through all chunks.
    """
    end = file.id.get_filesize()
    pixels.id.write_direct_chunk(corner, chunk)
    if os.pread(written.fileno(), _HEAD, end) == chunk[:_HEAD]:
        return int(end)
    begin = max(0, end - _SMALL)
    found = os.pread(written.fileno(), _SMALL + _SMALL + len(chunk), begin).find(chunk)
    return begin + found if found >= 0 else int(pixels.id.get_chunk_info_by_coord(corner).byte_offset)


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _write_texts(group: h5py.Group, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        group[name] = text


def _write_axes(data: h5py.Group, about: ConvertedMovie) -> None:
    data["time"] = about.times
    if about.timed:
        data["time"].attrs["units"] = "s"
    sizes = about.pixel_size_nm or (1.0, 1.0)
    for name, count, size in zip("yx", about.shape[1:], sizes, strict=True):
        data[name] = np.arange(count) * size
        data[name].attrs["units"] = "nm" if about.pixel_size_nm else "pixel"


def conversion_identity(path: Path) -> str:
    """What distinguishes the conversion that wrote the movie ``path`` from others; "" if none did."""
    try:
        with open_hdf5(path, "the movie") as file:
            return str(check_array(file["entry/process"], "identity", "O", 0).asstr()[()])
    except (InputError, *DAMAGED):
        return ""


def check_frames(
    path: Path,
    digests: np.ndarray,
    pool: ThreadPoolExecutor,
    progress: Callable[[int], object],
    which: slice = slice(None),
) -> list[int]:
    """The frames of the converted movie ``path`` that are not those of ``digests``, or can't be decoded.

    Only those of the layers ``which`` are read. ``progress`` gets the number of frames of each layer.
    """
    bad: list[int] = []
    with Movie(path) as movie:
        frames, height, width = movie.shape
        rows, _ = movie.chunk_grid.pieces(movie.area)
        layers = movie.chunk_grid.layers(slice(0, frames))[which]
        pixels = np.empty((max((s.stop - s.start for s in layers), default=0), height, width), movie.dtype)
        for layer in layers:

            def read(span: slice, layer: slice = layer) -> bool:
                area = Area(span, slice(0, width))
                try:
                    movie.read_into(pixels, layer, area, (slice(0, layer.stop - layer.start), *area))
                except OSError:
                    return False
                return True

            decoded = all(on_threads(pool, read, rows) if movie.decodes_in_parallel else map(read, rows))
            of_layer = pixels[: layer.stop - layer.start]
            found = on_threads(pool, frame_digest, of_layer)
            same = [decoded and known.tobytes() == each for known, each in zip(digests[layer], found, strict=True)]
            bad += [layer.start + i for i in range(len(same)) if not same[i]]
            progress(len(of_layer))
    return bad


def check_converted(path: Path, threads: int, progress: Callable[[int], object]) -> str:
    """A sentence about a converted movie whose frames are as they were written.

    Raises InputError if they aren't, or if that can't be known.
    """
    with open_hdf5(path, "the movie") as file:
        try:
            digests = read_array(file["entry"], "digests", "u", 2)
            algorithm = file["entry/digests"].attrs.get("algorithm")
        except DAMAGED:
            algorithm = None
    if algorithm != DIGEST or not is_written_as(path, "movie"):
        raise InputError(f"{path}: holds no digests of its frames: `hrtemvae convert` did not write it.")
    with ThreadPoolExecutor(threads) as pool:
        with Movie(path) as movie:
            if digests.shape != (movie.shape[0], DIGEST_BYTES):
                raise InputError(
                    f"{path}: is not intact: it holds {movie.shape[0]} frames, and digests of {len(digests)}."
                )
        bad = check_frames(path, digests, pool, progress)
    if bad:
        raise InputError(f"{path}: is not intact: {frames_named(bad)} not as written; convert the movie again.")
    return f"intact, all its {len(digests)} frames are as they were written"


def frames_named(frames: Sequence[int]) -> str:
    """Frames for a message, with their verb."""
    more = f" and {len(frames) - _NAMED} more" if len(frames) > _NAMED else ""
    several = len(frames) > 1
    named = ", ".join(map(str, frames[:_NAMED]))
    return f"frames {named}{more} are" if several else f"frame {named} is"
