"""How certain the maps of a result are: the groups noise, excess_variance, change, significance and reproducibility.

docs/certainty.md says what they mean. Results of earlier versions hold none of them.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

import h5py
import numpy as np

from hrtemvae_hpc.maps.axes import Placed, map_dataset, map_group
from hrtemvae_hpc.statistics.over_time import CERTAINTY
from hrtemvae_hpc.statistics.significance import correct, family_wise

# Where the result has what a tile has.
_PLACES = {
    "noise": "noise/data",
    "change": "change/frame",
    "score": "change/data",
    "chance": "significance/p_value",
    "autocorrelation": "significance/data",  # from which that is computed in the end
    "even": "reproducibility/even",
    "odd": "reproducibility/odd",
}
_FURTHER = ("excess_variance/data",)  # made of others
_TIME = "change/time"  # where times are known
CORRELATION = "reproducibility/correlation"
_LARGEST = "significance/largest_rho"
_GROUPS = {
    "noise": "noise floor: half the mean squared difference of neighbouring frames",
    "excess_variance": "variance less noise floor",
    "change": "change point: score, -1 to 1, and first frame after it",
    "significance": "chance of such a rho anywhere in the movie, and in this window alone (p_value)",
    "reproducibility": "rho x variance of even and of odd frames alone",
}
_TITLES = {
    "change/frame": "first frame after the change",
    "change/time": "time of this frame since the first one",
    "significance/p_value": "chance of such a rho in one window and latent",
    "significance/largest_rho": "largest rho of all windows and latents, for each permutation of blocks of frames",
    "reproducibility/correlation": "correlation over windows of even and odd",
}
_LEAST_WINDOWS = 3


class Timed(Placed, Protocol):
    """A result's windows and frames."""

    @property
    def process(self) -> Mapping[str, object]: ...
    @property
    def times_s(self) -> np.ndarray | None: ...
    @property
    def ratios(self) -> np.ndarray: ...


def count_maps(info: Timed) -> int:
    """How many maps of all latents the groups hold."""
    return len(_PLACES) + len(_FURTHER) + (info.times_s is not None)


def create_groups(entry: h5py.Group, info: Timed) -> list[h5py.Dataset]:
    """Make the groups; returns the datasets that tiles fill, in the order of statistics.over_time.CERTAINTY."""
    for name, title in _GROUPS.items():
        map_group(entry, name, title, info)
    entry["change"].attrs["auxiliary_signals"] = ["frame"]
    entry["significance"].attrs["auxiliary_signals"] = ["p_value"]
    entry["reproducibility"].attrs.update(signal="even", auxiliary_signals=["odd"])
    for place in (*_PLACES.values(), *_FURTHER, *([_TIME] if info.times_s is not None else [])):
        map_dataset(entry, place, info)
    return [entry[_PLACES[name]] for name in CERTAINTY]


def finish_groups(entry: h5py.Group, info: Timed, largest_rho: np.ndarray) -> None:
    """Compute what follows from all tiles together, latent by latent.

    ``largest_rho`` [permutations] is that of all windows and latents.
    """
    significance = entry["significance/data"]
    typical = typical_autocorrelation(significance)
    frames = np.asarray(info.process["frames"], np.float64)
    correlation = np.full(len(info.latent_source_index), np.nan)
    for latent in range(len(correlation)):
        entry["excess_variance/data"][latent] = entry["variance/data"][latent] - entry["noise/data"][latent]
        place = entry["change/frame"][latent]
        entry["change/frame"][latent] = _looked_up(frames, place)
        if info.times_s is not None:
            entry[_TIME][latent] = _looked_up(info.times_s, place)
        significance[latent] = chance_anywhere(
            entry["spearman/data"][latent], significance[latent], typical, info.ratios, largest_rho
        )
        correlation[latent] = _correlation(entry["reproducibility/even"][latent], entry["reproducibility/odd"][latent])
    entry[CORRELATION] = correlation
    entry[_LARGEST] = np.sort(largest_rho)
    if info.times_s is not None:
        entry[_TIME].attrs["units"] = "s"
    for place, title in _TITLES.items():
        if place in entry:
            entry[place].attrs["long_name"] = title


def typical_autocorrelation(maps: Iterable[np.ndarray]) -> float:
    """The median over latents of the medians over windows of their ``maps`` [rows, columns] of autocorrelation."""
    return _median(np.array([_median(values) for values in maps]))


def chance_anywhere(
    rho: np.ndarray, autocorrelation: np.ndarray, typical: float, ratios: np.ndarray, largest_rho: np.ndarray
) -> np.ndarray:
    """The chance of such a ``rho`` anywhere in the movie, float32; all maps are of one shape.

    A large rho often comes with an autocorrelation that is estimated too low, so rho is corrected by that of its series
    or the ``typical`` one of the movie, whichever is larger. ``ratios`` and ``largest_rho`` as ``correct`` and
    ``family_wise`` take them.
    """
    return family_wise(correct(rho, np.maximum(autocorrelation, typical), ratios), largest_rho)


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else np.nan


def _looked_up(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    known = np.isfinite(place)
    return np.where(known, values[np.where(known, place, 0).astype(np.intp)], np.nan)


def _correlation(even: np.ndarray, odd: np.ndarray) -> float:
    both = np.isfinite(even) & np.isfinite(odd)
    one, other = even[both].astype(np.float64), odd[both].astype(np.float64)
    if len(one) < _LEAST_WINDOWS or not np.ptp(one) or not np.ptp(other):
        return np.nan
    return float(np.corrcoef(one, other)[0, 1])


def map_places(entry: h5py.Group) -> list[str]:
    """The datasets of maps that the groups in ``entry`` must hold, none in a result that has none of the groups."""
    if not any(name in entry for name in _GROUPS):
        return []
    return [*_PLACES.values(), *_FURTHER, *([_TIME] if _TIME in entry else [])]


def enough_frames(valid_frames: np.ndarray) -> np.ndarray:
    """Which windows [rows, columns] have at least half of the frames that the best one has.

    ``valid_frames`` [rows, columns] is that of a result. The others may look special because they lie where the frame
    ends for most of the movie: they are left out where latents and places are ranked.
    """
    return np.asarray(2 * valid_frames >= valid_frames.max())
