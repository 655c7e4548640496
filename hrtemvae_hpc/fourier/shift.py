"""By how much one image is shifted against another, from their cross-correlation.

Everything is computed by numpy and scipy.fft on one thread, so that the same images give the same bits everywhere.
Phase correlation would be no substitute: it gives the noise of empty frequencies the weight of the lattice.
"""

import math
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Image = NDArray[np.float32]
Spectrum = NDArray[np.complex64]

LOW_PASS = 0.125  # cycles per pixel: sigma of the Gaussian that keeps noise out
HIGH_PASS = 1 / 48  # cycles per pixel: sigma of the Gaussian that keeps out what the detector and the beam hold still
_CLIPPED_SIGMAS = 4.0
_PRIOR = 1 / 8  # of the shorter side: standard deviation of the shifts that are expected from frame to frame
REDUCED = 2  # pixels along each side of an image that are one of its band-passed image
_AROUND = 8  # pixels about the highest peak of whole images within which the right one lies
_NEAR = 1.5  # pixels about the shift of the whole within which that of a patch is searched for
_FINE = 4  # values of the correlation per pixel there
_REACH = int(_FINE * _NEAR) + 1  # values on each side, one more than is searched
_SIGNIFICANT = 6.0  # standard deviations of the correlation of noise


class Shift(NamedTuple):
    """How much further down and right an image shows what another shows (pixels), and their correlation there."""

    dy: float
    dx: float
    quality: float


def band_pass(image: Image) -> tuple[Image, NDArray[np.float64]]:
    """``image`` [rows, columns] without noise and slow changes, mean 0 and deviation 1; and its radial power.

    It has half the rows and columns: what finer pixels could show, the filter leaves little of. The pixels of ``image``
    are first clamped to the range of their four neighbours (conservative smoothing), which removes hot and dead pixels
    wherever they are. It is continued by reflection: the cosine transform knows no jump at the border. An image that is
    flat gives zeros. The radial power [rings] is the mean per ring of 1/256 cycles per pixel.
    """
    rows, columns = (n // REDUCED for n in image.shape)
    clamped = _clamp(image[: REDUCED * rows, : REDUCED * columns])
    mean, deviation = float(clamped.mean(dtype=np.float64)), float(clamped.std(dtype=np.float64))
    limit = _CLIPPED_SIGMAS * deviation
    spectrum = fft.dctn(np.clip(clamped - np.float32(mean), -limit, limit).astype(np.float32), norm="ortho")
    gain, ring, pixels = _filter(*clamped.shape)
    power = np.bincount(ring.ravel(), np.square(spectrum, dtype=np.float64).ravel()) / pixels
    filtered = fft.idctn(spectrum[:rows, :columns] * gain[:rows, :columns], norm="ortho")
    filtered -= filtered.mean(dtype=np.float64)
    scale = float(filtered.std(dtype=np.float64))
    return (filtered / np.float32(scale) if scale > 0 else np.zeros_like(filtered)), power


def spectrum_of(image: Image) -> Spectrum:
    """The spectrum of the tapered ``image``, scaled so that the correlation of two of them lies in -1..1."""
    return _normalised(image * _taper(*image.shape))


def find_shift(reference: Spectrum, moved: Spectrum, shape: tuple[int, int], expected: tuple[float, float]) -> Shift:
    """The shift in half pixels of one whole image against another, near ``expected``.

    The farther a peak is from what is expected, the higher it must be, so that one a lattice vector away loses. At
    whole pixels the right peak of a fine lattice may be missed, and another met: all peaks near the highest are
    compared at half pixels.
    """
    product = np.conj(reference) * moved
    offsets = [fft.fftfreq(n, 1 / n) for n in shape]
    coarse = fft.irfft2(product, s=shape) * _prior(offsets, shape, expected)
    summit = np.unravel_index(np.argmax(coarse), shape)
    near = [axis[i] + _half_pixels(n) for axis, i, n in zip(offsets, summit, shape, strict=True)]
    by_row, by_column = _waves(shape, near[0], near[1])
    fine = np.asarray((by_row @ product @ by_column).real, np.float32)
    row, column = np.unravel_index(np.argmax(fine * _prior(near, shape, expected)), fine.shape)
    return Shift(float(near[0][row]), float(near[1][column]), float(fine[row, column]))


def _half_pixels(size: int) -> NDArray[np.float64]:
    """Shifts about a peak, of which none is another one's copy along a side of so many pixels."""
    most = min(2 * _AROUND, size - 1)
    return np.arange(-most, most + 1) / 2


def _prior(offsets: list[NDArray[np.float64]], shape: tuple[int, int], expected: tuple[float, float]) -> Image:
    """Weights [rows, columns] of shifts by ``offsets`` (down, right), which are periodic with ``shape``."""
    spread = _PRIOR * min(shape)
    rows, columns = (
        np.exp(-(((o - e + n / 2) % n - n / 2) ** 2) / (2 * spread**2)).astype(np.float32)
        for o, e, n in zip(offsets, expected, shape, strict=True)
    )
    weights: Image = rows[:, None] * columns
    return weights


@cache
def least_quality(shape: tuple[int, int]) -> float:
    """The quality that noise hardly reaches: some standard deviations of the correlation of white noise.

    For band-passed images of ``shape``.
    """
    rows, columns = shape
    gain, _, _ = _filter(REDUCED * rows, REDUCED * columns)
    squared = np.square(gain[:rows, :columns], dtype=np.float64)
    taper = np.square(_taper(*shape), dtype=np.float64)
    cells = np.square(squared).sum() / np.square(squared.sum()) * np.square(taper).mean() / np.square(taper.mean())
    return min(0.5, _SIGNIFICANT * math.sqrt(cells))


class Patches:
    """Squares of an image, each shifted by itself: what moves on its own in a few doesn't move the rest."""

    def __init__(self, image: Image) -> None:
        """Cover ``image`` with overlapping squares of an eighth of the longer side, or 32 pixels."""
        self._image = image
        self.side = min(*image.shape, max(32, max(image.shape) // 8)) // 2 * 2
        tops, lefts = (self._starts(n) for n in image.shape)
        self.corners = [(y, x) for y in tops for x in lefts]

    def _starts(self, size: int) -> list[int]:
        count = max(1, round(1.5 * size / self.side))
        return [int(s) for s in np.linspace(0, size - self.side, count)]

    @cached_property
    def _unmoved(self) -> Spectrum:
        return self._spectra(self.corners)

    def shifts(self, moved: "Patches", whole: Shift) -> NDArray[np.float32]:
        """Down, right and quality [patches, 3] of how far each is shifted in ``moved``, close to the ``whole`` image.

        A patch that leaves the image, or has no peak there, has quality 0. The peak is that of a paraboloid through
        3 x 3 values of the correlation, taken four times per pixel.
        """
        found = np.zeros((len(self.corners), 3), np.float32)
        dy, dx = round(whole.dy), round(whole.dx)
        height, width = self._image.shape
        inside = [
            i
            for i, (y, x) in enumerate(self.corners)
            if 0 <= y + dy <= height - self.side and 0 <= x + dx <= width - self.side
        ]
        if not inside:
            return found
        one, other = self._unmoved, moved._unmoved
        if (dy, dx) != (0, 0):
            one, other = (
                one[inside],
                moved._spectra([(y + dy, x + dx) for y, x in map(self.corners.__getitem__, inside)]),
            )
        by_row, by_column = _near_waves(self.side)
        surfaces = np.asarray((by_row @ (np.conj(one) * other) @ by_column).real, np.float32)
        y, x, quality = summits(surfaces)
        found[inside] = np.stack([dy + (y - _REACH) / _FINE, dx + (x - _REACH) / _FINE, quality], 1)
        return found

    def _spectra(self, corners: list[tuple[int, int]]) -> Spectrum:
        cut = np.stack([self._image[y : y + self.side, x : x + self.side] for y, x in corners])
        return _normalised((cut - cut.mean((1, 2), keepdims=True)) * _taper(self.side, self.side))


def summits(surfaces: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Row, column and height [n] of the highest point of each of ``surfaces`` [n, rows, columns], float64.

    The paraboloid is the least-squares fit to 3 x 3 values. Where the highest value lies at the border, or the
    paraboloid's summit not within a pixel, the height is 0.
    """
    n, rows, columns = surfaces.shape
    row, column = np.unravel_index(surfaces.reshape(n, -1).argmax(1), (rows, columns))
    inside = (row > 0) & (row < rows - 1) & (column > 0) & (column < columns - 1)
    middle_row, middle_column = row.clip(1, rows - 2), column.clip(1, columns - 2)
    step = np.arange(-1, 2)
    values = surfaces[np.arange(n)[:, None, None], middle_row[:, None, None] + step[:, None],
                      middle_column[:, None, None] + step].astype(np.float64)  # fmt: skip
    by_row, by_column = values.sum(2), values.sum(1)
    gy, gx = (by_row[:, 2] - by_row[:, 0]) / 6, (by_column[:, 2] - by_column[:, 0]) / 6
    gyy, gxx = (by_row @ (1, -2, 1)) / 3, (by_column @ (1, -2, 1)) / 3
    gxy = (values[:, 0, 0] + values[:, 2, 2] - values[:, 0, 2] - values[:, 2, 0]) / 4
    determinant = gyy * gxx - gxy**2
    curved = inside & (determinant > 0) & (gyy < 0)
    safe = np.where(curved, determinant, 1.0)
    y, x = (gxy * gx - gxx * gy) / safe, (gxy * gy - gyy * gx) / safe
    curved &= (abs(y) <= 1) & (abs(x) <= 1)
    return (middle_row + np.where(curved, y, 0), middle_column + np.where(curved, x, 0),
            np.where(curved, values[:, 1, 1].clip(0, 1), 0))  # fmt: skip


def shifted(image: Image, dy: float, dx: float) -> Image:
    """``image`` further down and right, by the Fourier shift theorem; what would come in from opposite is 0."""
    fy, fx = fft.fftfreq(image.shape[0])[:, None], fft.rfftfreq(image.shape[1])
    ramp = (np.exp(-2j * np.pi * fy * dy) * np.exp(-2j * np.pi * fx * dx)).astype(np.complex64)
    result: Image = fft.irfft2(fft.rfft2(image) * ramp, s=image.shape)
    for axis, shift in enumerate((dy, dx)):
        outside = math.ceil(abs(shift))
        if outside:
            edge = slice(0, outside) if shift > 0 else slice(-outside, None)
            result[(edge, slice(None)) if axis == 0 else (slice(None), edge)] = 0
    return result


def _normalised(images: Image) -> Spectrum:
    """Spectra [..., rows, columns // 2 + 1] of images of unit energy, whose products irfft2 turns into correlations."""
    energy = np.einsum("...ij,...ij->...", images, images)[..., None, None]
    scale = np.divide(1, np.sqrt(energy), out=np.zeros_like(energy), where=energy > 0)
    result: Spectrum = fft.rfft2(images * scale)
    return result


def _clamp(image: Image) -> Image:
    around = np.pad(image, 1, mode="reflect")
    sides = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
    low, high = sides[0].copy(), sides[0].copy()
    for side in sides[1:]:
        np.minimum(low, side, out=low)
        np.maximum(high, side, out=high)
    clamped: Image = np.minimum(np.maximum(image, low), high)
    return clamped


@cache
def _near_waves(side: int) -> tuple[Spectrum, Spectrum]:
    """``_waves`` near the origin of a square image, at ``_FINE`` places per pixel."""
    places = np.arange(-_REACH, _REACH + 1) / _FINE
    return _waves((side, side), places, places)


def _waves(shape: tuple[int, int], y: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[Spectrum, Spectrum]:
    """What turns a spectrum [rows, columns // 2 + 1] of an image of ``shape`` into its values at ``y`` and ``x``.

    The inverse transform as two products of matrices [y, rows] and [columns // 2 + 1, x], of which the real part
    counts: few values of a transform are had faster in this way. Without Nyquist's frequency.
    """
    (rows, columns), frequencies = shape, (fft.fftfreq(shape[0]), fft.rfftfreq(shape[1]))
    by_row = np.exp(2j * np.pi * y[:, None] * frequencies[0]) * (abs(frequencies[0]) < 0.5) / rows
    weights = np.where(frequencies[1] == 0, 1, 2) * (frequencies[1] < 0.5)  # columns stand for their conjugates too
    by_column = np.exp(2j * np.pi * frequencies[1][:, None] * x) * weights[:, None] / columns
    return by_row.astype(np.complex64), by_column.astype(np.complex64)


@cache
def _filter(rows: int, columns: int) -> tuple[Image, NDArray[np.intp], NDArray[np.float64]]:
    """The band-pass's gain, each coefficient's ring, and how many lie in each."""
    fy, fx = np.arange(rows)[:, None] / (2 * rows), np.arange(columns) / (2 * columns)
    squared = fy**2 + fx**2
    gain = np.exp(-squared / (2 * LOW_PASS**2)) * (1 - np.exp(-squared / (2 * HIGH_PASS**2)))
    ring = np.floor(np.sqrt(squared) * 256).astype(np.intp)
    return gain.astype(np.float32), ring, np.bincount(ring.ravel()).clip(1).astype(np.float64)


@cache
def _taper(rows: int, columns: int) -> Image:
    window = [0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in (rows, columns)]
    return np.asarray(window[0][:, None] * window[1], np.float32)
