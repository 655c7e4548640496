"""NumPy's .npy files: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""

from pathlib import Path

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.formats.stack import Format, Likeness, Stack, one_after_another
from hrtemvae_hpc.movie.frames import Description

_MAGIC = b"\x93NUMPY"


def _read(path: Path) -> Stack:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, fortran_order, dtype = read_header[version[0]](file)
            offset = file.tell()
            file.seek(0)
            header = file.read(offset)
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: its header is damaged or of an unknown version; save the array again.") from error
    if fortran_order:
        raise InputError(f"{path}: is stored in Fortran order; save it with numpy.ascontiguousarray.")
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3:
        raise InputError(f"{path}: has shape {shape}, not frames, rows and columns; save such an array.")
    description = Description("NumPy", shape, dtype.newbyteorder("="))
    placement = one_after_another(path, shape, dtype, offset)
    return Stack(description, placement, likeness=Likeness(((0, header),)))


NPY = Format("NumPy", lambda head, path: head.startswith(_MAGIC), _read)
