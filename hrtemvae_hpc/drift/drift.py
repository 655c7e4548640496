"""The drift of a movie: where each of its frames shows the specimen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrtemvae_hpc.errors import InputError

Floats = NDArray[np.float64]
_OFFSETS = np.array(sorted(np.arange(-24, 25) / 50, key=abs))  # pixels; of equal ones the smallest counts


@dataclass(frozen=True)
class Drift:
    """Frame t shows at (y + dy, x + dx) what the first usable frame shows at (y, x).

    ``dy`` (down) and ``dx`` (right) are in pixels, float64 [frames]; ``quality`` is 0 where a frame shows nothing that
    could be followed, so that its place is interpolated, and 1 at best.
    """

    dy: Floats
    dx: Floats
    quality: Floats

    def whole(self) -> NDArray[np.int64]:
        """The shifts down and right in whole pixels [frames, 2], 0 where none reaches half a pixel.

        What whole pixels leave would look like a slow movement where it grows or falls with time. Where frames lie is
        free by a constant below half a pixel, as is where the first one lies between its pixels: the constant is
        taken with which the rest has the least covariance with time.
        """
        return np.stack([_rounded(self.dy), _rounded(self.dx)], 1)

    @property
    def largest(self) -> float:
        """The farthest that a frame is from the first usable one, pixels."""
        return float(np.hypot(self.dy, self.dx).max())

    def check_fits(self, rows: int, columns: int) -> None:
        """Raise InputError if a frame of ``rows`` x ``columns`` shows nothing of what the first frame shows."""
        whole = abs(self.whole())
        outside = (whole[:, 0] >= rows) | (whole[:, 1] >= columns)
        if outside.any():
            t = int(outside.argmax())
            raise InputError(
                f"the drift of frame {t}, {self.dy[t]:g} pixels down and {self.dx[t]:g} right, is larger than the "
                f"frame of {rows} x {columns}; check its units and order."
            )


def _rounded(shifts: Floats) -> NDArray[np.int64]:
    if not np.rint(shifts).any():
        return np.zeros(len(shifts), np.int64)
    time = np.arange(len(shifts)) - (len(shifts) - 1) / 2
    whole = np.rint(shifts + _OFFSETS[:, None])
    covariance = np.abs((shifts - whole) @ time).round(9)
    return np.asarray(whole[covariance.argmin()].astype(np.int64))


@dataclass(frozen=True)
class DriftEstimate:
    """A drift, how far two independent estimates of it agree, and what else changed from frame to frame.

    ``difference`` is the most by which they differ, pixels; ``rival`` is the share of the frame that moves together in
    another way, relative to the share that the drift was taken from.

    Per frame: ``blank`` [frames] bool, ``mean``, ``contrast`` (deviation over mean) and ``focus``, the power in the
    ring of the Fourier plane where the movie has its lattice, relative to the rings beside it.
    """

    drift: Drift
    agree: bool
    difference: float
    rival: float
    blank: NDArray[np.bool_]
    mean: Floats
    contrast: Floats
    focus: Floats

    @property
    def to_correct(self) -> bool:
        """Whether the drift is certain, and moves a frame by a whole pixel."""
        return self.agree and bool(self.drift.whole().any())
