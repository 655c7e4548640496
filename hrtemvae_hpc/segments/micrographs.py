"""Micrographs of any microscope's format, one image at a time, with their pixel size.

Whatever can be opened as a movie is read as one, a few frames at a time. rosettasciio reads the rest as a whole: other
formats, and files that hold several images or maps of images.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file, is_folder, is_written_as
from hrtemvae_hpc.memory import memory_of_at_most
from hrtemvae_hpc.movie.calibration import convert, is_reciprocal
from hrtemvae_hpc.movie.frames import FrameSource
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.opening import format_of, open_frames

_HDF5 = {".h5", ".hdf5", ".nxs"}
_FRAMES = {".dm3", ".dm4", ".ser", ".emi", ".mrc", ".mrcs", ".tif", ".tiff", ".tvips", ".seq", ".npy", ".emd", ".hspy"}
_PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".bmp"}  # not measurements, and common in folders
_SLAB_BYTES = 64 * 2**20
_ROOM, _ROOM_PER_BYTE = 3 * 2**28, 32  # bytes of memory to read a file, and for each of its bytes
_UNEQUAL = 0.01  # relative difference of the scales of rows and columns that still counts as square pixels


@dataclass(frozen=True)
class Micrograph:
    """One image of a file, and its position there."""

    pixels: np.ndarray  # [rows, columns] float32
    frame: int
    pixel_size_nm: float | None


def find_micrographs(paths: Sequence[Path]) -> list[Path]:
    """The files named by ``paths``, and all of a known format in folders among them, in the order of their names.

    Left out in folders are results and segments of this program. Raises InputError if a path doesn't exist or
    nothing is found.
    """
    candidates: dict[Path, None] = {}
    known = _known_endings()
    for path in paths:
        if is_folder(path):
            inside = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in known and not p.name.startswith("."))
            candidates |= dict.fromkeys(p for p in inside if is_file(p) and not _is_ours(p))
        elif is_file(path):
            candidates[path] = None
        else:
            raise InputError(f"{path}: there is no such micrograph or folder.")
    # TIA's .emi only describes the .ser files beside it, which hold the pixels.
    series = {p.name.rpartition("_")[0] for p in candidates if p.suffix.lower() == ".ser"}
    files = [p for p in candidates if p.suffix.lower() != ".emi" or p.stem not in series]
    if not files:
        raise InputError(f"{', '.join(map(str, paths))}: no micrograph of a known format there.")
    return files


def read_micrographs(path: Path, frames: slice = slice(None)) -> Iterator[Micrograph]:
    """The images of ``path``; of a stack its ``frames``.

    Raises InputError if the file can't be read or holds no real image with square pixels.
    """
    try:
        source = open_frames(path, MovieSection())
    except InputError as refusal:
        yield from _read_others(path, frames, refusal)
        return
    with closing(source):
        yield from _read_movie(path, frames, source)


def _is_ours(path: Path) -> bool:
    return path.suffix.lower() in _HDF5 and (is_written_as(path, "result") or is_written_as(path, "segments"))


def _read_movie(path: Path, frames: slice, source: FrameSource) -> Iterator[Micrograph]:
    about = source.description
    if about.diffraction:
        raise InputError(f"{path}: holds no image (a diffraction pattern).")
    first, stop, step = frames.indices(about.shape[0])
    if first >= stop:
        return
    with Movie(path, MovieSection(frames=(first, stop, step)), source=source) as movie:
        frame_bytes = movie.area.pixels * movie.dtype.itemsize
        most = _ROOM + _ROOM_PER_BYTE * sum(file.stat().st_size for file in movie.files)
        if frame_bytes > most:
            raise InputError(f"{path}: claims {movie.area.height} x {movie.area.width} pixels, more than it can hold.")
        pixel_size = _pixel_size(path, movie)
        for slab in movie.chunk_grid.slabs(frame_bytes, _SLAB_BYTES):
            try:
                pixels = movie.read(slab, movie.area)
            except OSError as error:
                raise InputError(f"{path}: frames {slab.start} to {slab.stop - 1} can't be decoded.") from error
            for image, frame in zip(pixels, movie.frame_indices[slab], strict=True):
                yield Micrograph(image.astype(np.float32), int(frame), pixel_size)


def _pixel_size(path: Path, movie: Movie) -> float | None:
    """In nm; raises InputError if pixels aren't square, or those of a diffraction pattern."""
    try:
        if movie.pixel_size_nm:
            return _square(*movie.pixel_size_nm)
        return _pixel_size_of_tiff(path) if movie.source.description.format == "TIFF" else None
    except ValueError as error:
        raise InputError(f"{path}: holds no image ({error}).") from error


def _pixel_size_of_tiff(path: Path) -> float | None:
    """What rosettasciio, if it is installed, finds in the tags of microscopes' programs. Raises as ``_image_of``."""
    if find_spec("rsciio") is None:
        return None
    try:
        with memory_of_at_most(_ROOM):
            signals = import_module("rsciio.tiff").file_reader(str(path), lazy=True)
    except Exception:  # noqa: BLE001  it raises anything, and the pixels are known without it
        return None
    sizes = {_calibration_of(signal, "") for signal in signals}
    return sizes.pop() if len(sizes) == 1 else None


def _read_others(path: Path, frames: slice, refusal: InputError) -> Iterator[Micrograph]:
    """What rosettasciio reads of a file that is no movie, for the reason of ``refusal``."""
    if find_spec("rsciio") is None:
        why = str(refusal).rstrip(".")
        raise InputError(f"{why}; other formats need rosettasciio: install the extra [training].") from refusal
    count = 0
    reasons = []
    imagej_units = _imagej_units(path)
    for signal in _read_signals(path, refusal):
        try:
            pixels, pixel_size = _image_of(signal, imagej_units)
        except ValueError as error:
            reasons.append(str(error))
            continue
        for frame in range(*frames.indices(len(pixels))):
            yield Micrograph(np.ascontiguousarray(pixels[frame], np.float32), count + frame, pixel_size)
        count += len(pixels)
    if count == 0:
        raise InputError(f"{path}: holds no image ({'; '.join(reasons) or 'it is empty'}).")


def _plugins() -> list[dict[str, Any]]:
    from rsciio import IO_PLUGINS

    return list(IO_PLUGINS)


def _known_endings() -> set[str]:
    plugins = _plugins() if find_spec("rsciio") else []
    return {f".{e.lower()}" for p in plugins for e in p["file_extensions"]} - _PICTURES | _HDF5 | _FRAMES


def _read_signals(path: Path, refusal: InputError) -> list[dict[str, Any]]:
    known = format_of(path) is not None or path.suffix.lower() in _HDF5
    ending = path.suffix.lstrip(".").lower()
    readers = [p for p in _plugins() if ending in [e.lower() for e in p["file_extensions"]]]
    if not readers:
        raise refusal if known else InputError(f"{path}: no known format ends in .{ending}.")
    reasons = []
    for reader in readers:  # some endings are shared by formats
        try:
            with memory_of_at_most(_ROOM + _ROOM_PER_BYTE * path.stat().st_size):
                return list(import_module(reader["api"]).file_reader(str(path)))
        except MemoryError:
            reasons.append(f"{reader['name']}: it claims more than a file of its size can hold")
        except Exception as error:  # noqa: BLE001  readers raise anything on a broken file
            reasons.append(f"{reader['name']}: {' '.join(str(error).split())[:100] or type(error).__name__}")
    raise refusal if known else InputError(f"{path}: can't be read ({'; '.join(reasons)}).")


def _imagej_units(path: Path) -> str:
    """The units of a TIFF file of ImageJ, of which the reader knows only "micron"; "" of another file."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return ""
    try:
        with tifffile.TiffFile(path) as file:
            return str((file.imagej_metadata or {}).get("unit", ""))
    except (OSError, ValueError):
        return ""


def _image_of(signal: dict[str, Any], units: str) -> tuple[np.ndarray, float | None]:
    """Frames [n, rows, columns] of a signal and its pixel size in nm, in ``units`` where it names none.

    Raises ValueError if it isn't an image.
    """
    data = np.asarray(signal["data"])
    if data.dtype.kind not in "iufb":
        raise ValueError("complex" if data.dtype.kind == "c" else f"pixels of type {data.dtype}")
    if data.ndim < 2:
        raise ValueError(f"{data.ndim} axes")
    return data.reshape(-1, *data.shape[-2:]), _calibration_of(signal, units)


def _calibration_of(signal: dict[str, Any], units: str) -> float | None:
    """The pixel size as ``_image_of`` finds and refuses it."""
    axes = sorted(signal["axes"], key=lambda axis: int(axis.get("index_in_array") or 0))[-2:]
    if any(axis.get("navigate") for axis in axes):
        raise ValueError("a map of spectra")
    if any(is_reciprocal(str(axis.get("units"))) for axis in axes):
        raise ValueError("a diffraction pattern")
    sizes = [convert(float(a.get("scale", 0)), str(a.get("units") or units), "nm") for a in axes]
    known = [size for size in sizes if size is not None]
    return _square(*known) if len(known) == 2 else None


def _square(rows: float, columns: float) -> float:
    if abs(rows - columns) > _UNEQUAL * columns:
        raise ValueError(f"pixels of {rows:.4g} x {columns:.4g} nm are not square")
    return columns
