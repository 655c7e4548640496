"""What the lattice at a process's place does: whether its fringes strengthen, fade, turn or shift.

From the power spectra of windows at a few times. Their mean over the windows (Welch 1967, IEEE Trans. Audio
Electroacoust. 15, 70) depends neither on where the lattice lies in each nor much on noise. The same mean of the cross
spectra of two times shows by its phase how far the lattice has shifted between them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from scipy import ndimage

GROWTH, LOSS, ROTATION, SHIFT, UNKNOWN = "growth", "loss", "rotation", "shift", ""
_LONGEST = 1 / 2.2  # of a window, the period of fringes
_SHORTEST = 6.0  # pixels
_RADII = 24
_FINER = 4  # times as many pixels in the spectrum as in a window
_NOISE = 20  # percentile of the power on a ring that is noise
_STANDS_OUT = 1.2  # fringes' power over that of noise, from which on there is a lattice
_MORE = 1.6  # times as much power of fringes that is growth, and a loss the other way round
_TURNS = 1.0  # degrees from which on a lattice turns
_FARTHEST = 20  # degrees between two times
_SHIFTS = 1 / 8  # of a period from which on a lattice shifts
_STRONG = 0.5  # power of fringes whose phase counts, relative to the strongest
_COHERENT = 0.8  # share of the windows' power that agrees on a shift, at least
_FEWEST = 3  # windows


@dataclass(frozen=True)
class LatticeChange:
    """What the lattice at a place does from the first time to the last."""

    strength: float  # power of its fringes at the last time, relative to the first; NaN without a lattice
    turned: float  # degrees, clockwise as images are shown; NaN without a lattice
    shifted: float  # periods, the most between two times, of fringes that shift alike in all windows; NaN without any

    @property
    def name(self) -> str:
        """GROWTH or LOSS if its fringes have far more or less power; else ROTATION, SHIFT or UNKNOWN."""
        if self.strength >= _MORE:
            return GROWTH
        if self.strength <= 1 / _MORE:
            return LOSS
        if abs(self.turned) >= _TURNS:
            return ROTATION
        return SHIFT if self.shifted >= _SHIFTS else UNKNOWN


NO_LATTICE = LatticeChange(float("nan"), float("nan"), float("nan"))


def lattice_change(windows: np.ndarray) -> LatticeChange:
    """The change of the lattice in ``windows`` [n, times, size, size] over the times.

    Unknown for fewer than 3 windows, and where no fringes stand out of the noise at any time.
    """
    size = windows.shape[-1]
    lowest, highest = _FINER / _LONGEST, _FINER * size / _SHORTEST
    if len(windows) < _FEWEST or highest <= lowest:
        return NO_LATTICE
    power = np.asarray(sum(abs(each) ** 2 for each in _spectra(windows)) / len(windows))
    fringes, noise = _fringes(power, np.linspace(lowest, highest, _RADII))
    total = fringes.sum((1, 2))
    if (total <= _STANDS_OUT * noise).all():
        return NO_LATTICE
    turned = sum(_turn(one, other) for one, other in pairwise(fringes))
    mean = power.mean(0)
    away = np.hypot(*(np.indices(mean.shape) - len(mean) // 2))
    ring = (away >= lowest) & (away <= highest)
    strong = ring & (mean >= _STRONG * mean[ring].max())
    shifted = _shift(np.stack([each[:, strong] for each in _spectra(windows)]))
    return LatticeChange(float(total[-1] / max(total[0], 1e-30)), turned, shifted)


def _spectra(windows: np.ndarray) -> Iterator[np.ndarray]:
    """The spectrum [times, rows, columns] of each window; one at a time, as they are large."""
    size = windows.shape[-1]
    taper = np.hanning(size + 2)[1:-1]
    weights = taper[:, None] * taper
    for window in windows:
        mean = (window * weights).sum((1, 2), keepdims=True) / weights.sum()
        spectrum = np.fft.fft2((window - mean) * weights, s=(_FINER * size, _FINER * size))
        yield np.fft.fftshift(spectrum, (1, 2))


def _fringes(power: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power [times, radii, degrees] beyond that of noise, and that of noise [times]."""
    radius, angle = radius[:, None], np.radians(np.arange(180))
    centre = power.shape[1] // 2
    places = [centre + radius * np.sin(angle), centre + radius * np.cos(angle)]
    rings = np.stack([ndimage.map_coordinates(each, places, order=1) for each in power]) * radius
    noise = np.percentile(rings, _NOISE, 2, keepdims=True)
    return np.maximum(rings - noise, 0), noise.sum((1, 2)) * rings.shape[2]


def _shift(spectra: np.ndarray) -> float:
    """The largest shift between two times, in periods, of those fringes that shift alike in all windows.

    ``spectra`` [windows, times, fringes]. A whole period is none.
    """
    largest = float("nan")
    for before, after in combinations(spectra.swapaxes(0, 1), 2):
        cross = (after * before.conj()).sum(0)
        both = np.sqrt((abs(before) ** 2).sum(0) * (abs(after) ** 2).sum(0))
        phases = abs(np.angle(cross)[abs(cross) >= _COHERENT * both])
        largest = float(np.fmax(largest, phases.max() / (2 * np.pi))) if phases.size else largest
    return largest


def _turn(one: np.ndarray, other: np.ndarray) -> float:
    """The angle in degrees by which the power [radii, degrees] ``other`` is turned against ``one``."""
    alike = [float((one * np.roll(other, -by, 1)).sum()) for by in range(-_FARTHEST - 1, _FARTHEST + 2)]
    best = 1 + int(np.argmax(alike[1:-1]))
    before, at, after = alike[best - 1 : best + 2]
    curvature = before - 2 * at + after
    between = (before - after) / (2 * curvature) if curvature < 0 else 0.0
    return best - _FARTHEST - 1 + float(np.clip(between, -1, 1))
