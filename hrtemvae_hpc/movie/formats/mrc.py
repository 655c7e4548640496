"""MRC files, also named .mrcs, .map, .st, .rec or .ali: https://www.ccpem.ac.uk/mrc_format/mrc2014.php.

mrcfile parses the header, and the extended headers FEI1 and FEI2 that hold times and pixel sizes of frames:
https://mrcfile.readthedocs.io. Extended headers of older programs of FEI are read by ncempy.

Rows are taken in the order in which they are stored, as mrcfile and ncempy do, though the first is by convention the
lowest one in the image. Pixels of mode 0 have a sign, unless IMOD wrote the file and says otherwise:
https://bio3d.colorado.edu/imod/doc/mrc_format.txt (imodStamp, imodFlags).
"""

import io
from pathlib import Path
from typing import Any

import mrcfile.utils
import numpy as np
from mrcfile.mrcinterpreter import MrcInterpreter
from ncempy.io.mrc import fileMRC

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import read_head
from hrtemvae_hpc.movie.calibration import convert
from hrtemvae_hpc.movie.formats.library import as_json, guarded
from hrtemvae_hpc.movie.formats.pieces import increasing
from hrtemvae_hpc.movie.formats.stack import Format, Likeness, Stack, one_after_another
from hrtemvae_hpc.movie.frames import Description

_ENDINGS = {".mrc", ".mrcs"}
_OTHER_ENDINGS = {".map", ".st", ".rec", ".ali"}  # not of MRC alone
_HEADER = 1024  # bytes
_EXTENDED = slice(92, 96)  # where the header has the bytes of the extended one
_MODES = {0, 1, 2, 3, 4, 6, 12, 101}
_MOST_EXTENDED = 2**26  # bytes that are read
_OF_NCEMPY = {0, 1, 2, 6}  # modes
_IMOD, _SIGNED = 1146047817, 1
_DAY = 86400.0
_SENSIBLE = 1e-4, 1e4  # nm of a pixel


def _recognised(head: bytes, path: Path) -> bool:
    ending = path.suffix.lower()
    if ending in _ENDINGS or head[208:211] == b"MAP":
        return not head.startswith(b"\x89HDF")
    if ending not in _OTHER_ENDINGS or len(head) < _HEADER:
        return False
    return any(
        words[3] in _MODES and min(words[:3]) > 0 for words in (np.frombuffer(head, f"{e}i4", 4).tolist() for e in "<>")
    )


def _read(path: Path) -> Stack:
    head = read_head(path, _HEADER)
    with guarded(path):
        # Without the number of extended bytes, for which mrcfile would allocate whatever it claims.
        bare = head[: _EXTENDED.start] + bytes(4) + head[_EXTENDED.stop :]
        header = MrcInterpreter(io.BytesIO(bare), permissive=True, header_only=True).header
    order = header.mode.dtype.newbyteorder("=") == header.mode.dtype
    skipped = int(np.frombuffer(head[_EXTENDED], "=i4" if order else np.dtype("i4").newbyteorder())[0])
    shape = int(header.nz), int(header.ny), int(header.nx)
    dtype = _dtype(path, head, header)
    if skipped < 0 or min(shape) < 0:
        raise InputError(f"{path}: its header is damaged (shape {shape}, {skipped} extended bytes); copy it again.")
    placement = one_after_another(path, shape, dtype, _HEADER + skipped)
    extended = _extended(path, head, skipped)
    pixel_size, notes = _pixel_size(path, header, extended, skipped)
    description = Description(
        "MRC",
        shape,
        dtype.newbyteorder("="),
        pixel_size,
        times_s=None if extended is None else increasing(extended["Timestamp"] * _DAY),
        metadata=_metadata(header, extended),
        notes=notes,
    )
    # Of the header, what follows the kind of extended header holds statistics, origins and labels.
    likeness = Likeness(((0, head[:76]), (88, head[88:108]), (152, head[152:160]))) if skipped == 0 else None
    return Stack(description, placement, likeness=likeness)


def _dtype(path: Path, head: bytes, header: Any) -> np.dtype[Any]:
    mode = int(header.mode)
    try:
        dtype = mrcfile.utils.data_dtype_from_header(header)
    except ValueError as error:
        raise InputError(
            f"{path}: holds pixels of mode {mode}, which mrcfile doesn't read; convert it to mode 1, 2 or 6, for "
            "example with IMOD's newstack."
        ) from error
    stamp, flags = np.frombuffer(head[152:160], np.dtype("i4").newbyteorder(header.mode.dtype.byteorder)).tolist()
    unsigned = mode == 0 and stamp == _IMOD and not flags & _SIGNED
    return np.dtype(np.uint8) if unsigned else np.dtype(dtype)


def _extended(path: Path, head: bytes, skipped: int) -> np.ndarray | None:
    """What FEI1 or FEI2 headers say of each frame [frames]; None if there are none."""
    if head[104:108] not in (b"FEI1", b"FEI2") or not 0 < skipped <= _MOST_EXTENDED:
        return None
    with guarded(path):
        both = io.BytesIO(read_head(path, _HEADER + skipped))
        found: np.ndarray | None = MrcInterpreter(both, permissive=True, header_only=True).indexed_extended_header
    return found


def _pixel_size(
    path: Path, header: Any, extended: np.ndarray | None, skipped: int
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Of rows and columns in nm, and notes: of the extended header, else of the cell that all pixels fill."""
    if extended is not None and len(extended):
        y, x = (convert(float(extended[f"Pixel size {axis}"][0]), "m", "nm") for axis in "YX")
        if y and x and _is_sensible(y, x):
            return (y, x), ()
    elif skipped >= 60 and not bytes(header.exttyp).strip(b"\0 ") and int(header.mode) in _OF_NCEMPY:
        with guarded(path), fileMRC(path) as file:
            size = convert(float(file.FEIinfo["pixel_size"]), "m", "nm")
        if size and _is_sensible(size, size):
            return (size, size), ()
    with np.errstate(all="ignore"):
        y, x = (convert(float(header.cella[axis] / header[f"m{axis}"].astype(np.float32)), "A", "nm") for axis in "yx")
    if not (y and x and _is_sensible(y, x)):
        return None, ()
    if y == x == 0.1:
        return None, (
            "its pixel size is 1 angstrom exactly, as programs write that don't know it; if it is right, state it",
        )
    return (y, x), ()


def _is_sensible(*sizes_nm: float) -> bool:
    return all(_SENSIBLE[0] <= size <= _SENSIBLE[1] for size in sizes_nm)


def _metadata(header: Any, extended: np.ndarray | None) -> dict[str, Any]:
    """The header, and the extended header of the first frame."""
    kept: dict[str, Any] = {name: as_json(header[name][()]) for name in header.dtype.names if "extra" not in name}
    if extended is not None and len(extended):
        kept["extended header"] = as_json(extended[0])
    return kept


MRC = Format("MRC", _recognised, _read)
