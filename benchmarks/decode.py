"""Decodes gzip-compressed movies with HDF5 and with this program, on one thread and on all cores; prints the ratios.

    python benchmarks/decode.py [--frames 60] [--size 640] [--rounds 5]

The movie is noise of 100 counts per pixel, in memory if the machine has /dev/shm.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from hrtemvae_hpc.config import PreprocessSection
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TilePixels, TileReader
from hrtemvae_hpc.movie.transform import UNCHANGED


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fill(reader: TileReader, pixels: np.ndarray, threads: int) -> None:
    whole = reader.movie.area
    tile = TilePixels.of(pixels, whole, UNCHANGED)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda region: reader.fill(tile, region, False), reader.regions(whole)))


def measure(path: Path, noise: np.ndarray, threads: int) -> tuple[float, float, float]:
    """Seconds of HDF5, and of this program on one thread and on ``threads``."""
    pixels = np.zeros_like(noise)
    with h5py.File(path, "r", locking=False) as file:
        dataset = file["movie"]
        plain = seconds(lambda: dataset.read_direct(pixels))
    with Movie(path) as movie:
        reader = TileReader(movie, PreprocessSection(), False)
        one, all_ = (seconds(lambda n=n: fill(reader, pixels, n)) for n in (1, threads))
    assert np.array_equal(pixels, noise)
    return plain, one, all_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    frames, size, cores = options.frames, options.size, len(os.sched_getaffinity(0))
    noise = np.random.default_rng(0).poisson(100, (frames, size, size)).astype(np.uint16)
    print(f"| chunks | HDF5, MB/s | hrtemvae, one thread | hrtemvae, {cores} threads |\n|---|---|---|---|")
    for chunk in ((1, size, size), (1, size // 2, size // 2), (1, size // 5, size // 5), (frames, 32, 32)):
        for shuffle in (False, True):
            with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
                path = Path(folder, "movie.h5")
                with h5py.File(path, "w") as file:
                    file.create_dataset("movie", data=noise, chunks=chunk, compression="gzip", shuffle=shuffle)
                rates = [measure(path, noise, cores) for _ in range(options.rounds)]
            hdf5 = noise.nbytes / 1e6 / statistics.median(r[0] for r in rates)
            one, all_ = (statistics.median(r[0] / r[i] for r in rates) for i in (1, 2))
            name = f"{' x '.join(map(str, chunk))}, gzip{' of shuffled bytes' * shuffle}"
            print(f"| {name} | {hdf5:.0f} | {one:.2f} times | {all_:.2f} times |", flush=True)


if __name__ == "__main__":
    main()
