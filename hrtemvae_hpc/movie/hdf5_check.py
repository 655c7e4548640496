"""What HDF5 can do here: compressions, and locks of a folder's file system."""

from pathlib import Path

import h5py
import hdf5plugin

from hrtemvae_hpc.files import temporary_file

_BUILT_IN = {"gzip": h5py.h5z.FILTER_DEFLATE, "shuffle": h5py.h5z.FILTER_SHUFFLE, "lzf": h5py.h5z.FILTER_LZF}


def filters() -> dict[str, bool]:
    """Each compression's name, and whether it can be read."""
    known = {**_BUILT_IN, **{name: int(number) for name, number in hdf5plugin.FILTERS.items()}}
    return {name: bool(h5py.h5z.filter_avail(number)) for name, number in known.items()}


def version() -> str:
    """The HDF5 library's version."""
    return str(h5py.version.hdf5_version)


def supports_locks(folder: Path) -> bool:
    """Whether HDF5 can lock files in ``folder``. Raises OSError if no file can be written there."""
    with temporary_file(folder) as path:
        try:
            with h5py.File(path, "w", locking=True):
                return True
        except OSError:
            return False
