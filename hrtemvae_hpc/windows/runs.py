"""Runs: windows in a line that have one scale.

A window's scale is its least and its largest pixel, and most neighbours hold the same two: of windows of 64 pixels that
lie 8 pixels apart, 6 in 10 where pixels are noise. Windows of one scale that see the same pixels have much in common.
"""

from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.compiled import compiled


@dataclass(frozen=True)
class Runs:
    """Runs of one length along one axis: ``windows`` [runs, length, 3], the frame, row and column of each window."""

    along_x: bool
    windows: np.ndarray

    def split(self, windows: int) -> list["Runs"]:
        """The same in pieces of at most so many windows, or of one run."""
        step = max(1, windows // self.windows.shape[1])
        return [Runs(self.along_x, self.windows[i : i + step]) for i in range(0, len(self.windows), step)]


def find_runs(scales: np.ndarray, longest: int) -> list[Runs]:
    """All windows, each in one run of at most ``longest`` windows.

    ``scales`` [frames, rows, columns, 2]: what becomes 0 and 1 of each window.
    """
    first, length, along_x = _find_runs(scales.astype(np.float64), longest)
    runs = []
    for x in (False, True):
        for n in np.unique(length[along_x == x]):
            which = first[(along_x == x) & (length == n)]
            steps = np.arange(n)[:, None] * ((0, 0, 1) if x else (0, 1, 0))
            runs.append(Runs(x, which[:, None] + steps))
    return runs


@compiled(fastmath=set())
def _find_runs(scales, longest):  # type: ignore[no-untyped-def]
    """The first window, length and axis of runs: from each window on that is in none yet, the longer way."""
    frames, rows, columns, _ = scales.shape
    first = np.empty((frames * rows * columns, 3), np.int64)
    length, along_x = np.empty(len(first), np.int64), np.empty(len(first), np.bool_)
    taken = np.zeros((frames, rows, columns), np.bool_)
    runs = 0
    for t in range(frames):
        for r in range(rows):
            for s in range(columns):
                if taken[t, r, s]:
                    continue
                low, high = scales[t, r, s, 0], scales[t, r, s, 1]
                down = right = 1
                while down < longest and r + down < rows and not taken[t, r + down, s]:
                    if scales[t, r + down, s, 0] != low or scales[t, r + down, s, 1] != high:
                        break
                    down += 1
                while right < longest and s + right < columns and not taken[t, r, s + right]:
                    if scales[t, r, s + right, 0] != low or scales[t, r, s + right, 1] != high:
                        break
                    right += 1
                first[runs, 0], first[runs, 1], first[runs, 2] = t, r, s
                length[runs], along_x[runs] = max(down, right), right > down
                for i in range(length[runs]):
                    if along_x[runs]:
                        taken[t, r, s + i] = True
                    else:
                        taken[t, r + i, s] = True
                runs += 1
    return first[:runs], length[:runs], along_x[:runs]
