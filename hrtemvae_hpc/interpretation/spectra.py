"""Images in the Fourier plane: power spectra, their peaks, and the part of an image around one reflection.

A reflection is a point of the Fourier plane, (row, column) in cycles per pixel. Images are float32.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.special import ndtr
from skimage.feature import peak_local_max

from hrtemvae_hpc.fourier.threshold import FRINGE_THRESHOLD

_FEWEST_PERIODS = 5.0  # of a lattice along the shorter side of an image
_HIGHEST = 0.45  # cycles per pixel
_RING = 3  # spectrum pixels: width of the rings in which noise is measured
_QUANTILE = 0.2  # of the power there: most of it may belong to reflections
_APART = 2  # spectrum pixels between peaks
_MOST_PEAKS = 40
_AWAY = 0.6  # widths of a peak, from where it is expected
_STEPS = 5  # of Newton's method
_REACH = 3.0  # sigmas of a filter by which an image is padded


class Peak(NamedTuple):
    """A reflection of an image."""

    place: np.ndarray  # [2]
    power: float


def power_spectrum(image: np.ndarray) -> np.ndarray:
    """Power [rows, columns] of ``image`` in a Hann window, float32, frequency zero in the middle."""
    rows, columns = (_taper(n) for n in image.shape)
    power = abs(fft.fft2((image - image.mean()) * rows[:, None] * columns)) ** 2
    return np.asarray(fft.fftshift(power))


def _taper(size: int) -> np.ndarray:
    return np.hanning(size + 2)[1:-1].astype(np.float32)


def frequencies(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cycles per pixel of the rows [rows, 1] and the columns [1, columns] of a power spectrum."""
    rows, columns = (fft.fftshift(fft.fftfreq(n)) for n in shape)
    return rows[:, None], columns[None]


def noise_power(power: np.ndarray) -> np.ndarray:
    """The mean power of noise [rows, columns] at each place of a power spectrum, which depends on the radius alone.

    It follows from a low quantile of the power in the ring: of an exponential distribution the quantile q is
    -ln(1 - q) times the mean.
    """
    rows, columns = frequencies(power.shape)
    radius = np.hypot(rows, columns) * min(power.shape)
    ring = (radius // _RING).astype(np.int32).ravel()
    order = np.lexsort((power.ravel(), ring))
    counts = np.bincount(ring)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    levels = power.ravel()[order[np.minimum(first + (_QUANTILE * counts).astype(int), power.size - 1)]]
    centres = (np.arange(len(counts)) + 0.5) * _RING
    return np.asarray(np.interp(radius, centres, levels / -math.log(1 - _QUANTILE)), np.float32)


def noise_around(image: np.ndarray, lattices: Sequence[np.ndarray]) -> np.ndarray:
    """The standard deviation [lattices] of white noise as strong as the noise of ``image`` is at their reflections."""
    noise = noise_power(power_spectrum(image))
    rows, columns = frequencies(noise.shape)
    tapers = math.prod(float((_taper(n) ** 2).sum()) for n in image.shape)
    levels = [
        np.mean([noise[abs(rows[:, 0] - y).argmin(), abs(columns[0] - x).argmin()] for y, x in lattice])
        for lattice in lattices
    ]
    return np.sqrt(np.array(levels) / tapers)


def find_peaks(image: np.ndarray) -> list[Peak]:
    """Reflections that stand out in the power spectrum of ``image``, one of each pair, the strongest first.

    Each is placed at the centre of mass of its 3 x 3 spectrum pixels.
    """
    power = power_spectrum(image)
    rows, columns = frequencies(power.shape)
    radius = np.hypot(rows, columns)
    half = (columns > 0) | ((columns == 0) & (rows > 0))
    inside = half & (radius >= _FEWEST_PERIODS / min(image.shape)) & (radius < _HIGHEST)
    strength = power / np.maximum(noise_power(power), 1e-30)
    places = peak_local_max(
        np.where(inside, strength, 0), min_distance=_APART, threshold_abs=FRINGE_THRESHOLD, exclude_border=1
    )
    heights = power[tuple(places.T)]
    best = np.argsort(-heights, kind="stable")[:_MOST_PEAKS]
    return [
        Peak(np.array(_centre_of_mass(power, rows[:, 0], columns[0], *place)), float(height))
        for place, height in zip(places[best].tolist(), heights[best], strict=True)
    ]


def _centre_of_mass(power: np.ndarray, rows: np.ndarray, columns: np.ndarray, i: int, j: int) -> tuple[float, float]:
    y, x = slice(i - 1, i + 2), slice(j - 1, j + 2)
    weight = power[y, x] / power[y, x].sum()
    return float(weight.sum(1) @ rows[y]), float(weight.sum(0) @ columns[x])


class Spectrum:
    """An image whose parts around reflections can be had, without what lies beyond its border."""

    def __init__(self, image: np.ndarray, longest_sigma: float) -> None:
        """``longest_sigma`` of the filters to come, in pixels."""
        self.shape = image.shape
        padded = [fft.next_fast_len(n + math.ceil(_REACH * longest_sigma)) for n in image.shape]
        self._transform = fft.fft2(image - image.mean(), s=padded)
        self._rows, self._columns = (fft.fftfreq(n) for n in padded)

    def part(self, reflection: np.ndarray, sigma: float) -> np.ndarray:
        """The complex part [rows, columns] around ``reflection``: its modulus is the amplitude of its fringes.

        A mean over neighbours, weighted by a Gaussian of ``sigma`` pixels, of the image times the reflection's wave;
        near the border over those inside.
        """
        y, x = (_gaussian(k - g, sigma) for k, g in zip((self._rows, self._columns), reflection, strict=True))
        return self._back(self._transform * y[:, None] * x, sigma)

    def local_reflection(self, reflection: np.ndarray, sigma: float) -> np.ndarray:
        """The frequency [2, rows, columns] that the fringes of ``reflection`` have at each place.

        That of the phase of ``part``, whose gradient follows from the Fourier transform without unwrapping; weighted
        means of ``sigma`` pixels.
        """
        y, x = (_gaussian(k - g, sigma) for k, g in zip((self._rows, self._columns), reflection, strict=True))
        around = self._transform * y[:, None] * x
        part = self._back(around, sigma)
        power = np.maximum(abs(part) ** 2, 1e-30)
        gradients = [
            self._back(around * (self._rows - reflection[0]).astype(np.float32)[:, None], sigma),
            self._back(around * (self._columns - reflection[1]).astype(np.float32), sigma),
        ]
        return np.stack([(g * part.conj()).real / power + r for g, r in zip(gradients, reflection, strict=True)])

    def _back(self, transform: np.ndarray, sigma: float) -> np.ndarray:
        rows, columns = self.shape
        inside_y, inside_x = (_share_inside(n, sigma) for n in self.shape)
        part: np.ndarray = fft.ifft2(transform)[:rows, :columns]
        return np.asarray(2 * part / inside_y[:, None] / inside_x)


def _gaussian(frequency: np.ndarray, sigma: float) -> np.ndarray:
    """The transform of a Gaussian of ``sigma`` pixels and unit sum."""
    return np.exp(-2 * (math.pi * sigma * frequency) ** 2).astype(np.float32)


def _share_inside(size: int, sigma: float) -> np.ndarray:
    """The share of a Gaussian at each of ``size`` pixels that lies inside."""
    place = np.arange(size)
    return np.asarray(ndtr((size - 0.5 - place) / sigma) - ndtr((-0.5 - place) / sigma), np.float32)


class Moments:
    """A weighted image, of which the Fourier transform is wanted at any frequency."""

    def __init__(self, image: np.ndarray, weights: np.ndarray) -> None:
        """``weights`` [rows, columns], 0 or more, not all of them 0."""
        kept = [np.flatnonzero(weights.any(axis)) for axis in (1, 0)]
        cut = tuple(slice(k[0], k[-1] + 1) for k in kept)
        weights = weights[cut].astype(float)
        self.total = float(weights.sum())
        self.mean = float((weights * image[cut]).sum() / self.total)
        self._weighted = weights * (image[cut] - self.mean)
        self._axes = [np.arange(n) - (n - 1) / 2 for n in weights.shape]
        self.width = float(min(self.total / n for n in weights.shape))

    def powers(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The power [n, m] at the frequencies ``rows`` [n] x ``columns`` [m], cycles per pixel."""
        y, x = (np.exp(-2j * np.pi * np.outer(k, axis)) for k, axis in zip((rows, columns), self._axes, strict=True))
        return np.asarray(abs(y @ self._weighted @ x.T) ** 2)

    def summit(self, near: np.ndarray) -> tuple[np.ndarray, float]:
        """The reflection [2] with the most power ``near`` another, and the amplitude of its fringes.

        The highest of a grid within the width of a peak, then Newton's method on the power, whose derivatives are
        moments of the image: d/dk of its transform is that of the image times -2 pi i r.
        """
        offsets = np.linspace(-_AWAY, _AWAY, 13) / self.width
        powers = self.powers(near[0] + offsets, near[1] + offsets)
        i, j = np.unravel_index(int(powers.argmax()), powers.shape)
        at = np.array([near[0] + offsets[i], near[1] + offsets[j]])
        grid, spacing = at, offsets[1] - offsets[0]
        for _ in range(_STEPS):
            _, gradient, hessian = self._derivatives(at)
            if hessian[0, 0] < 0 < np.linalg.det(hessian):
                at = np.clip(at - np.linalg.solve(hessian, gradient), grid - spacing, grid + spacing)
        value, *_ = self._derivatives(at)
        return at, 2 * math.sqrt(value) / self.total

    def _derivatives(self, at: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Power, its gradient [2] and second derivatives [2, 2] at a frequency."""
        waves = []
        for k, axis in zip(at, self._axes, strict=True):
            ramp = -2j * np.pi * axis
            waves.append(np.stack([np.ones_like(ramp), ramp, ramp**2]) * np.exp(ramp * k))
        m = waves[0] @ self._weighted @ waves[1].T
        f, fy, fx = m[0, 0], m[1, 0], m[0, 1]
        gradient = 2 * np.array([(f.conj() * fy).real, (f.conj() * fx).real])
        cross = 2 * (f.conj() * m[1, 1] + fy.conj() * fx).real
        hessian = np.array(
            [
                [2 * (abs(fy) ** 2 + (f.conj() * m[2, 0]).real), cross],
                [cross, 2 * (abs(fx) ** 2 + (f.conj() * m[0, 2]).real)],
            ]
        )
        return float(abs(f) ** 2), gradient, hessian
