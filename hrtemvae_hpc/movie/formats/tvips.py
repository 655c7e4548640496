"""TVIPS files of EMMENU and TemCam cameras: NAME_000.tvips, and NAME_001.tvips.. in which it goes on.

The first file begins with a header; before each frame stands one with its time. No library gives offsets; described at
https://hyperspy.org/rosettasciio/supported_formats/tvips.html and
https://libertem.github.io/LiberTEM/reference/dataset.html. How many frames there are follows from the sizes of files.
The pixel size is a whole number of nanometres, which says nothing about an image at atomic resolution.
"""

import re
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file, read_head
from hrtemvae_hpc.movie.formats.library import as_json
from hrtemvae_hpc.movie.formats.pieces import increasing, read_pieces
from hrtemvae_hpc.movie.formats.stack import Format, Stack, even_offsets
from hrtemvae_hpc.movie.frames import Description
from hrtemvae_hpc.movie.raw_frames import Placement

_SERIES = np.dtype(
    [(name, "<u4") for name in ("bytes of header", "version", "columns", "rows", "bits per pixel", "left", "top",
                                "binning x", "binning y", "pixel size nm", "high tension kV", "magnification",
                                "bytes of frame header")]
)  # fmt: skip
_HEADER = 256  # bytes
_TIME = np.dtype([("counter", "<u4"), ("seconds", "<u4"), ("milliseconds", "<u4")])
_TYPES: dict[int, np.dtype[Any]] = {8: np.dtype("<u1"), 16: np.dtype("<u2")}
_PART = re.compile("(.*)_([0-9]{3})")


def _recognised(head: bytes, path: Path) -> bool:
    return path.suffix.lower() == ".tvips"


def _read(path: Path) -> Stack:
    files = _parts(path)
    head = read_head(path, _HEADER)
    if len(head) < _HEADER:
        raise InputError(f"{path}: is cut off (its header is not complete); copy it again.")
    series = np.frombuffer(head, _SERIES, 1)[0]
    columns, rows, version = int(series["columns"]), int(series["rows"]), int(series["version"])
    dtype = _TYPES.get(int(series["bits per pixel"]))
    before = _TIME.itemsize if version == 1 else int(series["bytes of frame header"])
    if series["bytes of header"] != _HEADER or version not in (1, 2) or dtype is None or before < _TIME.itemsize:
        raise InputError(f"{path}: is no TVIPS file of a known version, or damaged; copy it again.")
    frame = rows * columns * dtype.itemsize + before
    begins = [_HEADER] + [0] * (len(files) - 1)
    sizes = [file.stat().st_size for file in files]
    counts = [(size - begin) // frame for size, begin in zip(sizes, begins, strict=True)]
    rests = [(size - begin) % frame for size, begin in zip(sizes, begins, strict=True)]
    if cut := next((file for file, rest in zip(files[:-1], rests, strict=False) if rest), None):
        raise InputError(f"{cut}: is cut off in the middle of a frame; copy it again.")
    offsets, clocks = [], []
    for i, (file, begin, size, frames) in enumerate(zip(files, begins, sizes, counts, strict=True)):
        headers = even_offsets(file, (frames, rows, columns), dtype, begin, size - before, before)
        times = read_pieces(file, headers, _TIME)
        clocks.append(times["seconds"] + times["milliseconds"] / 1000)
        offsets.append(headers + before + sum(sizes[:i]))
    notes = [] if not rests[-1] else ["its last frame is not complete, and left out"]
    if series["pixel size nm"]:
        notes.append(f"its pixel size is stated as {series['pixel size nm']} whole nanometres, and not used")
    description = Description(
        "TVIPS",
        (sum(counts), rows, columns),
        dtype.newbyteorder("="),
        times_s=increasing(np.concatenate(clocks)),
        metadata={name: as_json(series[name]) for name in _SERIES.names or ()},
        notes=tuple(notes),
    )
    return Stack(description, Placement(files, sizes, np.concatenate(offsets), dtype))


def _parts(path: Path) -> list[Path]:
    """All files of the movie that begins with ``path``; raises InputError if it is not the first, or one is missing."""
    match = _PART.fullmatch(path.stem)
    if match is None:
        return [path]
    name, number = match[1], int(match[2])
    if number != 0:
        raise InputError(f"{path}: is a later part of a movie; name the first one, {name}_000{path.suffix}.")
    parts = (path.with_name(f"{name}_{i:03}{path.suffix}") for i in count())
    files = []
    for part in parts:
        if not is_file(part):
            break
        files.append(part)
    later = sorted(
        other.name
        for other in path.parent.glob(f"*{path.suffix}")
        if (found := _PART.fullmatch(other.stem)) and found[1] == name and int(found[2]) >= len(files)
    )
    if later:
        raise InputError(f"{part}: is missing, but {later[0]} is there; put it back.")
    return files


TVIPS = Format("TVIPS", _recognised, _read)
