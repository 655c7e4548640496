"""Converts a movie, and compares that with a bare loop that reads and compresses it on the same threads.

    python benchmarks/convert.py [--frames 500] [--size 1024] [--rounds 5]

The movie is noise of 100 counts per pixel, in one file of NumPy; all files are in memory if the machine has /dev/shm.
The bare loop reads eight frames at a time and compresses their chunks with the same codec, and keeps nothing. The
conversion reads, compresses, digests and saves all blocks, writes the file, and then verifies it. Figures are medians
of ratios within one round.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np

from hrtemvae_hpc.conversion import job
from hrtemvae_hpc.conversion.options import ConversionConfig, FileSection
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.packing import PACKINGS
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.world import World

DEPTH, SIDE = 8, 128


def bare(path: Path, compression: str, threads: int) -> float:
    """Seconds of the loop that reads and compresses."""
    pack = PACKINGS[compression].pack
    began = time.perf_counter()
    with Movie(path) as movie, ThreadPoolExecutor(threads) as pool:
        frames, height, width = movie.shape

        def work(first: int) -> int:
            pixels = movie.read(slice(first, min(first + DEPTH, frames)), movie.area)
            places = product(range(0, height, SIDE), range(0, width, SIDE))
            return sum(len(pack(np.ascontiguousarray(pixels[:, y : y + SIDE, x : x + SIDE]))) for y, x in places)

        sum(pool.map(work, range(0, frames, DEPTH)))
    return time.perf_counter() - began


@contextmanager
def timed_verification() -> Iterator[list[float]]:
    """How long the verification takes, while the block runs."""
    seconds: list[float] = []
    check_frames = job.check_frames

    def timed(*arguments: object) -> list[int]:
        began = time.perf_counter()
        bad = check_frames(*arguments)  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - began)
        return bad

    with mock.patch.object(job, "check_frames", timed):
        yield seconds


def convert(path: Path, compression: str, stop: StopRequest) -> tuple[float, float]:
    """Seconds of a conversion, and of its verification, which is one part of it."""
    config = ConversionConfig(file=FileSection(compression=compression))  # type: ignore[arg-type]
    output = path.with_name("converted.h5")
    output.unlink(missing_ok=True)
    began = time.perf_counter()
    with timed_verification() as verification:
        job.convert(World(), [path], config, "", output, True, stop)
    return time.perf_counter() - began, sum(verification)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    threads, stop = len(os.sched_getaffinity(0)), StopRequest()
    noise = np.random.default_rng(0).poisson(100, (options.frames, options.size, options.size)).astype(np.uint16)
    print("| compression | bare loop, MB/s | without verification | with it |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder, "movie.npy")
        np.save(path, noise)
        for compression in PACKINGS:
            rounds = []
            for _ in range(options.rounds):
                loop = bare(path, compression, threads)
                whole, verification = convert(path, compression, stop)
                rounds.append((loop, whole - verification, whole))
            rate = noise.nbytes / 1e6 / statistics.median(r[0] for r in rounds)
            without, full = (statistics.median(r[0] / r[i] for r in rounds) for i in (1, 2))
            print(f"| {compression} | {rate:,.0f} | {without:.0%} | {full:.0%} |", flush=True)


if __name__ == "__main__":
    main()
