"""Files: written aside and complete when they appear, known by their content."""

import errno
import hashlib
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hrtemvae_hpc.errors import InputError


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A place to write to, in ``folder`` or beside ``path``; it is renamed to ``path`` if the block succeeds.

    Else it is removed. ``folder`` must lie on the disk of ``path``.

    Raises OSError where the disk is full or fails.
    """
    aside = (folder or path.parent) / f".{path.name}.{socket.gethostname()}.{os.getpid()}"
    try:
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file that can be seen; False too where the name or its folders forbid to look."""
    try:
        return path.is_file()
    except OSError:
        return False


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal. Raises OSError where it can't be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def check_output(output: Path, what: str, inputs: Iterable[Path] = (), page: str = "") -> None:
    """Raise InputError where ``output`` can't become ``what`` (a result, a model), or is one of the ``inputs``.

    ``page`` is the suffix of another file that is written beside it.
    """
    try:
        str(output.absolute()).encode()
        same = [path for path in inputs if output.exists() and path.exists() and output.samefile(path)]
    except UnicodeEncodeError as error:
        raise InputError(f"{str(output)!a}: HDF5 can't write names that are not UTF-8; choose another.") from error
    except OSError as error:
        raise InputError(f"{output}: can't be written ({error.strerror}); choose another with -o.") from error
    if same:
        raise InputError(f"{output}: is one of the files to be read itself; choose another output with -o.")
    if page and output.suffix == page:
        raise InputError(f"{output}: would be overwritten by its own {page} file; choose another ending for {what}.")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name the file of {what} with -o.")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder for {what}; make it, or choose another with -o.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: can't be written; choose another place with -o.")


def reserve(path: Path, size: int) -> None:
    """Try whether ``path`` can have ``size`` bytes now, before HDF5 meets a full disk in the middle of a file.

    HDF5 begins the file anew and gives them back. Raises OSError where there is no room.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


@contextmanager
def hdf5_disk_errors() -> Iterator[None]:
    """Have HDF5 raise OSError also where closing a file fails, on a full disk: by itself it raises RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(errno.EIO, f"HDF5 could not finish the file, is the disk full? ({error})") from error
