"""Processes that are one: side by side, and their lattices do the same."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse.csgraph import connected_components

from hrtemvae_hpc.maps.process_lattice import ROTATION, UNKNOWN, LatticeChange, lattice_change
from hrtemvae_hpc.maps.processes import Processes, SignedMaps, place_of

_ALIKE = 1.0, 0.3  # difference of two rotations: in degrees, or relative to the larger one
_SIMILAR = 1.4  # ratio of how much two rotating lattices strengthen: what fades while it turns is more than a rotation


def name_and_merge(
    signed: SignedMaps, found: Processes, windows: Sequence[np.ndarray], windows_wide: float
) -> tuple[Processes, list[LatticeChange]]:
    """The processes ``found``, those that lie side by side and do the same as one, and what the lattice of each does.

    ``windows``: for each process [n, times, size, size], some of its place. Side by side: less than the width of a
    window apart, in which ``windows_wide`` begin. The order stays.
    """
    changes = [lattice_change(each) for each in windows]
    places = [place_of(part) for part in found.maps]
    together = [
        [
            _alike(one, other) and _near(place, beside, windows_wide)
            for other, beside in zip(changes, places, strict=True)
        ]
        for one, place in zip(changes, places, strict=True)
    ]
    count, labels = connected_components(np.array(together, bool).reshape(len(places), len(places)), directed=False)
    if count == len(found):
        return found, changes
    groups = [np.flatnonzero(labels == label) for label in range(count)]
    merged = [_merge(found, group) for group in groups]
    maps, weights, direction = (np.stack(each) for each in zip(*merged, strict=True))
    sure = [signed.reproducibility(place_of(part), share) for part, share in zip(maps, weights, strict=True)]
    both = [lattice_change(np.concatenate([windows[int(i)] for i in group])) for group in groups]
    return Processes(maps, weights, direction, np.array(sure, np.float32)), both


def _alike(one: LatticeChange, other: LatticeChange) -> bool:
    if one.name != other.name or one.name == UNKNOWN:
        return False
    if one.name != ROTATION:
        return True
    degrees, relative = _ALIKE
    largest = max(abs(one.turned), abs(other.turned))
    similar = 1 / _SIMILAR <= one.strength / other.strength <= _SIMILAR
    return similar and abs(one.turned - other.turned) <= max(degrees, relative * largest)


def _near(place: np.ndarray, beside: np.ndarray, windows_wide: float) -> bool:
    return bool(distance_transform_edt(~place)[beside].min() < windows_wide)


def _merge(found: Processes, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Map, weights and direction of the processes ``group`` together, each by how much it changes."""
    size = np.nansum(found.maps[group], (1, 2))[:, None] / np.nansum(found.maps[group])
    share = size * found.weights[group]
    weights = share.sum(0)
    direction = (share * found.direction[group]).sum(0) / np.maximum(weights, 1e-30)
    return found.maps[group].max(0), weights.astype(np.float32), direction.astype(np.float32)
