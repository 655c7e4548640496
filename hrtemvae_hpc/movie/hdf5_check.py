"""What HDF5 can do here and says of files: compressions, locks of a folder's file system, who wrote a file."""

import os
import socket
from pathlib import Path

import h5py
import hdf5plugin

_BUILT_IN = {"gzip": h5py.h5z.FILTER_DEFLATE, "shuffle": h5py.h5z.FILTER_SHUFFLE, "lzf": h5py.h5z.FILTER_LZF}


def filters() -> dict[str, bool]:
    """Each compression's name, and whether it can be read."""
    known = {**_BUILT_IN, **{name: int(number) for name, number in hdf5plugin.FILTERS.items()}}
    return {name: bool(h5py.h5z.filter_avail(number)) for name, number in known.items()}


def version() -> str:
    """The HDF5 library's version."""
    return str(h5py.version.hdf5_version)


def bears_locks(folder: Path) -> bool:
    """Whether HDF5 can lock files in ``folder``. Raises OSError where no file can be written there."""
    path = folder / f".hrtemvae-lock.{socket.gethostname()}.{os.getpid()}"
    path.touch()
    try:
        with h5py.File(path, "w", locking=True):
            return True
    except OSError:
        return False
    finally:
        path.unlink()


def written_by(path: Path) -> str:
    """The program that a file says it was written by, "" where it says nothing or can't be read."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file.attrs.get("creator", ""))
    except OSError:
        return ""
