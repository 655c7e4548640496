"""TIFF and BigTIFF files: stacks of ImageJ, OME-TIFF, and pages of any other program.

tifffile parses them: https://github.com/cgohlke/tifffile. ImageJ writes stacks of more than 4 GB with one page, after
whose pixels those of the other frames follow. OME: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/.
"""

import json
import re
from dataclasses import dataclass
from itertools import count
from math import prod
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import numpy as np
import tifffile

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.calibration import convert
from hrtemvae_hpc.movie.formats.library import as_json, guarded
from hrtemvae_hpc.movie.formats.stack import Format, Stack, even_offsets
from hrtemvae_hpc.movie.formats.tiff_decoder import TiffDecoder
from hrtemvae_hpc.movie.frames import Description
from hrtemvae_hpc.movie.raw_frames import Placement

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0")
_MOST_PAGES = 2**20
_MOST_GROWTH = 2**16  # pixels' bytes per byte that is stored
_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
_FAR = 2**62  # an offset that is in no file
_LARGEST_TILE = 2**24  # pixels, of tiles larger than their image
_REMEDY = "save the movie alone, as one channel and one level"


@dataclass
class _Pages:
    """The pages of a file, all of one kind."""

    first: Any  # tifffile.TiffPage
    offsets: list[tuple[int, ...]]  # of each page's strips or tiles
    sizes: list[tuple[int, ...]]  # and their bytes


def _read(path: Path) -> Stack:
    size = path.stat().st_size
    with guarded(path), tifffile.TiffFile(path, _multifile=False) as file:
        pages = _pages(path, file)
        page = pages.first
        imagej: dict[str, Any] = file.imagej_metadata or {} if file.is_imagej else {}
        ome = _ome_pixels(file.ome_metadata) if file.is_ome else {}
        _check_page(path, page, size)
        frames = _frames(path, file, pages, imagej, ome)
        dtype = np.dtype("V1") if page.dtype is None else page.dtype.newbyteorder(file.byteorder)
        shape = frames, int(page.imagelength), int(page.imagewidth)
        description = Description(
            "TIFF" + (" of ImageJ" if imagej else ", OME" if ome else ""),
            shape,
            dtype.newbyteorder("="),
            *_calibration(page, imagej, ome),
            metadata=_metadata(page, imagej),
            notes=_notes(imagej, ome),
        )
        placement = _placement(path, shape, dtype, pages, size)
        if page.is_final or dtype.kind not in "iuf":
            return Stack(description, placement)
        return Stack(description, placement, decoder=TiffDecoder([path], page, pages.offsets, pages.sizes))


def _placement(path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], pages: _Pages, size: int) -> Placement:
    begins = [min(places[0], _FAR) if places else _FAR for places in pages.offsets]
    if len(begins) < shape[0]:
        return Placement([path], [size], even_offsets(path, shape, dtype, begins[0], size), dtype)
    return Placement([path], [size], np.array(begins, np.int64), dtype)


def _pages(path: Path, file: Any) -> _Pages:
    """All pages; raises InputError if they are of different kinds or follow one another in a circle."""
    first, seen = file.pages.first, set()
    offsets, sizes = [], []
    for i in count():
        try:
            page = file.pages[i] if i else first
        except IndexError:
            break
        if page.offset in seen or i == _MOST_PAGES:
            raise InputError(f"{path}: its pages follow one another without end; copy it again.")
        seen.add(page.offset)
        last = page
        if page.hash != first.hash or page.jpegtables != first.jpegtables:
            raise InputError(
                f"{path}: page {i} holds {_look(page)}, the first {_look(first)}; save the frames alone in a file."
            )
        offsets.append(tuple(map(int, page.dataoffsets)))
        sizes.append(tuple(map(int, page.databytecounts)))
    if _has_next(file, last):
        raise InputError(f"{path}: is cut off after its first {len(offsets)} pages; copy it again.")
    if first.is_final and not all(map(_is_in_one_piece, offsets, sizes)):
        raise InputError(f"{path}: the strips of its pages are not in order; save it again.")
    return _Pages(first, offsets, sizes)


def _is_in_one_piece(offsets: tuple[int, ...], sizes: tuple[int, ...]) -> bool:
    return len(offsets) == 1 or all(a + n == b for a, n, b in zip(offsets, sizes, offsets[1:], strict=False))


def _has_next(file: Any, page: Any) -> bool:
    """Whether a page says that another follows."""
    tiff, handle = file.tiff, file.filehandle
    handle.seek(page.offset)
    tags = int.from_bytes(handle.read(tiff.tagnosize), _ORDERS[file.byteorder])
    handle.seek(page.offset + tiff.tagnosize + tags * tiff.tagsize)
    return any(handle.read(tiff.offsetsize))


def _look(page: Any) -> str:
    return f"{page.imagelength} x {page.imagewidth} pixels of {page.dtype}"


def _check_page(path: Path, page: Any, size: int) -> None:
    """Raise InputError unless a page holds one grey image that can be in ``size`` bytes."""
    if page.samplesperpixel != 1 or page.imagedepth != 1:
        raise InputError(f"{path}: holds colours or several channels, not one grey image in a page; {_REMEDY}.")
    rows, columns = page.imagelength, page.imagewidth
    if prod(page.chunks) > max(_LARGEST_TILE, 4 * rows * columns):
        raise InputError(f"{path}: its first page is damaged (strips or tiles of {page.chunks}); copy it again.")
    if not page.dataoffsets or rows < 1 or columns < 1 or rows * columns > _MOST_GROWTH * size:
        raise InputError(f"{path}: its first page is damaged ({rows} x {columns} pixels); copy it again.")


def _frames(path: Path, file: Any, pages: _Pages, imagej: dict[str, Any], ome: dict[str, str]) -> int:
    """How many frames the file holds, more than pages where one page stands for all."""
    found = len(pages.offsets)
    if imagej:
        sides = {name: max(1, int(imagej.get(name, 1))) for name in ("channels", "slices", "frames")}
    elif ome:
        sides = {name: max(1, int(ome.get(f"Size{name}", 1))) for name in "CZT"}
    else:
        sides = {}
        if file.shaped_metadata:  # tifffile writes one page for contiguous frames
            shape = tuple(int(n) for n in file.shaped_metadata[0].get("shape", ()))
            if len([n for n in shape[:-2] if n > 1]) > 1:
                raise InputError(f"{path}: holds an array of shape {shape}, not frames, rows and columns; {_REMEDY}.")
            sides["frames"] = max(1, prod(shape[:-2]))
    several = {name: n for name, n in sides.items() if n > 1}
    if len(several) > 1 or several.keys() & {"C", "channels"}:
        raise InputError(f"{path}: holds several channels or levels ({several}); {_REMEDY}.")
    claimed = max(sides.values(), default=found)
    if claimed <= found:
        if ome and [page and page.index for page in file.series[0].pages] != list(range(found)):
            raise InputError(f"{path}: its pages are not in the order of its frames; save it again.")
        return found
    if found == 1 and pages.first.is_final and not ome:
        return claimed
    raise InputError(
        f"{path}: holds {found} of {claimed} frames, is cut off or goes on in other files; copy it again, or save it "
        "in one file."
    )


def _ome_pixels(text: str | None) -> dict[str, str]:
    """The attributes of the first Pixels in OME-XML."""
    root = ET.fromstring(text or "<OME/>")
    found = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    return {} if found is None else dict(found.attrib)


def _calibration(
    page: Any, imagej: dict[str, Any], ome: dict[str, str]
) -> tuple[tuple[float, float] | None, float | None]:
    """Pixel size of rows and columns in nm, and frame time in s; of resolutions only those that ImageJ gives a unit.

    The inches and centimetres of other files are those of paper.
    """
    if ome:
        sizes = [
            convert(_number(ome.get(f"PhysicalSize{axis}")), ome.get(f"PhysicalSize{axis}Unit", "µm"), "nm")
            for axis in "YX"
        ]
        time = convert(_number(ome.get("TimeIncrement")), ome.get("TimeIncrementUnit", "s"), "s")
    elif imagej:
        unit = str(imagej.get("unit", "")).replace("\\u00B5", "µ").replace("\\u00C5", "Å")
        sizes = [convert(_per(page.tags.get(tag)), unit, "nm") for tag in ("YResolution", "XResolution")]
        time = convert(_number(imagej.get("finterval")), str(imagej.get("tunit", "s")), "s")
    else:
        return None, None
    y, x = sizes
    return (y, x) if y and x else None, time


def _per(tag: Any) -> float:
    """The length that a resolution tag, a fraction, gives a pixel; NaN if it is none."""
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or 0 in tag.value:
        return np.nan
    return float(tag.value[1]) / float(tag.value[0])


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return np.nan


def _metadata(page: Any, imagej: dict[str, Any]) -> dict[str, Any]:
    """The tags of the first page that are no places of pixels, and what ImageJ adds."""
    tags = {tag.name: as_json(tag.value) for tag in page.tags if not re.search("Offsets|ByteCounts", tag.name)}
    kept = {name: value for name, value in tags.items() if value is not None}
    extra = as_json({k: v for k, v in imagej.items() if k not in ("LUTs", "Ranges")})
    return json.loads(json.dumps(kept | ({"ImageJ": extra} if extra else {}), default=str))  # type: ignore[no-any-return]


def _notes(imagej: dict[str, Any], ome: dict[str, str]) -> tuple[str, ...]:
    slices = max(int(imagej.get("slices", 1)), int(ome.get("SizeZ", 1)))
    return ("its levels (z) are taken as frames",) if slices > 1 else ()


TIFF = Format("TIFF", lambda head, path: head.startswith(_MAGIC), _read)
