"""The file of segments: one HDF5 file, with uncompressed pixels in one piece, which the ranks of a node map and share.

/segments [n, window, window] uint16, 0..65535 for 0..1; beside it, for each segment, strength, period (pixels),
frame, place (row, column), turned (degrees), source (row of /sources) and validation (bool). The attributes of the
file hold the pixel size in nm (NaN where unknown or mixed), the options and the program.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hrtemvae_hpc import __version__
from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import hdf5_disk_errors, is_file, replacing, reserve, saving
from hrtemvae_hpc.hdf5 import DAMAGED, check_array, open_hdf5, read_array, sign
from hrtemvae_hpc.identity import digest_of
from hrtemvae_hpc.schemas import Scaling

_FORMAT = 2
_PIXELS = np.dtype("<u2")
_COLUMNS = {
    "strength": np.dtype("<f4"),
    "period": np.dtype("<f4"),
    "frame": np.dtype("<i4"),
    "place": np.dtype("<i4"),
    "turned": np.dtype("<f4"),
    "validation": np.dtype(bool),
    "source": np.dtype("<i4"),
}
_LARGEST_WINDOW = 4096  # pixels
_AT_ONCE = 4096  # segments that are hashed together
LEVELS = 65535  # segments are kept as uint16, 0..65535 for 0..1


@dataclass(frozen=True)
class SourceSegments:
    """Segments of one source (a file of micrographs, or a simulation), and what is known about each."""

    name: str
    facts: dict[str, Any]  # of the source: its file's SHA-256, pixel sizes, how many segments were examined
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
    sha256: str  # of the pixels and of what is known about each segment

    @property
    def window(self) -> int:
        return int(self.segments.shape[1])

    @property
    def scaling(self) -> Scaling:
        """How their pixels were scaled."""
        cut = self.options.get("cut")
        return "local" if isinstance(cut, dict) and cut.get("scaling") == "local" else "window"


def write_segments(
    path: Path, window: int, sources: Iterable[SourceSegments], count: int, about: dict[str, Any]
) -> None:
    """Write ``count`` segments of ``sources``, read one at a time, to ``path``, atomically. ``about`` are its options.

    Raises Blocked if the disk is full, RankFailed if it fails.
    """
    with saving(path, "make room and run it again."), replacing(path) as aside:
        reserve(aside, 2 * count * window**2 + 2**20)
        with hdf5_disk_errors(), h5py.File(aside, "w") as file:
            _write(file, window, sources, count, about)


def _write(file: h5py.File, window: int, sources: Iterable[SourceSegments], count: int, about: dict[str, Any]) -> None:
    sign(file, "segments")
    pixels = file.create_dataset("segments", (count, window, window), _PIXELS)
    facts, columns, start, sizes = [], [], 0, set()
    for number, source in enumerate(sources):
        stop = start + len(source.segments)
        if stop > start:
            pixels[start:stop] = source.segments
        columns.append(source.columns | {"source": np.full(stop - start, number, np.int32)})
        facts.append({"name": source.name, "kept": stop - start, **source.facts})
        if stop > start:
            size = source.facts.get("pixel_size_nm")
            sizes.add(None if size is None else round(size, 6))
        start = stop
    known = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    for name, values in known.items():
        file[name] = values
    file["sources"] = np.array([json.dumps(t) for t in facts], h5py.string_dtype())
    only = next(iter(sizes)) if len(sizes) == 1 else None
    file.attrs.update(
        format=_FORMAT,
        program=f"hrtemvae {__version__}",
        options=json.dumps(about),
        pixel_size_nm=math.nan if only is None else only,
        sha256=_digest(pixels, known, only, [facts, about]),
    )


def _digest(
    pixels: h5py.Dataset | np.ndarray, columns: Mapping[str, np.ndarray], size: float | None, about: list[Any]
) -> str:
    """SHA-256 of all that a file holds: pixels, what is known about each segment, their pixel size and ``about``."""

    def content() -> Iterator[memoryview]:
        for start in range(0, len(pixels), _AT_ONCE):
            yield np.ascontiguousarray(pixels[start : start + _AT_ONCE], _PIXELS).data
        for name, kind in sorted(_COLUMNS.items()):
            yield np.ascontiguousarray(columns[name], kind).data

    return digest_of([pixels.shape, size, *about], content())


def open_segments(path: Path) -> SegmentFile:
    """Open a file of segments. Raises InputError if it isn't one, or isn't as it was written."""
    if not is_file(path):
        raise InputError(f"{path}: there is no such file of segments; make it with `hrtemvae segments`.")
    with open_hdf5(path, "the segments") as file:
        try:
            if file.attrs.get("format") != _FORMAT:
                raise InputError(f"{path}: not a file of segments of this program; make it with `hrtemvae segments`.")
            opened, columns = _read(path, file)
        except (*DAMAGED, RecursionError) as error:
            what = printable(" ".join(str(error).split()))[:200]
            raise InputError(f"{path}: not a readable file of segments ({what}); make it again.") from error
    about = [opened.sources, opened.options]
    if _digest(opened.segments, columns, opened.pixel_size_nm, about) != opened.sha256:
        raise InputError(
            f"{path}: its segments are not those that were written, as its checksum shows; make it again with "
            "`hrtemvae segments`."
        )
    return opened


def _read(path: Path, file: h5py.File) -> tuple[SegmentFile, dict[str, np.ndarray]]:
    """The file, and all that it knows about each segment."""
    dataset = check_array(file, "segments", "u", 3)
    count, window, other = dataset.shape
    if dataset.dtype.itemsize != 2 or window != other or window > _LARGEST_WINDOW:
        raise ValueError(f"segments of type {dataset.dtype} and shape {dataset.shape}")
    columns = {name: read_array(file, name, kind.kind) for name, kind in _COLUMNS.items()}
    if {values.shape[:1] for values in columns.values()} != {(count,)}:
        raise ValueError("its tables differ in length")
    size = float(file.attrs["pixel_size_nm"])
    sources = [json.loads(t) for t in read_array(file, "sources", "O", 1)]
    options = json.loads(file.attrs["options"])
    if not isinstance(options, dict) or not all(isinstance(source, dict) for source in sources):
        raise ValueError("what it says of its sources is damaged")
    offset = dataset.id.get_offset()
    mapped = offset is not None and dataset.dtype == _PIXELS and dataset.id.get_storage_size() == dataset.nbytes
    opened = SegmentFile(
        path=path,
        segments=np.memmap(path, _PIXELS, "r", offset, dataset.shape) if mapped else read_array(file, "segments", "u"),
        validation=columns["validation"],
        period=columns["period"],
        source=columns["source"],
        sources=sources,
        options=options,
        pixel_size_nm=None if math.isnan(size) else size,
        sha256=str(file.attrs["sha256"]),
    )
    return opened, columns
