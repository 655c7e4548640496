"""Which files under a folder have stopped changing: one that is still being written must be left alone."""

import os
import time
from collections.abc import Iterable
from pathlib import Path


class Settled:
    """Files under a folder that stayed the same for some seconds, over several looks at it.

    No file is opened for that: a lock on it could make the program fail that writes it.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._known: dict[Path, tuple[tuple[int, ...], float]] = {}  # size, times and inode, and since when
        self._looked = time.monotonic()

    def look(self) -> None:
        """Note every file as it is now."""
        self._looked = time.monotonic()
        known = {}
        for place, _, names in os.walk(self._folder):
            for name in names:
                path = Path(place, name)
                try:
                    status = path.stat()
                except OSError:
                    continue
                facts = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
                before = self._known.get(path)
                known[path] = before if before and before[0] == facts else (facts, self._looked)
        self._known = known

    def __call__(self, files: Iterable[Path]) -> bool:
        """Whether all ``files`` had stayed the same for long enough at the last look."""
        return all(path in self._known and self._looked - self._known[path][1] >= self._seconds for path in files)
