"""Analyses a movie with each bundled model in turn, on one rank: seconds from start to result, and their ratio.

python benchmarks/models.py MOVIE.h5 [--step 8] [--rounds 3]
"""

import argparse
import os
from pathlib import Path
from statistics import median

from scaling import analyze

from hrtemvae_hpc.model.bundled import BUNDLED

PHASES = ("start", "staging", "tiles", "result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("movie", type=Path)
    parser.add_argument("--step", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    rounds = [
        {name: analyze(options.movie, name, options.step, 1, threads) for name in BUNDLED}
        for _ in range(options.rounds)
    ]
    first = next(iter(BUNDLED))
    print(f"{threads} threads, medians of {options.rounds} rounds\n")
    print("| model | " + " | ".join(PHASES) + " | total | times as fast |")
    print("|---" * (len(PHASES) + 3) + "|")
    for name in BUNDLED:
        phases = [f"{median(r[name].phases[phase] for r in rounds):.1f} s" for phase in PHASES]
        total = median(r[name].seconds for r in rounds)
        ratio = median(r[first].seconds / r[name].seconds for r in rounds)
        print(f"| {name} | " + " | ".join(phases) + f" | {total:.1f} s | {ratio:.1f} |")


if __name__ == "__main__":
    main()
