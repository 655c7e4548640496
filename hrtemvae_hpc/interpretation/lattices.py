"""Lattices of an image: reflections that belong together."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from hrtemvae_hpc.interpretation.spectra import Peak, Spectrum, find_peaks

_TOLERANCE = 0.03  # of a reflection's length, by which it may miss its place in a lattice
_MISSED = 0.75  # widths of a peak by which it may
_CROSSED = math.sin(math.radians(20))  # sine of the least angle between a lattice's reflections
_TOGETHER = 0.6  # overlap of two reflections' amplitudes if they are of one crystal
_NEARLY = 0.85  # of the largest overlap
_STRONG = 0.1  # of the strongest reflection's power that those of a basis have
_APART = 0.35  # sigma of the filter that tells reflections apart, times their distance
_LONGEST = 0.15  # of that filter, sides of the image
_PLACES = 128  # along a side, at which amplitudes are compared
_INDEX = 4  # the highest, of reflections that are recognised
_MOST = 8


def find_lattices(image: np.ndarray, known: Sequence[tuple[np.ndarray, float]] = ()) -> list[np.ndarray]:
    """Lattices in ``image`` [rows, columns] that are not known, each its reflections [1 or 2, 2], strongest first.

    ``known`` are reflections, and how wide their lattice's extent makes their peaks, in cycles per pixel. Reflections
    belong together if their fringes lie at the same places; of those two strong ones with long spacings are returned.
    Peaks that are sums of known reflections are no lattice. Whether a lattice has an area of its own, or is the tail of
    another's peak, isn't asked here.
    """
    pixel = 1 / min(image.shape)
    peaks = [p for p in find_peaks(image) if not any(_explains(g, p, max(pixel, width)) for g, width in known)]
    amplitudes = _amplitudes(image, [p.place for p in peaks])
    found: list[np.ndarray] = []
    left = list(range(len(peaks)))
    while left and len(known) + len(found) < _MOST:
        lattice = _basis([peaks[i] for i in left], [amplitudes[i] for i in left], pixel)
        left = [i for i in left[1:] if not _explains(lattice, peaks[i], pixel)]
        found.append(lattice)
    return found


def _basis(peaks: Sequence[Peak], amplitudes: Sequence[np.ndarray], width: float) -> np.ndarray:
    """Reflections [1 or 2, 2] of the lattice that the first of ``peaks`` belongs to, with much power and low g."""
    overlaps = np.array([np.minimum(amplitudes[0], a).sum() / np.maximum(amplitudes[0], a).sum() for a in amplitudes])
    crossing = [i for i, peak in enumerate(peaks) if _crossed(peaks[0], peak)]
    least = max(_TOGETHER, _NEARLY * max((overlaps[i] for i in crossing), default=1.0))
    family = [p for p, o in zip(peaks, overlaps, strict=True) if o >= least and p.power >= _STRONG * peaks[0].power]
    family.sort(key=lambda peak: -peak.power / float((peak.place**2).sum()))
    for one, other in itertools.combinations(family, 2):
        basis = np.array([one.place, other.place])
        if _crossed(one, other) and _explains(basis, peaks[0], width):
            return basis
    return peaks[0].place[None]


def _crossed(one: Peak, other: Peak) -> bool:
    lengths = np.hypot(*one.place) * np.hypot(*other.place)
    return bool(abs(np.linalg.det([one.place, other.place])) >= _CROSSED * lengths)


def _amplitudes(image: np.ndarray, peaks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """How strong the fringes of each peak are at some places, in units of their mean."""
    longest = _LONGEST * min(image.shape)
    step = -(-min(image.shape) // _PLACES)
    spectrum = Spectrum(image, longest)
    amplitudes = []
    for i, peak in enumerate(peaks):
        nearest = min((float(np.hypot(*(peak - p))) for j, p in enumerate(peaks) if j != i), default=1.0)
        sigma = min(longest, max(1 / np.hypot(*peak), _APART / nearest))
        amplitude = abs(spectrum.part(peak, sigma)[::step, ::step])
        amplitudes.append(amplitude / amplitude.mean())
    return amplitudes


def _explains(lattice: np.ndarray, peak: Peak, width: float) -> bool:
    """Whether ``peak`` is a sum of a lattice's reflections, or of their halves."""
    tolerance = max(_TOLERANCE * np.hypot(*peak.place), _MISSED * width)
    halves = np.arange(-2 * _INDEX, 2 * _INDEX + 1) / 2
    indices = np.array(list(itertools.product(halves, repeat=len(lattice))))
    return bool(np.hypot(*(indices @ lattice - peak.place).T).min() < tolerance)
