"""Sequences of NorPix's StreamPix, .seq, as cameras of Direct Electron and others write them.

Not tried with a real file. No library gives offsets; the header is described in the manual of StreamPix, and read by
https://github.com/soft-matter/pims (norpix_reader.py) and https://github.com/LiberTEM/LiberTEM (seq.py). After each
frame stands its time. How many frames there are follows from the size of the file.
"""

from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import read_head
from hrtemvae_hpc.movie.formats.library import as_json
from hrtemvae_hpc.movie.formats.pieces import increasing, read_pieces
from hrtemvae_hpc.movie.formats.stack import Format, Stack, one_after_another
from hrtemvae_hpc.movie.frames import Description

_MAGIC = b"\xed\xfe\0\0" + "Norpix seq".encode("utf-16-le")
_HEADER = np.dtype(
    {
        "names": ["version", "columns", "rows", "bits per pixel", "significant bits", "bytes of image", "format",
                  "allocated frames", "bytes from image to image", "frames per second", "compression"],
        "formats": ["<i4", "<u4", "<u4", "<u4", "<u4", "<u4", "<u4", "<u4", "<u4", "<f8", "<u4"],
        "offsets": [28, 548, 552, 556, 560, 564, 568, 572, 580, 584, 620],
        "itemsize": 1024,
    }
)  # fmt: skip
_GREY = 100
_TYPES: dict[int, np.dtype[Any]] = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<u4")}
_TIME = np.dtype([("seconds", "<i4"), ("milliseconds", "<u2"), ("microseconds", "<u2")])


def _read(path: Path) -> Stack:
    head = read_head(path, _HEADER.itemsize)
    if len(head) < _HEADER.itemsize:
        raise InputError(f"{path}: is cut off (its header is not complete); copy it again.")
    header = np.frombuffer(head, _HEADER, 1)[0]
    dtype = _TYPES.get(int(header["bits per pixel"]))
    rows, columns, step = (int(header[name]) for name in ("rows", "columns", "bytes from image to image"))
    if header["compression"] or header["format"] != _GREY or dtype is None:
        raise InputError(f"{path}: holds compressed or coloured frames; export it from StreamPix without compression.")
    offset, size = 8192 if header["version"] >= 5 else 1024, path.stat().st_size
    image = rows * columns * dtype.itemsize
    if step < image:
        raise InputError(f"{path}: its header is damaged ({step} bytes for {rows} x {columns} pixels); copy it again.")
    frames = max(1, (size - offset) // step if step else 0)
    placement = one_after_another(path, (frames, rows, columns), dtype, offset, step - image)
    claimed = int(header["allocated frames"])
    description = Description(
        "SEQ",
        (frames, rows, columns),
        dtype.newbyteorder("="),
        times_s=_times(path, placement.offsets + int(header["bytes of image"]), int(header["version"])),
        metadata={name: as_json(header[name]) for name in _HEADER.names or ()},
        notes=(f"its header counts {claimed} frames, but {frames} are there",) if claimed > frames else (),
    )
    return Stack(description, placement)


def _times(path: Path, offsets: np.ndarray, version: int) -> np.ndarray | None:
    """The times of frames [frames] from the first, to milliseconds before version 5; None if they don't increase."""
    stamps = read_pieces(path, offsets, _TIME)
    times = stamps["seconds"] + stamps["milliseconds"] / 1e3
    return increasing(times + stamps["microseconds"] / 1e6 if version >= 5 else times)


SEQ = Format("SEQ", lambda head, path: head.startswith(_MAGIC), _read)
