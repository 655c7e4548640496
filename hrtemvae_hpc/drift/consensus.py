"""The shift that most patches share."""

import numpy as np
from numpy.typing import NDArray

WIDTHS = (3.0, 1.5, 0.75, 0.4)  # pixels: deviation at which a patch counts a quarter, step by step


def agreement(residuals: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Weights [...] of ``residuals`` [..., 2] (Geman and McClure): 1 for none, 1/4 for one of ``width``."""
    squared = np.square(residuals).sum(-1) / width**2
    return np.asarray(1 / np.square(1 + squared))


def consensus(shifts: np.ndarray, weights: np.ndarray) -> tuple[tuple[float, float], float]:
    """The shift that most of ``shifts`` [patches, 2] share, and the weight of those that do.

    A weighted mean whose deviating members count less and less (graduated non-convexity, Blake and Zisserman 1987),
    from the weighted median.
    """
    if not weights.any():
        return (0.0, 0.0), 0.0
    shifts, weights = shifts.astype(np.float64), weights.astype(np.float64)
    place = np.array([_median(shifts[:, axis], weights) for axis in (0, 1)])
    counted = weights
    for width in WIDTHS:
        for _ in range(5):
            counted = weights * agreement(shifts - place, width)
            place = (counted[:, None] * shifts).sum(0) / counted.sum()
    return (float(place[0]), float(place[1])), float(counted.sum())


def _median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])
