"""A process over time: how far its latents have come, and when they change."""

from dataclasses import dataclass

import numpy as np

_LAG = 1 / 8  # of the movie, the longest over which latents are compared
_ACTIVE = 0.5  # of the largest rate, from which on a process happens


@dataclass(frozen=True)
class Course:
    """When a process happens. Bins are those of the series."""

    series: np.ndarray  # [bins] how far it has come, in standard deviations of one frame's noise, its mean 0
    start: int  # the first and the last bin in which it changes at least half as fast as at its fastest; -1 if unknown
    end: int


def course_of(series: np.ndarray, share: np.ndarray, noise: np.ndarray, frames_per_bin: int) -> Course:
    """The course of a process from the ``series`` [n, bins] of its latents at its windows; NaN where unknown.

    ``share`` [n]: how much each follows time, with its direction, for a mean in which those that rise and those that
    fall add up. ``noise`` [n]: its noise floor, the variance of one frame. The rate is the root of the mean squared
    difference between times before and after, less that of noise, whatever the direction: latents that come and go
    as a lattice passes by count as those that rise.
    """
    known = (noise > 0) & np.isfinite(share) & np.isfinite(series).any(1)
    scaled = series[known] / np.sqrt(noise[known])[:, None]
    scaled = scaled - np.nanmean(scaled, 1, keepdims=True)
    weights = share[known]
    mean = _weighted_mean(scaled * np.sign(weights)[:, None], np.abs(weights))
    rate = _rate(scaled, np.abs(weights), frames_per_bin)
    active = np.flatnonzero(rate >= _ACTIVE * rate.max()) if rate.max() > 0 else np.array([-1])
    return Course(mean, int(active[0]), int(active[-1]))


def _rate(scaled: np.ndarray, weights: np.ndarray, frames_per_bin: int) -> np.ndarray:
    """The rate of change [bins], 0 where it is not known; at the ends that of the nearest bin that has one.

    All lags up to the longest count, since what moves by a whole period within one of them seems to rest.
    """
    bins = scaled.shape[1]
    longest = max(2, round(_LAG * bins))
    squares = np.zeros(bins)
    for lag in range(1, min(longest, bins - 1) + 1):
        apart = (scaled[:, lag:] - scaled[:, :-lag]) ** 2 - 2 / frames_per_bin
        before = lag // 2
        squares += np.pad(np.nan_to_num(_weighted_mean(apart, weights)), (before, lag - before), mode="edge")
    return np.sqrt(np.maximum(squares, 0))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means [bins] of what is known of ``values`` [n, bins]; NaN where nothing is."""
    share = np.where(np.isfinite(values), weights[:, None], 0)
    total = share.sum(0)
    return np.asarray(np.where(total > 0, np.nansum(values * share, 0) / np.where(total > 0, total, 1), np.nan))
