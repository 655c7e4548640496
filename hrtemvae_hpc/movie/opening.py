"""The files of a movie opened as what they are, which their first bytes say rather than their names."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file, is_folder
from hrtemvae_hpc.movie.formats.stack import HEAD, Format, Stack
from hrtemvae_hpc.movie.frames import FrameSource
from hrtemvae_hpc.movie.hdf5_frames import open_hdf5_frames

_HDF5 = b"\x89HDF\r\n\x1a\n"


def open_frames(path: Path, section: MovieSection, growing: bool = False) -> FrameSource:
    """The frames at ``path``, a file or a folder, which may be ``growing``: still being written.

    Raises InputError if they are of no known format or no movie.
    """
    known = format_of(path) if is_file(path) else None
    if known is None and not is_folder(path):
        return open_hdf5_frames(path, section.dataset, section.axes, growing)
    if section.dataset or section.axes:
        what = known.name if known else "a folder"
        raise InputError(f"{path}: --dataset and --axes are for HDF5 files, this is {what}; leave them out.")
    from hrtemvae_hpc.movie.formats.folder import read_folder

    with _or_unreadable(path):
        stack = known.read(path) if known else read_folder(path, all_formats())
    _check(stack, path)
    return stack.open(path, str(path))


def open_single_frames(paths: Sequence[Path], section: MovieSection) -> FrameSource | None:
    """The frames of several files, in this order, if all are of one format but HDF5 and hold one each; else None.

    Few of the files are parsed. Raises InputError if their frames are not alike, or one can't be read.
    """
    if section.dataset or section.axes:
        return None
    from hrtemvae_hpc.movie.formats.folder import read_files

    with _or_unreadable(paths[0]):
        stack = read_files(paths, all_formats())
    if stack is None:
        return None
    _check(stack, paths[0])
    return stack.open(paths[0], joined_name(paths))


def joined_name(paths: Sequence[Path]) -> str:
    """How messages name several files that are one movie."""
    return f"{paths[0]} and {len(paths) - 1} more"


@contextmanager
def _or_unreadable(path: Path) -> Iterator[None]:
    """Errors of the file system become InputError."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise InputError(f"{where}: can't be read ({error.strerror}); check it and its permissions.") from error


def format_of(path: Path) -> Format | None:
    """The format of a file by its first bytes, None if it is HDF5, unknown or can't be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None
    if head.startswith(_HDF5):
        return None
    from hrtemvae_hpc.movie.formats.table import FOR_FILES

    return next((known for known in FOR_FILES if known.recognised(head, path)), None)


def all_formats() -> tuple[Format, ...]:
    """The formats of frames in folders."""
    from hrtemvae_hpc.movie.formats.table import FORMATS

    return FORMATS


def _check(stack: Stack, path: Path) -> None:
    """Raise InputError unless ``stack`` holds pixels that can be analysed."""
    about = stack.description
    if about.dtype.kind not in "iuf":
        raise InputError(f"{path}: holds pixels of type {about.dtype}, not integer or real ones; convert it.")
    if math.prod(about.shape) == 0:
        raise InputError(f"{path}: is empty (its shape is {about.shape}); nothing can be analysed.")
