"""Gatan's DM3 and DM4 files: an image, or a stack whose third dimension is time.

Tags are parsed by ncempy; https://www.er-c.org/cbb/info/dmformat describes them. A file holds a list of images, of
which some are thumbnails: ``.Thumbnails.*.ImageIndex`` counts them from 0, names of tags count images from 1. The first
dimension is the columns. Calibrations are ``ImageData.Calibrations.Dimension.*``: of columns, rows, and of frames where
their unit is one of time.

``DataBar.Acquisition Time (OS)`` is when an image was taken, in units of 100 ns since 1601 (a FILETIME of Windows):
https://github.com/LiberTEM/LiberTEM-holo reads the times of a series from it. The exposure says nothing about
the time from frame to frame, so it is left in the metadata.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import read_head
from hrtemvae_hpc.movie.calibration import convert, is_reciprocal
from hrtemvae_hpc.movie.formats import dm_tags
from hrtemvae_hpc.movie.formats.director import Recording, recording
from hrtemvae_hpc.movie.formats.stack import Format, Likeness, Stack, one_after_another
from hrtemvae_hpc.movie.frames import Description

_TYPES = {1: "<i2", 2: "<f4", 6: "u1", 7: "<i4", 9: "i1", 10: "<u2", 11: "<u4", 12: "<f8"}
_OTHERS = {3: "complex numbers", 13: "complex numbers", 14: "black and white", 23: "colours"}
_DATA = re.compile(r"(\.ImageList\.([0-9]+)\.)ImageData\.Data\.arrayOffset")
_CLOCK = "DataBar.Acquisition Time (OS)"
_CLOCK_NAME = b"\x15\0\x15Acquisition Time (OS)"
_CLOCK_MOVES = 256  # bytes from file to file, because of texts before it
_TICK = 1e-7  # seconds
_AROUND = 4096  # bytes before and after the pixels in which tags describe them
_CLOCK_WITHIN = 2**18  # bytes after the pixels


@dataclass(frozen=True)
class _Image:
    tags: dict[str, Any]  # of the whole file
    prefix: str  # of this image's tags
    sides: tuple[int, ...]  # the first is the columns

    def number(self, name: str) -> float | None:
        value = self.tags.get(self.prefix + name)
        return float(value) if isinstance(value, int | float | np.number) else None

    def whole(self, name: str) -> int:
        """A tag that counts something, 0 if it is missing or counts nothing."""
        value = self.tags.get(self.prefix + name, 0)
        return max(0, int(value)) if isinstance(value, int | np.integer) else 0

    def scale(self, dimension: int, to: str) -> float | None:
        """The step along a dimension, the first is 1, as a number of ``to``; None if it isn't calibrated so."""
        step = self.number(f"ImageData.Calibrations.Dimension.{dimension}.Scale")
        return None if step is None else convert(step, self.units(dimension), to)

    def units(self, dimension: int) -> str:
        """The units of a dimension, "" if there are none."""
        units = self.tags.get(f"{self.prefix}ImageData.Calibrations.Dimension.{dimension}.Units")
        return units if isinstance(units, str) else ""

    @property
    def data_type(self) -> int:
        return self.whole("ImageData.DataType")

    @property
    def clock_s(self) -> float | None:
        ticks = self.number("ImageTags." + _CLOCK)
        return ticks * _TICK if ticks and np.isfinite(ticks) and ticks > 0 else None


def _read(path: Path) -> Stack:
    tags = dm_tags.read_tags(path)
    image = _movie_of(path, list(_images(tags)))
    dtype = np.dtype(_TYPES[image.data_type])
    columns, rows, frames = (*image.sides, 1)[:3]
    offset, size = image.whole("ImageData.Data.arrayOffset"), image.whole("ImageData.Data.arraySize")
    if prod(image.sides) * dtype.itemsize != size:
        raise InputError(
            f"{path}: its tags contradict each other ({columns} x {rows} x {frames} pixels of {dtype} are not {size} "
            "bytes); copy it again."
        )
    y, x = image.scale(2, "nm"), image.scale(1, "nm")
    recorded = recording(path, image.tags, image.prefix, image.sides, dtype)
    description = Description(
        f"DM{dm_tags.version(read_head(path, 18))}",
        (frames, rows, columns),
        dtype.newbyteorder("="),
        (y, x) if y and x else None,
        image.scale(3, "s"),
        metadata=dm_tags.as_json(tags),
        notes=recorded.notes,
        diffraction=any(is_reciprocal(image.units(dimension)) for dimension in (1, 2)),
    )
    if isinstance(recorded, Recording):
        return recorded.stack(description)
    placement = one_after_another(path, (frames, rows, columns), dtype, offset)
    return Stack(description, placement, image.clock_s, _likeness(path, offset, size, image.clock_s))


def _images(tags: dict[str, Any]) -> Iterator[_Image]:
    """All images but thumbnails."""
    thumbnails = {
        int(value) + 1
        for name, value in tags.items()
        if name.startswith(".Thumbnails.") and name.endswith(".ImageIndex") and isinstance(value, np.integer)
    }
    for name in tags:
        if (found := _DATA.fullmatch(name)) and int(found[2]) not in thumbnails:
            image = _Image(tags, found[1], ())
            sides = [image.whole(f"ImageData.Dimensions.{i}") for i in range(1, 6)]
            yield _Image(tags, found[1], tuple(sides[: (*sides, 0).index(0)]))


def _movie_of(path: Path, images: list[_Image]) -> _Image:
    """The only stack, or else the only image; raises InputError if there is none, or are several."""
    usable = [image for image in images if len(image.sides) in (2, 3) and image.data_type in _TYPES]
    usable = [image for image in usable if not _is_spectra(image)]
    stacks = [image for image in usable if len(image.sides) == 3]
    for candidates in (stacks, usable):
        if len(candidates) == 1:
            return candidates[0]
    if usable:
        names = ", ".join(printable(str(image.tags.get(f"{image.prefix}Name", "?")))[:60] for image in usable[:5])
        raise InputError(f"{path}: holds several images ({names}); save the one that is the movie in a file.")
    held = [f"{len(image.sides)} dimensions of {_type_name(image)}" for image in images[:5]]
    raise InputError(
        f"{path}: holds no image or stack of integer or real pixels"
        + (f", but {' and '.join(held)}; save the movie in a file of its own." if held else "; name another file.")
    )


def _is_spectra(image: _Image) -> bool:
    kind = image.tags.get(f"{image.prefix}ImageTags.Meta Data.Format")
    units = (image.tags.get(f"{image.prefix}ImageData.Calibrations.Dimension.{i}.Units") for i in (1, 2, 3))
    return (isinstance(kind, str) and kind.startswith("Spectrum")) or any(unit in ("eV", "keV") for unit in units)


def _type_name(image: _Image) -> str:
    if _is_spectra(image):
        return "spectra"
    name = _TYPES.get(image.data_type) or _OTHERS.get(image.data_type, f"type {image.data_type}")
    return name.lstrip("<")


def _likeness(path: Path, offset: int, size: int, clock_s: float | None) -> Likeness | None:
    """What another file must share with this one for its pixels to lie at the same place, in the same way.

    That are the tags around the pixels: calibrations and the number of pixels before them; type, dimensions and depth
    after them. Pixels of thumbnails, the limits of contrast, names and times differ from frame to frame.
    """
    end = offset + size
    with path.open("rb") as file:
        file.seek(max(0, offset - _AROUND))
        before = file.read(offset - file.tell())
        file.seek(end)
        after = file.read(_CLOCK_WITHIN)
    start = before.rfind(b"\x14\x00\x09ImageData")
    last = after.find(b"\x15\x00\x0aPixelDepth", 0, _AROUND)
    around = before[start:] + after[: max(0, last)]
    if start < 0 or last < 0 or b"DataType" not in around or b"Dimensions" not in around:
        return None
    depth = after.find(b"%%%%", last) + 4  # in DM4 two numbers of 8 bytes follow, in DM3 of 4, and 4 of the value
    last = depth + (20 if depth - last > 20 else 12)
    pieces = (offset - len(before) + start, before[start:]), (end, after[:last])
    if clock_s is None:
        return Likeness(pieces)
    if _clock_in(after) != clock_s:
        return None
    near = end + max(0, after.index(_CLOCK_NAME) - _CLOCK_MOVES)
    return Likeness(pieces, (slice(near, near + 3 * _CLOCK_MOVES), slice(end, end + len(after))), _clock_in)


def _clock_in(tags: bytes) -> float | None:
    """``_Image.clock_s`` from the bytes of its tags: a name, %%%%, how many numbers follow, their type, the value.

    DM4 has numbers of 8 bytes there and DM3 of 4, and DM4 the length of the tag before %%%%.
    """
    at = tags.find(_CLOCK_NAME)
    rest = tags[at + len(_CLOCK_NAME) :][:40]
    begin = rest.find(b"%%%%")
    if at < 0 or begin not in (0, 8):
        return None
    length, value = ("Q", 20) if begin else ("I", 12)
    try:
        kind = struct.unpack_from(f">4x{length}{length}", rest, begin)[1]
        ticks: float = struct.unpack_from({7: "<d", 11: "<q", 12: "<Q"}[kind], rest, begin + value)[0]
    except (struct.error, KeyError):
        return None
    return ticks * _TICK if np.isfinite(ticks) and ticks > 0 else None


DM = Format("DM3 or DM4", lambda head, path: dm_tags.version(head) is not None, _read)
