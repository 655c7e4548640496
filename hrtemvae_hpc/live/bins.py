"""Latents of all frames so far as means over time, of a number that stays small however long a recording gets."""

import numpy as np

MOST = 128


class TimeBins:
    """Means over equally many frames that follow each other, at most ``MOST``; the last may have fewer.

    When all are full, neighbours are merged, and from then on each takes twice as many frames.
    """

    def __init__(self, rows: int, columns: int, latents: int) -> None:
        self._sums = np.zeros((MOST, rows, columns, latents), np.float32)
        self._valid = np.zeros((MOST, rows, columns), np.int32)
        self._positions = np.zeros(MOST)  # sums over frames of their numbers
        self._counts = np.zeros(MOST, np.int64)  # of frames
        self.size = 1  # frames in a full bin
        self.frames = 0

    def __len__(self) -> int:
        return -(-self.frames // self.size)

    def add(self, frame: int, z: np.ndarray) -> None:
        """Add ``frame`` with latents ``z`` [rows, columns, latents] float32, NaN where not valid."""
        if self.frames == MOST * self.size:
            self._merge()
        i = self.frames // self.size
        valid = np.isfinite(z[..., 0])
        self._sums[i] += np.where(valid[..., None], z, 0)
        self._valid[i] += valid
        self._positions[i] += frame
        self._counts[i] += 1
        self.frames += 1

    def positions(self) -> np.ndarray:
        """The mean number of each bin's frames [bins] float64."""
        return np.asarray(self._positions[: len(self)] / self._counts[: len(self)])

    def means(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Latents [bins, windows, latents] float32 of some windows, row by row, and valid [bins, windows] bool.

        0 where no frame of a bin is valid.
        """
        count = self._valid[: len(self), rows, columns]
        means = self._sums[: len(self), rows, columns] / np.maximum(count, 1)[..., None]
        return means.reshape(len(self), -1, means.shape[-1]).astype(np.float32), (count > 0).reshape(len(self), -1)

    def _merge(self) -> None:
        for each in (self._sums, self._valid, self._positions, self._counts):
            each[: MOST // 2] = each[0::2] + each[1::2]
            each[MOST // 2 :] = 0
        self.size *= 2
