"""The latents of a recording's frames on disk, so that a run that was killed goes on without encoding them again."""

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrtemvae_hpc.files import saving

_ADVICE = "make room and run the same command again; it goes on from there."
_KEY = 64  # characters of a key


@dataclass(frozen=True)
class EncodedFrame:
    """A frame, as the movie counts them, with its latents [rows, columns, latents] float32, NaN where not valid."""

    frame: int
    place: tuple[float, float]  # how far the specimen has drifted, down and right, in pixels
    z: np.ndarray


class KeptLatents:
    """A file of frames with their latents in half precision; ``key`` (SHA-256) says of which recording and analysis.

    What a run was writing when it was killed is cut off. So is all of it, if it has another key.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, int, int]) -> None:
        """Open or make ``path`` for frames of ``shape`` (rows, columns, latents); raises Blocked or RankFailed."""
        self._path = path
        self._type = np.dtype([("frame", "<i8"), ("place", "<f4", 2), ("check", "<u4"), ("z", "<f2", shape)])
        with saving(path, _ADVICE):
            self._file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+")
            if self._file.read(_KEY) != key.encode():
                self._file.truncate(0)
                self._file.seek(0)
                self._file.write(key.encode())

    def read(self) -> Iterator[EncodedFrame]:
        """All frames in order, once; afterwards more can be added."""
        last, end = -1, _KEY
        with saving(self._path, _ADVICE):
            self._file.seek(end)
            while len(raw := self._file.read(self._type.itemsize)) == self._type.itemsize:
                record = np.frombuffer(raw, self._type)[0]
                if record["frame"] <= last or record["check"] != _check(record):
                    break
                last, end = int(record["frame"]), self._file.tell()
                yield EncodedFrame(last, tuple(record["place"].tolist()), record["z"].astype(np.float32))
            self._file.truncate(end)
            self._file.seek(end)

    def add(self, encoded: EncodedFrame) -> None:
        """Write a frame that is later than all others. Raises Blocked if the disk is full."""
        record = np.zeros(1, self._type)
        record["frame"], record["place"], record["z"] = encoded.frame, encoded.place, encoded.z
        record["check"] = _check(record[0])
        with saving(self._path, _ADVICE):
            raw = memoryview(record.tobytes())
            while raw:
                raw = raw[self._file.write(raw) :]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _check(record: np.void) -> int:
    start = zlib.crc32(record["place"].tobytes(), int(record["frame"]) & 0xFFFFFFFF)
    return zlib.crc32(record["z"].tobytes(), start)
