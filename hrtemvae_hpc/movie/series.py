"""Movies that HDF5 masters hold in parts, data_000001, data_000002.., most of them in other files.

So do detectors of Dectris write them: https://manual.nexusformat.org/classes/applications/NXmx.html and
https://www.dectris.com (file format of EIGER, HDF5 and NeXus).
"""

import re
from pathlib import Path

import h5py

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.hdf5 import DAMAGED

_PART = re.compile("data_([0-9]{1,9})")
_MOST = 900  # parts: each keeps a file open
_FRAME_TIME = "instrument/detector/frame_time"


def part_names(group: h5py.Group) -> list[str]:
    """The names of the parts in ``group``, in the order of their numbers; none if there are fewer than two."""
    numbered = sorted((int(match[1]), name) for name in group if (match := _PART.fullmatch(name)))
    return [name for _, name in numbered] if len(numbered) > 1 else []


def is_part(name: str) -> bool:
    """Whether ``name``, of a dataset in its group, is one that parts have."""
    return _PART.fullmatch(name) is not None


def check_parts(path: Path, group: h5py.Group, names: list[str]) -> None:
    """Raise InputError if there are too many, one is missing, or one is not of the shape and type of the first."""
    if len(names) > _MOST:
        raise InputError(
            f"{path}: its movie is in {len(names):,} parts, more than {_MOST}; name one with --dataset, or join them "
            "in a virtual dataset."
        )
    numbers = [int(_PART.sub(r"\1", name)) for name in names]
    for number, name, following in zip(numbers[1:], names[1:], range(numbers[0] + 1, numbers[-1] + 2), strict=False):
        if number != following:
            raise InputError(
                f"{path}: of its parts the one before {name} (number {following}) is missing; put it back."
            )
    first = _part(path, group, names[0])
    for name in names:
        part = _part(path, group, name)
        if part.ndim != 3 or (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
            raise InputError(
                f"{path}: its part {name} has shape {part.shape} and type {part.dtype}, the first one {first.shape} "
                f"and {first.dtype}; name one with --dataset."
            )


def _part(path: Path, group: h5py.Group, name: str) -> h5py.Dataset:
    try:
        part = group.get(name)
    except DAMAGED:
        part = None
    if not isinstance(part, h5py.Dataset) or part.shape is None:
        link = group.get(name, getlink=True)
        where = f" in {printable(str(link.filename))}" if isinstance(link, h5py.ExternalLink) else ""
        raise InputError(f"{path}: its part {name}{where} is missing or damaged; put it back beside this file.")
    return part


def frame_time(group: h5py.Group) -> tuple[float, str] | None:
    """The time from frame to frame that the detector states beside the ``group``, with its units."""
    try:
        stated = group.parent.get(_FRAME_TIME)
        if isinstance(stated, h5py.Dataset) and stated.shape in ((), (1,)) and stated.dtype.kind in "iuf":
            units = stated.attrs.get("units", "s")
            return float(stated[()].item()), units.decode() if isinstance(units, bytes) else str(units)
    except DAMAGED:
        pass
    return None
