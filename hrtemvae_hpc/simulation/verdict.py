"""Holds the maps of a simulated movie against its truth: ``python -m hrtemvae_hpc.simulation.verdict MOVIE MAPS``."""

import sys
from pathlib import Path

import numpy as np

from hrtemvae_hpc.maps.report import rank_latents
from hrtemvae_hpc.maps.result import Result, open_result
from hrtemvae_hpc.movie.write import read_truth

_REGIONS = {
    "growing": "edge that grows",
    "shrinking": "edge that shrinks",
    "rotating": "crystal that turns",
    "still": "still crystal and background",
}


def window_share(mask: np.ndarray, result: Result) -> np.ndarray:
    """The share [rows, columns] of each window's pixels that lie in ``mask``."""
    window, step = result.process["window"], result.process["step"]
    windows = np.lib.stride_tricks.sliding_window_view(mask.astype(np.float32), (window, window))[::step, ::step]
    return np.asarray(windows.mean((2, 3)))


def verdict(movie: Path, maps: Path) -> list[str]:
    """Lines that tell how much the leading latents change in each region of the simulated truth."""
    truth = read_truth(movie)
    with open_result(maps) as result:
        total = result.together
        leading = [s.latent for s in rank_latents(result)[:3]]
        still = window_share(truth["still"], result) == 1.0
        baseline = float(np.median(total[still]))
        lines = [f"leading latents: {', '.join(f'z{i}' for i in leading)}"]
        for name, what in _REGIONS.items():
            # Edges are narrower than a window; a crystal should fill most of one.
            share = window_share(truth[name], result)
            inside = still if name == "still" else share >= (0.9 if name == "rotating" else 0.5 * share.max())
            median = float(np.median(total[inside]))
            lines.append(
                f"{what}: {int(inside.sum())} windows, median sum of (rho x variance)^2 {median:.3g}, "
                f"{median / baseline:,.0f} times the still windows"
            )
    return lines


if __name__ == "__main__":
    print("\n".join(verdict(Path(sys.argv[1]), Path(sys.argv[2]))))
