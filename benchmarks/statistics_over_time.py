"""Variance and Spearman's rho of many series: this program, scipy series by series, and scipy's ranks of all at once.

    python benchmarks/statistics_over_time.py [--frames 62 1000] [--windows 64] [--rounds 5]

All on one core, in turn; microseconds per series, medians, and ratios to this program.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr

from hrtemvae_hpc.statistics.comparison import Comparison
from hrtemvae_hpc.statistics.over_time import series_statistics
from hrtemvae_hpc.statistics.significance import PermutationTest

LATENTS = 64
LOOPED = 300  # series; more would only take longer


def loop(z: np.ndarray) -> None:
    frames = np.arange(len(z))
    for series in z.reshape(len(z), -1).T[:LOOPED]:
        rho = spearmanr(series, frames)[0]
        _ = (rho * series.var()) ** 2


def all_at_once(z: np.ndarray) -> None:
    frames = len(z)
    ranks, time_ = rankdata(z, axis=0) - (frames + 1) / 2, np.arange(frames) - (frames - 1) / 2
    rho = np.einsum("t,twk->wk", time_, ranks) / np.sqrt((time_**2).sum() * (ranks**2).sum(0))
    _ = (rho * z.var(0)) ** 2


def ours(z: np.ndarray) -> None:
    test = PermutationTest(Comparison.with_time(len(z)), torch.device("cpu"))
    series_statistics(torch.from_numpy(z), torch.ones(z.shape[:2], dtype=torch.bool), test)


def microseconds(way: Callable[[np.ndarray], None], z: np.ndarray, series: int) -> float:
    began = time.perf_counter()
    way(z)
    return 1e6 * (time.perf_counter() - began) / series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[62, 1000])
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = {"scipy.stats.spearmanr in a loop": loop, "scipy.stats.rankdata of all": all_at_once, "hrtemvae": ours}
    print("| frames | method | us per series | relative to hrtemvae |\n|---|---|---|---|")
    for frames in options.frames:
        z = np.random.default_rng(0).standard_normal((frames, options.windows, LATENTS)).astype(np.float32)
        series = {loop: min(LOOPED, z[0].size), all_at_once: z[0].size, ours: z[0].size}
        ours(z)
        rounds = [
            {name: microseconds(way, z, series[way]) for name, way in ways.items()} for _ in range(options.rounds)
        ]
        for name in ways:
            spent = statistics.median(r[name] for r in rounds)
            print(
                f"| {frames} | {name} | {spent:.2f} | "
                f"{statistics.median(r[name] / r['hrtemvae'] for r in rounds):.1f} |"
            )


if __name__ == "__main__":
    main()
