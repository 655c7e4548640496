"""Compares the maps of a simulated movie with its truth: ``python -m hrtemvae_hpc.maps.verdict MAPS``."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.maps.processes import place_of
from hrtemvae_hpc.maps.result import Result, open_result
from hrtemvae_hpc.movie.resample import Resampler
from hrtemvae_hpc.movie.write import read_truth

_REGIONS = {
    "rotating": "rotating crystal",
    "growing": "growing edge",
    "shrinking": "shrinking edge",
}
_FULL = 0.9  # share of a window's pixels in the crystal above which it counts as inside
_EDGE = 0.5  # of the largest share that a window has of an edge, which is narrower than a window


@dataclass(frozen=True)
class Verdict:
    """How the maps of time-correlated variance, and processes, separate the windows of one region from others.

    An area under the ROC curve is the probability that a window inside is brighter than one outside: 0.5 by chance.
    """

    region: str
    windows: int
    together: float  # area under the ROC curve of all latents' sum, against still windows
    latent: int  # the one that separates the region best from all windows outside
    latent_still: float  # its area against still windows
    latent_others: float  # and against all windows outside, of other regions too
    times: float  # median of all latents' sum, times that of still windows
    process: int  # the one whose place overlaps most with the region, 0 without any
    overlap: float  # of both (Jaccard's index)
    process_others: float  # area under the ROC curve of this process against the other regions

    def __str__(self) -> str:
        return (
            f"{self.region}: {self.windows} windows; area under the ROC curve {self.together:.3f} of all latents "
            f"against still windows, {self.latent_still:.3f} of z{self.latent} ({self.latent_others:.3f} against all "
            f"outside); median {self.times:,.0f} times that of still windows; process {self.process} overlaps by "
            f"{self.overlap:.2f}, {self.process_others:.3f} against the other regions"
        )


def roc_area(inside: np.ndarray, outside: np.ndarray) -> float:
    """The probability that a value ``inside`` is larger than one ``outside``; ties count half, NaN are left out."""
    inside, outside = inside[np.isfinite(inside)], np.sort(outside[np.isfinite(outside)])
    if not inside.size or not outside.size:
        return float("nan")
    below, not_above = (np.searchsorted(outside, inside, side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * outside.size))


@dataclass(frozen=True)
class Region:
    """The windows [rows, columns] bool of one region of the truth, and those to tell them from."""

    name: str
    inside: np.ndarray  # which lie in it
    place: np.ndarray  # which hold at least half as much of it as the best one
    still: np.ndarray  # in which nothing happens
    outside: np.ndarray  # which hold nothing of it; one that holds little is neither inside nor outside
    others: np.ndarray  # the places of the other regions


def find_regions(result: Result) -> list[Region]:
    """The regions of a simulated movie that ``result`` is of; none if its truth is not available."""
    truth = _read_truth(result)
    if not truth:
        return []
    still = _share(truth["still"], result) == 1.0
    shares = {name: _share(truth[name], result) for name in _REGIONS}
    places = {name: share >= _EDGE * share.max() for name, share in shares.items() if share.any()}
    regions = []
    for name, place in places.items():
        inside = shares[name] >= _FULL if name == "rotating" else place
        if inside.any() and still.any():
            others = np.any([other for n, other in places.items() if n != name], axis=0)
            regions.append(Region(_REGIONS[name], inside, place, still, shares[name] == 0, others & ~place))
    return regions


def best_map(maps: np.ndarray, region: Region) -> tuple[int, float]:
    """The number of the one of ``maps`` [maps, rows, columns] that separates ``region`` best from all windows outside.

    And its area under the ROC curve.
    """
    areas = [roc_area(values[region.inside], values[region.outside]) for values in maps]
    best = int(np.nanargmax(areas)) if np.isfinite(areas).any() else 0
    return best, areas[best]


def best_process(parts: Iterable[np.ndarray], region: Region) -> tuple[int, float, float]:
    """The number, from 1 on, of the process that overlaps most with ``region``, 0 without any.

    ``parts`` are maps [rows, columns]. And its overlap (Jaccard's index), and its area against the other regions.
    """
    best = 0, 0.0, float("nan")
    for number, part in enumerate(parts, 1):
        place = place_of(part)
        overlap = float((place & region.place).sum() / (place | region.place).sum())
        if overlap > best[1]:
            best = number, overlap, roc_area(part[region.place], part[region.others])
    return best


def find_verdicts(result: Result) -> list[Verdict]:
    """The verdict on each region of a simulated movie; none if its truth is not available."""
    regions = find_regions(result)
    if not regions:
        return []
    maps = np.stack([result.maps("time_correlated_variance", int(latent)) for latent in result.latent])
    together = result.together
    verdicts = []
    for region in regions:
        inside, still = region.inside, region.still
        best, area = best_map(maps, region)
        verdicts.append(
            Verdict(
                region.name,
                int(inside.sum()),
                roc_area(together[inside], together[still]),
                best,
                roc_area(maps[best][inside], maps[best][still]),
                area,
                float(np.nanmedian(together[inside]) / np.nanmedian(together[still])),
                *best_process(result.processes.found.maps if result.processes else (), region),
            )
        )
    return verdicts


def _read_truth(result: Result) -> dict[str, np.ndarray]:
    """The masks of the movie's frame that a verdict needs; none if the movie doesn't hold them."""
    frame = result.process.movie_shape[1:]
    try:
        truth = read_truth(Path(result.process.movie), frame)
    except InputError:
        return {}
    needed = ("still", *_REGIONS)
    masks = {name: truth[name] for name in needed if name in truth}
    fit = len(masks) == len(needed) and all(m.shape == frame and m.dtype == bool for m in masks.values())
    return masks if fit else {}


def _share(mask: np.ndarray, result: Result) -> np.ndarray:
    """The share [rows, columns] of each window's pixels that lie in ``mask`` of the movie's frame."""
    process = result.process
    top, bottom, left, right = process.region
    window, step = process.window, process.step
    region = mask[top:bottom, left:right].astype(np.float32)
    if process.resampling != (1.0, 1.0):
        height, width = region.shape
        resampler = Resampler(height, width, (process.grid.height, process.grid.width))
        region = (resampler.whole(torch.from_numpy(region)) > 0.5).float().numpy()
    windows = np.lib.stride_tricks.sliding_window_view(region, (window, window))[::step, ::step]
    return np.asarray(windows.mean((2, 3)))


if __name__ == "__main__":
    with open_result(Path(sys.argv[1])) as opened:
        print(*find_verdicts(opened), sep="\n")
