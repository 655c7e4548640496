"""Where in an image each lattice lies: by filtering its reflections and a threshold."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from skimage.morphology import remove_small_holes, remove_small_objects

from hrtemvae_hpc.interpretation.spectra import Spectrum

NOWHERE = -1
LOST, GAINED, KEPT = 1, 2, 3
_SIGMA = 0.6  # periods: of the filter that finds the edge of a lattice
_APART = 0.16  # sigma of the filter that tells lattices apart, times the distance of their reflections
_LONGEST = 0.15  # of that filter, sides of the image
_ALIKE = 1e-2  # added to the overlap of filters, so that equal reflections can be told apart no worse than at random
_NOISES = 3.0  # times the noise that a lattice must exceed
_ROUNDS = 4  # of estimating a lattice's level
_OUTSIDE = 2.0  # sigmas from any lattice beyond which there is only background
_SMALLEST = 4.0  # square periods: a lattice is no smaller, nor is a hole in it


def lowest_frequency(lattices: Sequence[np.ndarray]) -> float:
    """The least distance from the centre of all reflections."""
    return float(min(np.hypot(*g.T).min() for g in lattices))


def filter_sigmas(lattices: Sequence[np.ndarray], shape: tuple[int, ...]) -> tuple[float, float]:
    """Sigmas in pixels of the filter that finds edges and of the one that tells ``lattices`` apart."""
    sigma = _SIGMA / lowest_frequency(lattices)
    distances = [
        float(np.hypot(*(sign * one - other)))
        for i, first in enumerate(lattices)
        for second in lattices[:i]
        for one in first
        for other in second
        for sign in (1, -1)
    ]
    apart = _APART / max(min(distances, default=1.0), 1e-6)
    return sigma, max(sigma, min(apart, _LONGEST * min(shape)))


def find_areas(spectrum: Spectrum, lattices: Sequence[np.ndarray], noise: np.ndarray) -> np.ndarray:
    """The lattice at each pixel [rows, columns] int8, NOWHERE without one.

    ``lattices`` are reflections [1 or 2, 2] each; ``noise`` [lattices] is the standard deviation that white noise would
    have if it were as strong as the image's is around their reflections.

    A pixel belongs to the lattice whose fringes are the strongest there, relative to the lattice's level, where they
    exceed half the level: this is where the edge of a crystal lies, however wide the filter. The level is the median
    amplitude well within the lattice's own area. Amplitudes are taken without the background's. A lattice whose fringes
    are nowhere the strongest, before they are related to its level, is nowhere.
    """
    narrow, wide = filter_sigmas(lattices, spectrum.shape)
    power = np.stack([_power(np.stack([spectrum.part(g, narrow) for g in lattice])) for lattice in lattices])
    broad = np.sqrt(np.stack(_unmixed_powers(spectrum, lattices, wide)))
    floors = _NOISES * noise / (math.sqrt(math.pi) * narrow)  # of a mean over a Gaussian; times 2 as in ``part``
    levels = np.array([np.percentile(np.sqrt(p), 95) for p in power])
    broad_levels = np.ones(len(lattices))
    background = 0.0
    labels = np.full(spectrum.shape, NOWHERE, np.int8)
    for _ in range(_ROUNDS):
        winner = (broad / broad_levels[:, None, None]).argmax(0)
        sharp = np.sqrt(np.maximum(power - background, 0))
        labels[:] = NOWHERE
        for i, amplitude in enumerate(sharp):
            inside = (winner == i) & (amplitude > max(levels[i] / 2, floors[i]))
            within = eroded(inside, narrow)
            if within.any():
                labels[inside] = i
                levels[i], broad_levels[i] = np.median(amplitude[within]), np.median(broad[i][within])
            else:
                broad_levels[i] = np.inf
        outside = eroded(labels == NOWHERE, _OUTSIDE * narrow)
        background = float(power.min(0)[outside].mean()) if outside.any() else 0.0
    return _without_specks(labels, lattices)


def _unmixed_powers(spectrum: Spectrum, lattices: Sequence[np.ndarray], sigma: float) -> list[np.ndarray]:
    """The power [rows, columns] of the fringes of each lattice, without what passes from others through its filter.

    A filter of ``sigma`` pixels lets a Gaussian share of a reflection nearby through, the same at all places: the
    amplitudes of all reflections follow from their filtered parts by the inverse of the matrix of these shares.
    """
    reflections = np.vstack(lattices)
    distances = np.hypot(*np.moveaxis(reflections[:, None] - reflections[None], -1, 0))
    shares = np.exp(-2 * (math.pi * sigma * distances) ** 2) + _ALIKE * np.eye(len(reflections))
    parts = np.stack([spectrum.part(reflection, sigma) for reflection in reflections])
    unmixed = np.tensordot(np.linalg.inv(shares).astype(np.float32), parts, 1)
    borders = np.cumsum([len(lattice) for lattice in lattices])[:-1]
    return [_power(own) for own in np.split(unmixed, borders)]


def _power(parts: np.ndarray) -> np.ndarray:
    """The mean power [rows, columns] of complex ``parts`` [n, rows, columns]."""
    return np.asarray((abs(parts) ** 2).mean(0))


def eroded(inside: np.ndarray, margin: float) -> np.ndarray:
    """The pixels [rows, columns] whose square of ``margin`` around them lies ``inside``, and in the image."""
    side = 2 * math.ceil(margin) + 1
    return np.asarray(ndimage.minimum_filter(inside.view(np.uint8), side, mode="constant").astype(bool))


def _without_specks(labels: np.ndarray, lattices: Sequence[np.ndarray]) -> np.ndarray:
    cleaned = np.full_like(labels, NOWHERE)
    for i, reflections in enumerate(lattices):
        smallest = int(_SMALLEST / np.hypot(*reflections.T).min() ** 2)
        inside = remove_small_objects(labels == i, max_size=smallest)
        holes = remove_small_holes(inside, max_size=smallest) & (labels == NOWHERE)
        cleaned[inside | holes] = i
    return cleaned


def inner_weights(inside: np.ndarray, taper: float) -> np.ndarray:
    """Weights [rows, columns] of the pixels ``inside`` that rise from its edge over ``taper`` pixels to 1."""
    distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]  # the image's border is an edge too
    return np.asarray(np.sin(np.pi / 2 * np.minimum(distance / taper, 1)) ** 2, np.float32)


def change_of(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """What became of a lattice [rows, columns] uint8: 0 where it never was, else LOST, GAINED or KEPT."""
    return np.asarray(LOST * (first & ~last) + GAINED * (~first & last) + KEPT * (first & last), np.uint8)
