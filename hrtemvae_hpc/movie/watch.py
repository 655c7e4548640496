"""Whether the files of a movie are still what they were: by sizes, times and a sample of their content."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_SAMPLES, _SAMPLE = 64, 4096  # pieces of all files together, and bytes of each, that are read to identify a movie
_SELDOM = 100  # times as long as a check of all files takes, until the next one


class Watch:
    """Notices when the files of a movie change while it is read."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises OSError if a file can't be examined."""
        self._files = sorted(set(files))
        self._stamps = self._look()
        self._looked, self._took = time.monotonic(), 0.0

    def fingerprint(self) -> list[object]:
        """Sizes, times and a sample of the content of all files, which identify them in any folder.

        Raises OSError if a file can't be read.
        """
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        return [[(size, modified) for _, size, modified in self._stamps], digest.hexdigest()]

    def has_changed(self, *, thorough: bool = False) -> bool:
        """Whether a file is not what it was, by inode, size and time.

        Unless ``thorough``, many files are checked less often.
        """
        began = time.monotonic()
        if not thorough and began - self._looked < _SELDOM * self._took:
            return False
        try:
            changed = self._look() != self._stamps
        except OSError:
            return True
        self._looked = time.monotonic()
        self._took = self._looked - began
        return changed

    def _look(self) -> list[tuple[int, int, int]]:
        every = (path.stat() for path in self._files)
        return [(s.st_ino, s.st_size, s.st_mtime_ns) for s in every]

    def _pieces(self) -> Iterator[bytes]:
        """Spread evenly over the files, and over each from its first to its last bytes; of many files the middle."""
        count = min(len(self._files), _SAMPLES)
        each = max(1, _SAMPLES // count)
        for i in range(count):
            path = self._files[i * len(self._files) // count]
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for j in range(each):
                    file.seek(int(max(0, size - _SAMPLE) * (j / (each - 1) if each > 1 else 0.5)))
                    yield file.read(_SAMPLE)
