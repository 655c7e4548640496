"""Lattices followed from frame to frame: their reflections and areas in each."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from hrtemvae_hpc.interpretation.areas import NOWHERE, filter_sigmas, find_areas, inner_weights, lowest_frequency
from hrtemvae_hpc.interpretation.lattices import find_lattices
from hrtemvae_hpc.interpretation.spectra import Moments, Spectrum, find_peaks, noise_around

_ROUNDS = 2  # of areas by reflections, and reflections by areas
_TAPER = 0.75  # periods over which the weights of a lattice's pixels rise from its edge
_SMALLEST = 6.0  # square periods of a lattice
_REFUSED = 2  # candidates without an area, one after the other, after which weaker ones aren't tried
_SAME = 0.01  # of its length, by which two reflections are one


@dataclass(frozen=True)
class Measured:
    """The lattices of one image."""

    reflections: list[np.ndarray]  # [1 or 2, 2] of each, cycles per pixel
    amplitudes: list[np.ndarray]  # [1 or 2] of their fringes, counts; 0 where the lattice was not found
    labels: np.ndarray  # [rows, columns] int8, the lattice at each pixel or NOWHERE
    level: float  # mean counts

    @property
    def areas(self) -> list[int]:
        """The pixels of each lattice."""
        return [int((self.labels == i).sum()) for i in range(len(self.reflections))]


def measure_lattices(image: np.ndarray, near: Sequence[np.ndarray]) -> Measured:
    """The lattices of ``image`` [rows, columns] float32 whose reflections lie ``near`` those given.

    Areas follow from reflections, and these, as the peaks of the Fourier transform of the area alone, from areas, until
    both agree. Changes of brightness over more than a period are taken out before. Reflections of a lattice without an
    area stay as they are.
    """
    current = list(near)
    amplitudes = [np.zeros(len(g)) for g in near]
    noise = noise_around(image, near)
    labels = np.full(image.shape, NOWHERE, np.int8)
    flat = image - gaussian_filter(image, 1 / lowest_frequency(near), mode="nearest") if current else image
    for _ in range(_ROUNDS if current else 0):
        labels = find_areas(Spectrum(flat, filter_sigmas(current, image.shape)[1]), current, noise)
        taper = _TAPER / lowest_frequency(current)
        for i, reflections in enumerate(current):
            inside = labels == i
            amplitudes[i] = np.zeros(len(reflections))
            if inside.any():
                moments = Moments(flat, inner_weights(inside, taper))
                summits = [moments.summit(reflection) for reflection in reflections]
                current[i] = np.array([at for at, _ in summits])
                amplitudes[i] = np.array([height for _, height in summits])
    return Measured(current, amplitudes, labels, float(image.mean()))


def discover(image_at: Callable[[int], np.ndarray], count: int) -> list[np.ndarray]:
    """The lattices of ``count`` images in the order of time, each as its reflections [count, 1 or 2, 2].

    What is found in one image is followed to the others, forwards and backwards from the one with the most peaks: so a
    lattice may appear or vanish, and lattices whose peaks merge are still told apart by where they are.
    """
    tracks: list[np.ndarray] = []
    visited: set[int] = set()
    start = max(range(count), key=lambda at: len(find_peaks(image_at(at))))
    for sweep in (range(start, count), range(count - 1, -1, -1), range(count)):
        previous = start
        for at in sweep:
            missing = [track for track in tracks if np.isnan(track[at]).any()]
            if at not in visited or missing:
                image = image_at(at)
                for track in missing:
                    track[at] = track[previous]
                current = [track[at] for track in tracks]
                measured = measure_lattices(image, current)
                for lattice in _new(image, measured) if at not in visited else ():
                    tracks.append(np.full((count, *lattice.shape), np.nan))
                    measured = measure_lattices(image, [*measured.reflections, lattice])
                for track, reflections in zip(tracks, measured.reflections, strict=True):
                    track[at] = reflections
                visited.add(at)
            previous = at
    return _distinct(tracks)


def _distinct(tracks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``tracks`` without those that came to be another one's in most images."""
    kept: list[np.ndarray] = []
    for track in tracks:
        if not any(np.mean([_same(a, b) for a, b in zip(track, other, strict=True)]) > 0.5 for other in kept):
            kept.append(track)
    return kept


def _new(image: np.ndarray, known: Measured) -> Iterator[np.ndarray]:
    """Lattices of ``image`` with an area of their own that are not ``known``; the weakest aren't all tried."""
    before = [(g, 1 / math.sqrt(n) if n else 0.0) for g, n in zip(known.reflections, known.areas, strict=True)]
    accepted = list(known.reflections)
    refused = 0
    for lattice in find_lattices(image, before):
        if refused == _REFUSED:
            return
        tried = measure_lattices(image, [*accepted, lattice])
        found = tried.reflections[-1]
        if tried.areas[-1] * np.hypot(*found[0]) ** 2 >= _SMALLEST and not any(_same(found, g) for g in accepted):
            accepted.append(found)
            refused = 0
            yield found
        else:
            refused += 1


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether all reflections of ``one`` lie at those of ``other``, or opposite."""
    distances = [min(np.hypot(*(sign * g - h)) for h in other for sign in (1, -1)) / np.hypot(*g) for g in one]
    return bool(max(distances) < _SAME)
