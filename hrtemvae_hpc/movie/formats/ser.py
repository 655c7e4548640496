"""Series of images of FEI's TIA, .ser, and .emi files that describe them.

ncempy parses the headers of both: https://openncem.readthedocs.io/en/latest/ncempy.io.html#module-ncempy.io.ser.
Each image begins with a header of its own, described at http://www.ntu.edu.sg/home/cbb/info/TIAformat/index.html.
The last row of an image comes first.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ncempy.io import ser

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file, read_head
from hrtemvae_hpc.movie.calibration import convert
from hrtemvae_hpc.movie.formats.library import as_json, guarded
from hrtemvae_hpc.movie.formats.pieces import increasing, read_pieces
from hrtemvae_hpc.movie.formats.stack import Format, Stack
from hrtemvae_hpc.movie.frames import Description
from hrtemvae_hpc.movie.raw_frames import Placement

_MAGIC = b"II\x97\x01"
_IMAGES = 0x4122
_WIDE = 0x220  # version of series from which on offsets have 8 bytes
_CALIBRATION = [("offset", "<f8"), ("delta", "<f8"), ("element", "<i4")]
_IMAGE = np.dtype([("x", _CALIBRATION), ("y", _CALIBRATION), ("type", "<i2"), ("columns", "<i4"), ("rows", "<i4")])
_TAG = np.dtype([("type", "<i4"), ("time", "<i4")])
_TYPES = {1: "<u1", 2: "<u2", 3: "<u4", 4: "<i1", 5: "<i2", 6: "<i4", 7: "<f4", 8: "<f8", 9: "<c8", 10: "<c16"}
_LARGEST_PIXEL = 1e6  # nm: more is the step of a diffraction pattern, in 1/m
_MOST_EMI = 2**27  # bytes


class _Header(ser.fileSER):  # type: ignore[misc]
    """ncempy's parser, which doesn't look for the .emi file, whose faults would be those of the images."""

    def _read_emi(self) -> None:
        self._emi = None


def _read(path: Path) -> Stack:
    head = _head(path)
    data = np.array(head.pop("DataOffsetArray"), np.int64)
    del head["TagOffsetArray"]  # ncempy looks for it behind the offsets of valid images, not of all
    if len(data) == 0:
        raise InputError(f"{path}: holds no image; nothing can be analysed.")
    size = path.stat().st_size
    complete = _complete(path, data, size)
    images = read_pieces(path, data[:complete], _IMAGE)
    first = images[0]
    columns, rows = int(first["columns"]), int(first["rows"])
    dtype = np.dtype(_TYPES.get(int(first["type"]), "V1"))
    if min(rows, columns) < 0:
        raise InputError(f"{path}: its first image is damaged ({rows} x {columns} pixels); copy it again.")
    for name in ("type", "columns", "rows"):
        others = np.flatnonzero(images[name] != first[name])
        if others.size:
            raise InputError(
                f"{path}: image {others[0]} differs from the first in its shape or type, or is damaged; leave it out "
                "by saving the others in a series of their own."
            )
    notes: tuple[str, ...] = ()
    times = None
    tags = _tags(path, head, len(data))
    if (tags["type"] == head["TagTypeID"]).all():
        times = increasing(tags["time"].astype(float))
        if times is None and len(data) > 1:
            notes = ("its times are in whole seconds, which is too coarse for its frames, and not used",)
    y, x = (convert(float(first[axis]["delta"]), "m", "nm") for axis in "yx")
    known = bool(y and x and max(y, x) <= _LARGEST_PIXEL)
    description = Description(
        "SER",
        (len(data), rows, columns),
        dtype.newbyteorder("="),
        (y, x) if known and y and x else None,
        times_s=times,
        metadata={"series": as_json(head), "emi": _emi(path)},
        notes=notes,
        diffraction=bool(y and x and not known),
    )
    return Stack(description, Placement([path], [size], data + _IMAGE.itemsize, dtype, bottom_up=True))


def _head(path: Path) -> dict[str, Any]:
    """The header of the series; raises InputError if it is damaged or not of images."""
    start = read_head(path, 34)
    if len(start) == 34:
        count, valid = np.frombuffer(start, "<i4", 2, 14).tolist()
        if not 0 <= valid <= path.stat().st_size // 8:
            raise InputError(f"{path}: its header is damaged (it counts {valid} of {count} images); copy it again.")
    with guarded(path), _Header(path) as file:
        head: dict[str, Any] = file.head
    if head["DataTypeID"] != _IMAGES:
        raise InputError(f"{path}: holds spectra, not images; name another file.")
    if sum(int(dimension["DimensionSize"]) > 1 for dimension in head["Dimensions"]) > 1:
        raise InputError(f"{path}: holds a map of images over a sample, not a movie; name another file.")
    return head


def _tags(path: Path, head: dict[str, Any], images: int) -> np.ndarray:
    """The tag of each image [images], zeros where there is none."""
    place = np.dtype("<i8" if head["SeriesVersion"] == _WIDE else "<i4")
    begin = int(head["OffsetArrayOffset"]) + int(head["TotalNumberElements"]) * place.itemsize
    places = read_pieces(path, begin + np.arange(images, dtype=np.int64) * place.itemsize, place)
    return read_pieces(path, places, _TAG)


def _complete(path: Path, data: np.ndarray, size: int) -> int:
    """How many images begin in the file; raises InputError if their offsets can't be right."""
    outside = np.flatnonzero((data < 0) | (data > size - _IMAGE.itemsize))
    begun = int(outside[0]) if outside.size else len(data)
    if begun == 0 or (data < 0).any() or (data > 2**62).any():
        raise InputError(f"{path}: is cut off or damaged: not all its images are where it says; copy it again.")
    return begun


def _emi(path: Path) -> object:
    """The metadata in the .emi file beside a series; None if there is none that can be read."""
    emi = path.with_name(path.stem.rpartition("_")[0] + ".emi")
    try:
        if not is_file(emi) or emi.stat().st_size > _MOST_EMI:
            return None
        with guarded(emi):
            return as_json(ser.read_emi(emi))
    except (InputError, OSError):
        return None


def _series_beside(emi: Path) -> Iterator[Path]:
    for path in sorted(emi.parent.glob("*.ser")):
        stem, _, number = path.stem.rpartition("_")
        if stem == emi.stem and number.isdecimal():
            yield path


def _read_beside(emi: Path) -> Stack:
    found = list(_series_beside(emi))
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5])
        what = f"describes {len(found)} series ({names})" if found else f"describes {emi.stem}_1.ser, which is missing"
        raise InputError(f"{emi}: {what}; name the .ser file that holds the movie.")
    return _read(found[0])


SER = Format("SER", lambda head, path: head.startswith(_MAGIC), _read)
EMI = Format("EMI", lambda head, path: path.suffix.lower() == ".emi" and not head.startswith(_MAGIC), _read_beside)
