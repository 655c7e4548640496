"""The file of segments: one HDF5 file, its pixels uncompressed in one piece, which ranks of a node map and share.

/segments [n, window, window] uint16, 0..65535 for 0..1; beside it, for each segment, strength, period (pixels),
frame, place (row, column), turned (degrees), source (row of /sources) and validation (bool). The attributes of the
file tell the pixel size in nm (NaN where unknown or mixed), the options and the program.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hrtemvae_hpc import __version__
from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.files import hdf5_disk_errors, is_file, replacing, reserve

_FORMAT = 1
LEVELS = 65535  # segments are kept as uint16, 0..65535 for 0..1


@dataclass(frozen=True)
class SourceSegments:
    """Segments of one source (a file of micrographs, or a simulation), and what is known of each."""

    name: str
    told: dict[str, Any]  # of the source: its file's SHA-256, pixel sizes, how many segments were looked at
    segments: np.ndarray  # [n, window, window] uint16
    columns: dict[str, np.ndarray]  # strength, period, frame, place, turned, validation: [n] or [n, 2]


@dataclass(frozen=True)
class SegmentFile:
    """A file of segments opened for training; its pixels are mapped, not read."""

    path: Path
    segments: np.ndarray  # [n, window, window] uint16
    validation: np.ndarray  # [n] bool
    period: np.ndarray  # [n] float32, pixels, NaN where there are no fringes
    source: np.ndarray  # [n] int32
    sources: list[dict[str, Any]]
    options: dict[str, Any]
    pixel_size_nm: float | None
    sha256: str  # of the pixels and of what is known of each segment

    @property
    def window(self) -> int:
        return int(self.segments.shape[1])


def write_segments(
    path: Path, window: int, sources: Iterable[SourceSegments], count: int, about: dict[str, Any]
) -> None:
    """Write ``count`` segments of ``sources``, read one at a time, to ``path``, atomically. ``about`` are its options.

    Raises RankFailed where the disk is full or fails.
    """
    try:
        with replacing(path) as aside:
            reserve(aside, 2 * count * window**2 + 2**20)
            with hdf5_disk_errors(), h5py.File(aside, "w") as file:
                _write(file, window, sources, count, about)
    except OSError as error:
        raise RankFailed(
            f"{path}: can't be written ({error.strerror or error}); make room and run it again."
        ) from error


def _write(file: h5py.File, window: int, sources: Iterable[SourceSegments], count: int, about: dict[str, Any]) -> None:
    pixels = file.create_dataset("segments", (count, window, window), np.uint16)
    digest, told, columns, start, sizes = hashlib.sha256(), [], [], 0, set()
    for number, source in enumerate(sources):
        stop = start + len(source.segments)
        if stop > start:
            pixels[start:stop] = source.segments
        digest.update(source.segments.tobytes())
        columns.append(source.columns | {"source": np.full(stop - start, number, np.int32)})
        told.append({"name": source.name, "kept": stop - start, **source.told})
        if stop > start:
            size = source.told.get("pixel_size_nm")
            sizes.add(None if size is None else round(size, 6))
        start = stop
    for name in columns[0]:
        file[name] = values = np.concatenate([c[name] for c in columns])
        digest.update(values.tobytes())
    file["sources"] = np.array([json.dumps(t) for t in told], h5py.string_dtype())
    only = next(iter(sizes)) if len(sizes) == 1 else None
    digest.update(json.dumps([window, only]).encode())
    file.attrs.update(
        creator="hrtemvae_hpc",
        format=_FORMAT,
        program=f"hrtemvae {__version__}",
        options=json.dumps(about),
        pixel_size_nm=math.nan if only is None else only,
        sha256=digest.hexdigest(),
    )


def open_segments(path: Path) -> SegmentFile:
    """Open a file of segments. Raises InputError where it is none or is cut off."""
    if not is_file(path):
        raise InputError(f"{path}: there is no such file of segments; make it with `hrtemvae segments`.")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != _FORMAT:
                raise InputError(f"{path}: no file of segments of this program; make it with `hrtemvae segments`.")
            dataset = file["segments"]
            offset = dataset.id.get_offset()
            shape = dataset.shape
            size = float(file.attrs["pixel_size_nm"])
            opened = SegmentFile(
                path=path,
                segments=np.memmap(path, np.uint16, "r", offset, shape)
                if offset is not None
                else np.empty(shape, np.uint16),
                validation=file["validation"][...].astype(bool),
                period=file["period"][...],
                source=file["source"][...],
                sources=[json.loads(t) for t in file["sources"].asstr()[...]],
                options=json.loads(file.attrs["options"]),
                pixel_size_nm=None if math.isnan(size) else size,
                sha256=str(file.attrs["sha256"]),
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        what = " ".join(str(error).split())
        raise InputError(
            f"{path}: not a readable file of segments, it may be cut off ({what}); make it again."
        ) from error
    if len({len(opened.segments), len(opened.validation), len(opened.period), len(opened.source)}) != 1:
        raise InputError(f"{path}: its tables differ in length; make it again with `hrtemvae segments`.")
    return opened
