"""What simpler measures than latents show at the same windows of a simulated movie, beside the latents.

    python benchmarks/baselines.py maps.h5

maps.h5 is a result of a movie with a truth, of `hrtemvae simulate` or benchmarks/multislice.py. The movie's windows are
read again at the result's places and frames. The table has, for each region of the truth, the area under the ROC curve
against windows in which nothing happens, and against the other regions. The best latent or component is the one that
separates the region best from all windows outside, as in hrtemvae_hpc/maps/verdict.py; components have processes that
are found as those of latents are.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA

from hrtemvae_hpc.analysis.compute import readable_windows
from hrtemvae_hpc.interpretation.reopen import Reopened, reopen
from hrtemvae_hpc.maps.certainty import enough_frames
from hrtemvae_hpc.maps.processes import SignedMaps, find_processes
from hrtemvae_hpc.maps.result import Result, open_result
from hrtemvae_hpc.maps.verdict import Region, best_map, best_process, find_regions, roc_area
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES, series_statistics
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.windows.grid import Rectangle

COMPONENTS = 64
SAMPLE = 20_000  # windows, at most, that principal components are fitted to
PARTS = 5  # of the frames: the first and the last are compared
OF_PIXELS = (
    "pixel variance",
    "first minus last frame",
    "first minus last fifth",
    "1 - NCC, first and last frame",
    "1 - NCC, first and last fifth",
)


def measures_of_pixels(series: np.ndarray) -> list[float]:
    """The measures ``OF_PIXELS`` of one window's pixels [frames, pixels], NaN for fewer than 3 frames.

    Variances and squared differences are means over the pixels; NCC is the normalised cross-correlation of two images
    without a shift. Of a fifth of the frames the mean is taken.
    """
    if len(series) < MINIMUM_FRAMES:
        return [float("nan")] * len(OF_PIXELS)
    part = max(1, len(series) // PARTS)
    ends = series[[0, -1]], np.stack([series[:part].mean(0), series[-part:].mean(0)])
    return [
        float(series.var(0).mean()),
        *(float(((last - first) ** 2).mean()) for first, last in ends),
        *(float(1 - np.corrcoef(first, last)[0, 1]) for first, last in ends),
    ]


def rows_of_windows(again: Reopened) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows [frames, columns, pixels] float32 and which are valid [frames, columns] bool, row by row."""
    grid = again.grid
    tile = again.reader.read(grid.covered, again.skip_bad_frames)
    for row in range(grid.rows):
        line = Rectangle(row, row + 1, 0, grid.columns)
        patch = tile.patch(grid.area(line)).array().astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(patch, grid.window, 2)[:, :, :: grid.step]
        pixels = windows.swapaxes(1, 2).reshape(len(patch), grid.columns, -1)
        readable = readable_windows(again.reader, grid, tile, line)
        yield pixels, readable & np.isfinite(pixels).all(2) & (np.ptp(pixels, 2) > 0)


def scaled(again: Reopened, windows: np.ndarray) -> np.ndarray:
    """``windows`` [n, pixels] scaled to 0..1 as the encoder gets them: each by itself, or its pixels already."""
    if again.engine.scaling == "local":
        return windows
    low, high = windows.min(1, keepdims=True), windows.max(1, keepdims=True)
    return np.asarray((windows - low) / (high - low))


def fit_components(again: Reopened) -> PCA:
    """The first principal components of a random sample of the windows of all frames."""
    random = np.random.default_rng(0)
    sample = []
    for windows, valid in rows_of_windows(again):
        usable = windows[valid]
        count = min(len(usable), SAMPLE // again.grid.rows)
        sample.append(scaled(again, usable[random.choice(len(usable), count, replace=False)]))
    return PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit(np.concatenate(sample))


@dataclass(frozen=True)
class Baselines:
    """What simpler measures show, as maps [rows, columns] of all windows."""

    of_pixels: dict[str, np.ndarray]
    components: np.ndarray  # [components, rows, columns], time-correlated variances of the scores
    processes: np.ndarray  # [processes, rows, columns], found in those of the scores


def measure(again: Reopened) -> Baselines:
    """Measure all windows of a result."""
    shape = again.grid.rows, again.grid.columns
    components = fit_components(again)
    measures, scores, usable = [], [], []
    for windows, valid in rows_of_windows(again):
        measures.append([measures_of_pixels(windows[ok, i]) for i, ok in enumerate(valid.T)])
        row = np.zeros((*valid.shape, COMPONENTS), np.float32)
        row[valid] = components.transform(scaled(again, windows[valid]))
        scores.append(row)
        usable.append(valid)
    series, known_at = (torch.from_numpy(np.concatenate(rows, 1)) for rows in (scores, usable))
    found = series_statistics(series, known_at, PermutationTest(again.comparison, torch.device("cpu")))
    signed = {"all": found.spearman * found.variance, "even": found.even, "odd": found.odd}
    frames = found.valid_frames.numpy().reshape(shape)
    known = enough_frames(frames) & (frames > 0)
    maps = SignedMaps(
        lambda which, component: signed[which][:, component].numpy().reshape(shape),
        np.nanmedian(found.noise.numpy()[known.ravel()], 0),
        known,
    )
    processes = find_processes(maps, again.grid.window / again.grid.step)
    return Baselines(
        dict(zip(OF_PIXELS, np.moveaxis(np.array(measures), -1, 0), strict=True)),
        found.time_correlated_variance.numpy().T.reshape(-1, *shape),
        processes.maps,
    )


def rows_of_table(result: Result, baselines: Baselines, region: Region) -> Iterator[tuple[str, str]]:
    """The measures' names, and what each shows of ``region``."""

    def areas(values: np.ndarray) -> str:
        still = f"{roc_area(values[region.inside], values[region.still]):.2f}"
        others = roc_area(values[region.place], values[region.others])
        return f"{still}, {others:.2f}" if region.others.any() else still

    def learned(kind: str, letter: str, maps: np.ndarray, processes: np.ndarray) -> Iterator[tuple[str, str]]:
        yield f"{kind}, sum", areas(np.nansum(maps, 0))
        best, _ = best_map(maps, region)
        yield f"{kind}, the best", f"{areas(maps[best])} ({letter}{best})"
        number, overlap, _ = best_process(processes, region)
        yield f"{kind}, process", f"{areas(processes[number - 1])}, overlap {overlap:.2f}" if number else "none"

    for name, values in baselines.of_pixels.items():
        yield name, areas(values)
    yield from learned("components", "c", baselines.components, baselines.processes)
    latents = np.stack([result.maps("time_correlated_variance", int(latent)) for latent in result.latent])
    shown = result.processes.found.maps if result.processes else np.zeros((0, *latents.shape[1:]))
    yield from learned("latents", "z", latents, shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    options = parser.parse_args()
    with open_result(options.maps) as result:
        regions = find_regions(result)
        if not regions:
            raise SystemExit(f"{options.maps}: its movie has no truth; take one of `hrtemvae simulate`.")
        with reopen(result) as again:
            baselines = measure(again)
        print("| against still windows, against other regions |", " | ".join(region.name for region in regions), "|")
        print("|---" * (1 + len(regions)) + "|")
        for cells in zip(*(rows_of_table(result, baselines, region) for region in regions), strict=True):
            print("|", " | ".join([cells[0][0], *(shown for _, shown in cells)]), "|")


if __name__ == "__main__":
    main()
