"""Processes: what changes in a movie as a few parts, each with its place and its latent variables.

The maps of rho x variance of all latents are factored into parts that are nowhere negative. Before that, each value is
set against the noise floor of its latent, and its neighbourhood gives three values: how much it rises, how much it
falls, and how much it does either without the neighbours doing the same. Latents alternate within a crystal that turns
or shifts, where its lattice comes into and out of step; along an edge that grows they agree. There are as many parts as
half of the latents, in even frames, and the other half, in odd frames, agree on. docs/processes.md says what was tried.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.special import stdtrit
from threadpoolctl import threadpool_limits

from hrtemvae_hpc.statistics.factors import Factors, improve_factors, start_factors

REPRODUCIBLE = 0.5  # correlation of even and odd frames that a process has at least
_CHANCE = 0.001  # probability of its correlation by chance, at most
MOST = 6
SATURATION = 5  # noise floors at which a value counts half
_WIDTHS = 1.5, 2.0  # windows, of a neighbourhood: the one in which most parts agree is taken
_APART = 0.25  # windows between the samples that are factored, at least
_SAMPLES = 4000  # about, at most
_SPLITS = 12  # of the latents into halves, for each width
_AGREE = 0.8  # correlation of the parts that both halves find: the least of a split, median over splits
_KNOWN = 0.5  # share of a neighbourhood that must have maps
_ITERATIONS, _TRIED_ITERATIONS = 300, 100  # of the factors; the latter while their number is chosen


@dataclass(frozen=True)
class SignedMaps:
    """The maps that processes are found in."""

    read: Callable[[str, int], np.ndarray]  # rho x variance [rows, columns] of "all", "even" or "odd" frames, a latent
    noise: np.ndarray  # [latents], the noise floors
    known: np.ndarray  # [rows, columns] bool, which windows count; 0 in others

    def saturated(self, frames: str, latent: int) -> np.ndarray:
        """A map [rows, columns] float64 against the noise floor of its latent, between -1 and 1."""
        values = np.where(self.known, np.nan_to_num(self.read(frames, latent)), 0).astype(np.float64)
        return np.asarray(values / np.maximum(np.abs(values) + SATURATION * self.noise[latent], 1e-30))

    def reproducibility(self, place: np.ndarray, weights: np.ndarray) -> float:
        """The correlation of even with odd frames at a ``place`` [rows, columns], of its leading latents."""
        even, odd = (
            np.concatenate([self.saturated(frames, latent)[place] for latent in leading_latents(weights)])
            for frames in ("even", "odd")
        )
        return float(even @ odd / max(np.sqrt((even @ even) * (odd @ odd)), 1e-30))


@dataclass(frozen=True)
class Processes:
    """The processes of a movie, the one that changes most first."""

    maps: np.ndarray  # [processes, rows, columns] float32, 0 to 1; NaN where windows have no maps
    weights: np.ndarray  # [processes, latents] float32: shares of the latents, 1 in all
    direction: np.ndarray  # [processes, latents] float32: 1 where a latent rises throughout, -1 where it falls
    reproducibility: np.ndarray  # [processes] float32: correlation of even and odd frames at its place
    change: np.ndarray  # [processes] float32: how much changes, summed over windows and latents

    def __len__(self) -> int:
        return len(self.maps)


def place_of(part: np.ndarray) -> np.ndarray:
    """Where [rows, columns] a process is at least half as strong as at its strongest."""
    return np.asarray(part >= 0.5 * np.nanmax(part))


def leading_latents(weights: np.ndarray) -> np.ndarray:
    """The fewest latents that make half of a process, by their ``weights`` [latents]."""
    order = np.argsort(-weights)
    return order[: 1 + int((np.cumsum(weights[order]) < 0.5).sum())]


def find_processes(signed: SignedMaps, windows_wide: float) -> Processes:
    """Processes in maps of windows of which ``windows_wide`` begin within the width of one.

    A part is no process if it is not reproducible, as in a movie of noise, or may be by chance, as few latents in a
    small place often are.
    """
    samples = _Samples(signed, windows_wide)
    if samples.count <= MOST or not samples.features("all", _WIDTHS[0]).any():
        return no_processes(len(signed.noise), signed.known.shape)
    with threadpool_limits(1):  # the same bits for any number of threads
        count, width = _choose(samples)
        features = samples.features("all", width)[None]
        factors = improve_factors(features, start_factors(features, count), _ITERATIONS)
        places, kinds = factors.rows[0].astype(np.float64), factors.columns[0].astype(np.float64).reshape(count, 3, -1)
        change = places.sum(1) * kinds.sum((1, 2))
        order = np.argsort(-change)
        maps, kinds = np.stack([samples.spread(places[i]) for i in order]), kinds[order]
        total = np.maximum(kinds.sum(1), 1e-12)
        weights = total / total.sum(1, keepdims=True)
        direction = (kinds[:, 0] - kinds[:, 1]) / total
        sure = np.array([signed.reproducibility(place_of(m), w) for m, w in zip(maps, weights, strict=True)])
    kept = sure >= [max(REPRODUCIBLE, _by_chance(m, w, windows_wide)) for m, w in zip(maps, weights, strict=True)]
    return processes_of(maps[kept], weights[kept], direction[kept], sure[kept], change[order][kept])


def _by_chance(part: np.ndarray, weights: np.ndarray, windows_wide: float) -> float:
    """The correlation of even with odd frames that is exceeded by chance in a share ``_CHANCE`` of cases.

    By Student's t, of as many values as there are leading latents, times windows that fit side by side into the place.
    """
    place = place_of(part)
    height, width = (min(max(windows_wide, 1.0), place.any(axis).sum()) for axis in (1, 0))
    degrees = max(1.0, place.sum() / (height * width)) * len(leading_latents(weights)) - 1
    t = stdtrit(degrees, 1 - _CHANCE) if degrees > 0 else np.inf
    return float(1 / np.sqrt(1 + degrees / t**2))


def no_processes(latents: int, shape: tuple[int, ...]) -> Processes:
    """None, of maps of ``shape``."""
    empty = np.zeros((0, latents))
    return processes_of(np.zeros((0, *shape)), empty, empty, np.zeros(0), np.zeros(0))


def processes_of(*values: Sequence[Any] | np.ndarray) -> Processes:
    """Processes with these ``values``, in the order of their fields, as float32."""
    return Processes(*(np.asarray(each, np.float32) for each in values))


class _Samples:
    """Neighbourhoods of windows, at places that lie some windows apart."""

    def __init__(self, signed: SignedMaps, windows_wide: float) -> None:
        self._signed, self._wide = signed, windows_wide
        known = signed.known
        apart = max(1, round(_APART * windows_wide), round((known.size / _SAMPLES) ** 0.5))
        self._rows, self._columns = (np.arange(apart // 2, n, apart) for n in known.shape)
        self._used = self._taken(self._mean(known.astype(np.float64), _WIDTHS[0])) >= _KNOWN

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._used.sum())

    @property
    def latents(self) -> int:
        """Of how many latents."""
        return len(self._signed.noise)

    def features(self, frames: str, width: float) -> np.ndarray:
        """How much each latent rises, falls and does either against its neighbours [samples, 3 * latents] float32."""
        share = self._taken(self._mean(self._signed.known.astype(np.float64), width))[self._used]
        found = np.empty((self.count, 3, self.latents), np.float32)
        for latent in range(self.latents):
            values = self._signed.saturated(frames, latent)
            mean, size = (self._taken(self._mean(v, width))[self._used] / share for v in (values, np.abs(values)))
            found[:, :, latent] = np.maximum([mean, -mean, size - np.abs(mean)], 0).T
        return found.reshape(self.count, -1)

    def spread(self, part: np.ndarray) -> np.ndarray:
        """A part's values of the samples as a map [rows, columns] of all windows, 1 at its largest."""
        samples = np.zeros(self._used.shape)
        samples[self._used] = part / max(part.max(), 1e-30)
        every_row, every_column = map(np.arange, self._signed.known.shape)
        along = np.stack([np.interp(every_row, self._rows, column) for column in samples.T], 1)
        whole = np.stack([np.interp(every_column, self._columns, row) for row in along])
        return np.where(self._signed.known, whole, np.nan)

    def _mean(self, values: np.ndarray, width: float) -> np.ndarray:
        return np.asarray(uniform_filter(values, max(1, round(width * self._wide)), mode="nearest"))

    def _taken(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values[np.ix_(self._rows, self._columns)])


@dataclass(frozen=True)
class _Halves:
    """Features of half of the latents in even frames, and of the other half in odd frames, for each split of them."""

    features: tuple[np.ndarray, np.ndarray]  # [splits, samples, features] each
    start: tuple[Factors, Factors]

    @classmethod
    def of(cls, samples: _Samples, width: float, most: int) -> "_Halves":
        """In neighbourhoods of ``width``, to be factored into at most ``most`` parts."""
        half = samples.latents // 2
        even, odd = (samples.features(name, width).reshape(samples.count, 3, -1) for name in ("even", "odd"))
        orders = [np.random.default_rng(split).permutation(samples.latents) for split in range(_SPLITS)]
        first = np.stack([even[:, :, order[:half]].reshape(samples.count, -1) for order in orders])
        second = np.stack([odd[:, :, order[half:]].reshape(samples.count, -1) for order in orders])
        return cls((first, second), (start_factors(first, most), start_factors(second, most)))

    def agreement(self, parts: int) -> float:
        """The least correlation of a pair of parts that both find, matched as well as possible: median of splits."""
        from scipy.optimize import linear_sum_assignment  # takes a while to load

        both = []
        for features, start in zip(self.features, self.start, strict=True):
            found = improve_factors(features, start.leading(parts), _TRIED_ITERATIONS).rows.astype(np.float64)
            found -= found.mean(2, keepdims=True)
            both.append(found / np.maximum(found.std(2, keepdims=True), 1e-12))
        correlations = both[0] @ both[1].transpose(0, 2, 1) / both[0].shape[2]
        return float(np.median([each[linear_sum_assignment(-each)].min() for each in correlations]))


def _choose(samples: _Samples) -> tuple[int, float]:
    """The most parts that half of the latents in even frames and the other half in odd frames find alike.

    And in which width of the neighbourhood they do best.
    """
    most = min(MOST, samples.latents // 4, samples.count - 1)  # at least two latents of each half per part
    if most < 2:
        return 1, _WIDTHS[0]
    halves = {width: _Halves.of(samples, width, most) for width in _WIDTHS}
    best, width, failed = 1, _WIDTHS[0], 0
    for parts in range(2, most + 1):
        agreement, better = max((of_width.agreement(parts), tried) for tried, of_width in halves.items())
        if agreement >= _AGREE:
            best, width, failed = parts, better, 0
        else:  # fewer parts may be mixtures of more that agree
            failed += 1
        if failed == 2:
            break
    return best, width
