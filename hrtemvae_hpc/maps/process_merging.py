"""Processes that are one: side by side, and their lattices do the same."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse.csgraph import connected_components

from hrtemvae_hpc.maps.process_lattice import GROWTH, LOSS, ROTATION, LatticeChange
from hrtemvae_hpc.maps.processes import Processes, place_of, processes_of

_ALIKE = 1.0, 0.3  # difference of two rotations: in degrees, or relative to the larger one
_SIMILAR = 1.4  # ratio of how much two rotating lattices strengthen: what fades while it turns is more than a rotation


def merge_alike(
    found: Processes, changes: Sequence[LatticeChange], windows_wide: float
) -> tuple[Processes, list[LatticeChange]]:
    """The processes ``found``, those that lie side by side and do the same as one; ``changes`` of their lattices.

    Side by side: less than the width of a window apart, in which ``windows_wide`` begin. What several parts do is what
    the part does that changes most, and they are as reproducible as the least reproducible one.
    """
    places = [place_of(part) for part in found.maps]
    together = [
        [
            _alike(one, other) and _near(place, beside, windows_wide)
            for other, beside in zip(changes, places, strict=True)
        ]
        for one, place in zip(changes, places, strict=True)
    ]
    count, labels = connected_components(np.array(together, bool).reshape(len(places), len(places)), directed=False)
    groups = [np.flatnonzero(labels == label) for label in range(count)]
    groups.sort(key=lambda group: -found.change[group].sum())
    share = [found.change[group] / found.change[group].sum() for group in groups]
    weights = [part @ found.weights[group] for part, group in zip(share, groups, strict=True)]
    rising = [part @ (found.weights * found.direction)[group] for part, group in zip(share, groups, strict=True)]
    return processes_of(
        [found.maps[group].max(0) for group in groups],
        weights,
        [up / np.maximum(all_of, 1e-30) for up, all_of in zip(rising, weights, strict=True)],
        [found.reproducibility[group].min() for group in groups],
        [found.change[group].sum() for group in groups],
    ), [changes[group[found.change[group].argmax()]] for group in groups]


def _alike(one: LatticeChange, other: LatticeChange) -> bool:
    if one.name != other.name or one.name not in (GROWTH, LOSS, ROTATION):
        return False
    if one.name != ROTATION:
        return True
    degrees, relative = _ALIKE
    largest = max(abs(one.turned), abs(other.turned))
    similar = 1 / _SIMILAR <= one.strength / other.strength <= _SIMILAR
    return similar and abs(one.turned - other.turned) <= max(degrees, relative * largest)


def _near(place: np.ndarray, beside: np.ndarray, windows_wide: float) -> bool:
    return bool(distance_transform_edt(~place)[beside].min() < windows_wide)
