"""Files: written aside and complete when they appear, known by their content."""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
