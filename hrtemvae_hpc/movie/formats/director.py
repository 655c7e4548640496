"""Gatan's in situ recordings whose frames lie in raw files, beside a DM4 file that "directs" them.

Made after public descriptions, not tried with a real file. The director holds one frame as an image, and the number of
frames in the tag "In-situ:Recorded:# Frames"; NAME.raw, NAME.raw_1, NAME.raw_2.. hold the frames one after another, and
a frame may go on in the next file: ISDatasetProcessing.py in https://pypi.org/project/BenMillerScripts, and
https://github.com/ePSIC-DLS/epsic_tools (epsic_tools/toolbox/load_k3_data.py, the same of DM5). Where the image is only
a preview, the tags "In-situ:Raw File Format Info" describe the frames: Dimensions, the columns first, and "Data Size
(bytes)" of a pixel. Some directors have their frames in folders Hour_00.. beside them instead.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file, is_folder
from hrtemvae_hpc.movie.formats.stack import Stack, even_offsets
from hrtemvae_hpc.movie.frames import Description
from hrtemvae_hpc.movie.raw_frames import Placement

_MOST_FILES = 10_000


@dataclass(frozen=True)
class NotRecorded:
    """The frames of a DM file lie in itself."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """Frames in raw files."""

    placement: Placement
    shape: tuple[int, int, int]
    notes: tuple[str, ...]

    def stack(self, director: Description) -> Stack:
        """The recorded frames, as the ``director`` describes its image."""
        return Stack(dataclasses.replace(director, format="DM4 and raw files", shape=self.shape), self.placement)


def recording(
    path: Path, tags: dict[str, Any], prefix: str, sides: tuple[int, ...], dtype: np.dtype[Any]
) -> Recording | NotRecorded:
    """What the director ``path`` recorded, if it is one; its image has ``sides`` and ``dtype``.

    Raises InputError if the raw files can't be what it says.
    """
    recorded = _whole(tags, f"{prefix}ImageTags.In-situ.Recorded.# Frames")
    if not recorded or len(sides) != 2:
        return NotRecorded()
    raw = _raw_files(path)
    if not raw:
        if is_folder(path.parent / "Hour_00"):
            raise InputError(f"{path}: its frames lie in the folders beside it; name the folder that holds them all.")
        name = path.with_suffix(".raw").name
        missing = f"says that {recorded} frames were recorded, but there is no {name} beside it"
        return NotRecorded((missing,) if recorded > 1 else ())
    layout = f"{prefix}ImageTags.In-situ.Raw File Format Info."
    columns, rows = (_whole(tags, f"{layout}Dimensions.{i + 1}") or sides[i] for i in (0, 1))
    if _whole(tags, f"{layout}Dimensions.3") > 1:
        raise InputError(f"{path}: each of its frames has three dimensions, which is no movie of images.")
    depth = _whole(tags, f"{layout}Data Size (bytes)") or dtype.itemsize
    if depth != dtype.itemsize:
        raise InputError(
            f"{path}: its raw files have pixels of {depth} bytes, but its image has {dtype}, so their type isn't "
            "known; export the recording in another format."
        )
    sizes = [file.stat().st_size for file in raw]
    shape = (recorded, rows, columns)
    offsets = even_offsets(raw[0], shape, dtype, 0, sum(sizes))
    there = sum(sizes) // (rows * columns * dtype.itemsize)
    more = (f"its raw files hold {there} frames, of which {recorded} are counted",) if there > recorded else ()
    return Recording(Placement(raw, sizes, offsets, dtype), shape, more)


def _raw_files(path: Path) -> Sequence[Path]:
    """The raw files of a director in their order; raises InputError if one is missing between others."""
    first = path.with_suffix(".raw")
    if not is_file(first):
        return []
    files = [first]
    for i in count(1):
        following = first.with_name(f"{first.name}_{i}")
        if not is_file(following) or i > _MOST_FILES:
            break
        files.append(following)
    if is_file(first.with_name(f"{first.name}_{i + 1}")):
        raise InputError(f"{path}: {first.name}_{i} is missing beside it, though later ones are there; copy it again.")
    return files


def _whole(tags: dict[str, Any], name: str) -> int:
    value = tags.get(name, 0)
    return max(0, int(value)) if isinstance(value, int | np.integer) else 0
