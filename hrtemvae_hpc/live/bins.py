"""Latents of frames so far as means over time: of the whole recording, and of its last frames.

Their number stays small however long a recording gets. What began late hardly shows in maps of the whole recording, so
there are also bins of its last 128, 256, 512... frames.
"""

import numpy as np

MOST = 128  # bins of the whole recording
RECENT = 64  # bins of the last frames
_SHARE = 0.75  # of all frames that the last ones are at most, to be worth a look of their own


class Bins:
    """Means of latents over equally many frames that follow each other; the last may have fewer."""

    def __init__(self, most: int, size: int, rows: int, columns: int, latents: int) -> None:
        self.size = size  # frames in a full bin
        self.frames = 0  # in all bins
        self._most, self._first = most, 0  # bins at most, and where the first of them is
        self._sums = np.zeros((most, rows, columns, latents), np.float32)
        self._valid = np.zeros((most, rows, columns), np.int32)
        self._positions = np.zeros(most)  # sums over frames of their numbers
        self._counts = np.zeros(most, np.int64)  # of frames

    def __len__(self) -> int:
        return -(-self.frames // self.size)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another frame."""
        return self.frames == self._most * self.size

    def add(self, frame: int, z: np.ndarray) -> None:
        """Add ``frame`` with latents ``z`` [rows, columns, latents] float32, NaN where not valid."""
        if self.is_full:
            self._make_room()
        i = (self._first + self.frames // self.size) % self._most
        valid = np.isfinite(z[..., 0])
        self._sums[i] += np.where(valid[..., None], z, 0)
        self._valid[i] += valid
        self._positions[i] += frame
        self._counts[i] += 1
        self.frames += 1

    def positions(self) -> np.ndarray:
        """The mean number of each bin's frames [bins] float64."""
        which = self._in_order()
        return np.asarray(self._positions[which] / self._counts[which])

    def means(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Latents [bins, windows, latents] float32 of some windows, row by row, and valid [bins, windows] bool.

        0 where no frame of a bin is valid.
        """
        which = self._in_order()
        count = self._valid[which, rows, columns]
        means = self._sums[which, rows, columns] / np.maximum(count, 1)[..., None]
        return means.reshape(len(self), -1, means.shape[-1]).astype(np.float32), (count > 0).reshape(len(self), -1)

    def coarser(self) -> "Bins":
        """The same frames, two bins in one, in as many bins at most. All must be full."""
        other = Bins(self._most, 2 * self.size, *self._sums.shape[1:])
        which = self._in_order()
        for mine, its in zip(self._arrays, other._arrays, strict=True):
            its[: len(which) // 2] = mine[which[0::2]] + mine[which[1::2]]
        other.frames = self.frames
        return other

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self._sums, self._valid, self._positions, self._counts

    def _in_order(self) -> np.ndarray:
        return (self._first + np.arange(len(self))) % self._most

    def _make_room(self) -> None:
        """Drop the oldest bin."""
        for each in self._arrays:
            each[self._first] = 0
        self._first = (self._first + 1) % self._most
        self.frames -= self.size


class WholeBins(Bins):
    """Bins of all frames. When all are full, neighbours are merged: from then on each takes twice as many frames."""

    def _make_room(self) -> None:
        half = self._most // 2
        for each in self._arrays:
            each[:half] = each[0::2] + each[1::2]
            each[half:] = 0
        self.size *= 2


class TimeBins:
    """The bins of a recording: ``whole``, and ``recent`` ones of fewer frames than that, the last frames first."""

    def __init__(self, rows: int, columns: int, latents: int) -> None:
        self.whole = WholeBins(MOST, 1, rows, columns, latents)
        self._recent = [Bins(RECENT, 2, rows, columns, latents)]

    @property
    def recent(self) -> list[Bins]:
        """Those that hold much less than all frames."""
        return [bins for bins in self._recent if bins.frames <= _SHARE * self.whole.frames]

    def add(self, frame: int, z: np.ndarray) -> None:
        """As ``Bins.add``, to all."""
        if self._recent[-1].is_full:
            self._recent.append(self._recent[-1].coarser())
        for bins in (self.whole, *self._recent):
            bins.add(frame, z)
