"""Small pieces of a file, such as the header of each frame."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_THREADS = 16  # that wait for the file system
_TOGETHER = 256  # pieces that a thread reads in turn


def read_pieces(path: Path, offsets: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A value of ``dtype`` [pieces] from each of the ``offsets``; as far as they lie in the file, the others zero."""
    values = np.zeros(len(offsets), dtype)
    bytes_of = values.view(np.uint8).reshape(len(offsets), dtype.itemsize)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        inside = (offsets >= 0) & (offsets <= size - dtype.itemsize)

        def read(part: Sequence[int]) -> None:
            for i in part:
                piece = os.pread(file.fileno(), dtype.itemsize, int(offsets[i]))
                bytes_of[i, : len(piece)] = np.frombuffer(piece, np.uint8)

        wanted = np.flatnonzero(inside)
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(read, [wanted[i : i + _TOGETHER] for i in range(0, len(wanted), _TOGETHER)]))
    return values


def increasing(times: np.ndarray) -> np.ndarray | None:
    """``times`` of frames [frames] float64 from the first; None unless each is later than the one before."""
    if len(times) < 2 or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        return None
    from_first: np.ndarray = times - times[0]
    return from_first
