"""Files that appear under their name only when they are complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to; it takes the name ``path`` if the block succeeds, else it is removed.

    Raises OSError where the disk is full or fails.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
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
