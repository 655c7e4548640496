"""What the lattice at a process's place does: whether its fringes strengthen, fade or turn.

From the power spectra of windows at a few times. Their mean over the windows (Welch 1967, IEEE Trans. Audio
Electroacoust. 15, 70) depends neither on where the lattice lies in each nor much on noise.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

GROWTH, LOSS, ROTATION, UNKNOWN = "growth", "loss", "rotation", ""
_LONGEST = 1 / 2.2  # of a window, the period of fringes
_SHORTEST = 6.0  # pixels
_RADII = 24
_FINER = 4  # times as many pixels in the spectrum as in a window
_NOISE = 20  # percentile of the power on a ring that is noise
_STANDS_OUT = 1.2  # fringes' power over that of noise, from which on there is a lattice
_MORE = 2.0  # times as much power of fringes that is growth, and a loss the other way round
_TURNS = 1.0  # degrees from which on a lattice turns
_FARTHEST = 20  # degrees between two times
_FEWEST = 3  # windows


@dataclass(frozen=True)
class LatticeChange:
    """What the lattice at a place does from the first time to the last."""

    strength: float  # power of its fringes at the last time, relative to the first; NaN without a lattice
    turned: float  # degrees, clockwise as images are shown; NaN without a lattice

    @property
    def name(self) -> str:
        """GROWTH or LOSS if its fringes are twice as strong, or half; else ROTATION if they turn; else UNKNOWN."""
        if self.strength >= _MORE:
            return GROWTH
        if self.strength <= 1 / _MORE:
            return LOSS
        return ROTATION if abs(self.turned) >= _TURNS else UNKNOWN


def lattice_change(windows: np.ndarray) -> LatticeChange:
    """The change of the lattice in ``windows`` [n, times, size, size] over the times.

    Unknown for fewer than 3 windows, and where no fringes stand out of the noise at any time.
    """
    spectra = _fringes(windows) if len(windows) >= _FEWEST else None
    if spectra is None:
        return LatticeChange(np.nan, np.nan)
    power, noise = spectra
    total = power.sum((1, 2))
    if (total <= _STANDS_OUT * noise).all():
        return LatticeChange(np.nan, np.nan)
    turned = sum(_turn(one, other) for one, other in pairwise(power))
    return LatticeChange(float(total[-1] / max(total[0], 1e-30)), turned)


def _fringes(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean power [times, radii, degrees] beyond that of noise, and that of noise [times]; None for small windows."""
    size = windows.shape[-1]
    lowest, highest = _FINER / _LONGEST, _FINER * size / _SHORTEST
    if highest <= lowest:
        return None
    taper = np.hanning(size + 2)[1:-1]
    weights = taper[:, None] * taper
    means = (windows * weights).sum((2, 3), keepdims=True) / weights.sum()
    shape = (_FINER * size, _FINER * size)
    power = (abs(np.fft.fft2((windows - means) * weights, s=shape)) ** 2).mean(0)
    power = np.fft.fftshift(power, (1, 2))
    radius, angle = np.linspace(lowest, highest, _RADII)[:, None], np.radians(np.arange(180))
    centre = shape[0] // 2
    places = [centre + radius * np.sin(angle), centre + radius * np.cos(angle)]
    rings = np.stack([ndimage.map_coordinates(each, places, order=1) for each in power]) * radius
    noise = np.percentile(rings, _NOISE, 2, keepdims=True)
    return np.maximum(rings - noise, 0), noise.sum((1, 2)) * rings.shape[2]


def _turn(one: np.ndarray, other: np.ndarray) -> float:
    """The angle in degrees by which the power [radii, degrees] ``other`` is turned against ``one``."""
    alike = [float((one * np.roll(other, -by, 1)).sum()) for by in range(-_FARTHEST - 1, _FARTHEST + 2)]
    best = 1 + int(np.argmax(alike[1:-1]))
    before, at, after = alike[best - 1 : best + 2]
    curvature = before - 2 * at + after
    between = (before - after) / (2 * curvature) if curvature < 0 else 0.0
    return best - _FARTHEST - 1 + float(np.clip(between, -1, 1))
