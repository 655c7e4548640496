"""Files that are read by many threads, and stay open as long as there are few of them."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_KEPT_OPEN = 256  # files; of more, each is opened when it is read


class OpenFiles:
    """Descriptors of files, opened when they are first needed."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}

    @contextmanager
    def opened(self, i: int) -> Iterator[int]:
        """The descriptor of file number ``i``; raises OSError if it can't be opened."""
        if i in self._open:
            yield self._open[i]
            return
        file = os.open(self._files[i], os.O_RDONLY | os.O_CLOEXEC)
        with self._lock:
            keep = len(self._open) < _KEPT_OPEN and i not in self._open
            if keep:
                self._open[i] = file
        try:
            yield file
        finally:
            if not keep:
                os.close(file)

    def close(self) -> None:
        """Close all; they are opened again when they are needed."""
        with self._lock:
            for number in self._open.values():
                os.close(number)
            self._open.clear()
