"""Angles and spacings of lattices over time, and the misfit between them.

Angles are directions of reflections in degrees, from the axis of columns towards that of rows: clockwise as an image is
shown.
"""

import itertools

import numpy as np

_ALIKE = 0.05  # relative difference of the spacings of planes that are compared
_AGREE = 3.0  # degrees by which the misfits of a lattice's planes may differ


def spacings(reflections: np.ndarray) -> np.ndarray:
    """The spacings [...] of ``reflections`` [..., 2], in the unit whose inverse they have."""
    return np.asarray(1 / np.hypot(reflections[..., 0], reflections[..., 1]))


def directions(reflections: np.ndarray) -> np.ndarray:
    """The directions [..., frames] of ``reflections`` [..., frames, 2], which don't jump by 180 degrees over time.

    NaN where they are NaN.
    """
    angles = np.degrees(np.arctan2(reflections[..., 0], reflections[..., 1]))
    continuous = np.full_like(angles, np.nan)
    for series, into in zip(
        angles.reshape(-1, angles.shape[-1]), continuous.reshape(-1, angles.shape[-1]), strict=True
    ):
        known = np.isfinite(series)
        into[known] = np.unwrap(series[known], period=180)
    return np.asarray(continuous)


def lattice_angle(reflections: np.ndarray) -> np.ndarray:
    """The angle [frames] of a lattice with ``reflections`` [1 or 2, frames, 2]: at first that of its first reflection.

    It turns as the mean of all.
    """
    angles = directions(reflections)
    known = np.flatnonzero(np.isfinite(angles).all(0))
    if not known.size:
        return np.asarray(angles[0])
    turned = (angles - angles[:, known[:1]]).mean(0)
    return np.asarray(angles[0, known[0]] % 180 + turned)


def misfit(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The angle [frames] by which the lattice ``other`` is rotated against ``one``, reflections [1 or 2, frames, 2].

    Planes of equal spacing are compared, among the reflections and their sum and difference: of a square lattice the
    smallest such angle in -45 to 45 degrees. If no spacings are alike, it is the angle between the first reflections.
    It changes as the angles of both lattices do, that is with all their reflections.
    """
    candidates = []
    for a, b in itertools.product(_with_sums(one), _with_sums(other)):
        alike = spacings(a) / spacings(b)
        if np.isfinite(alike).any() and abs(np.nanmedian(alike) - 1) < _ALIKE:
            candidates.append(_between(a, b))
    candidates = candidates or [_between(one[0], other[0])]
    change = lattice_angle(other) - lattice_angle(one)
    if np.isnan(change).all():
        return np.asarray(change)
    middles = np.array([np.nanmedian(candidate) for candidate in candidates])
    smallest = middles[abs(middles).argmin()]
    agreeing = [c for c, middle in zip(candidates, middles, strict=True) if abs(middle - smallest) < _AGREE]
    return np.asarray(change + np.nanmean(np.mean(agreeing, 0) - change))


def _with_sums(reflections: np.ndarray) -> list[np.ndarray]:
    if len(reflections) == 1:
        return [reflections[0]]
    return [*reflections, reflections[0] + reflections[1], reflections[0] - reflections[1]]


def _between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The angle [frames] from ``one`` to ``other`` [frames, 2]; at its median within -90 to 90 degrees."""
    angle = directions(other) - directions(one)
    return np.asarray(angle - 180 * np.round(np.nanmedian(angle) / 180))
