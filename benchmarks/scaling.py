"""Analyses a movie on 1, 2 and 4 single-threaded ranks, next to what the estimate of `plan` says from the costs of one.

    python benchmarks/scaling.py MOVIE.h5 [--model dense] [--step 8] [--rounds 3]
      [--windows-per-second 300000] [--cores 8]

Then it estimates 1,000 frames of 4096 x 4096 on 8 nodes of 4 GPUs each, plain and gzip-compressed, from the rate at
which one core decoded MOVIE.h5, times the cores beside each GPU, and a rate of encoding on a GPU (windows/s) that is
assumed unless measured elsewhere.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import tempfile
import zlib
from pathlib import Path
from statistics import median

import h5py
import torch

from hrtemvae_hpc.analysis.estimate import Estimate, estimate
from hrtemvae_hpc.analysis.plan import make_plan
from hrtemvae_hpc.config import PreprocessSection
from hrtemvae_hpc.model.model_file import load_model
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.movie.transform import Transform
from hrtemvae_hpc.ranks.resources import RankResources
from hrtemvae_hpc.scaling import LocalScaling
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import WindowGrid

GB = 10**9
PLAIN = 3 * GB  # bytes/s that a rank reads if nothing is compressed, assumed


@dataclasses.dataclass
class Run:
    phases: dict[str, float]
    encode: float  # windows/s of a rank while it encodes and computes statistics
    decode: float  # bytes/s of a rank

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())


def analyze(movie: Path, model: str, step: int, ranks: int, threads: int = 1) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "maps.h5")
        words = ["mpirun", "-n", str(ranks), "hrtemvae", "analyze", movie, "-o", output]
        words += ["--model", model, "--step", str(step)]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=env)
        said = re.search(r"start ([\d.]+) s, staging ([\d.]+) s, tiles ([\d.]+) s, result ([\d.]+) s", done.stderr)
        assert said, done.stderr
        with h5py.File(output) as file:
            process = file["entry/process"]
            stages = json.loads(process["seconds_by_stage"].asstr()[()])
            encodings, read = int(process["encodings"][()]), int(process["bytes_read"][()])
    phases = dict(zip(("start", "staging", "tiles", "result"), map(float, said.groups()), strict=True))
    return Run(phases, encodings / (stages["encode"] + stages["statistics"]), read / stages["read"])


def expected(
    path: Path, name: str, step: int, nodes: int, a_node: int, encode: float, decode: float, device: str
) -> Estimate:
    model = load_model(name)
    engine = Engine(model, torch.device("cpu"), "fp32", model.scaling, step)
    if device == "cuda":  # as one on a GPU that isn't here
        engine.device, engine.block, engine.batch = torch.device("cuda"), 16, 4096
    ranks = [
        RankResources(
            rank=r,
            host=f"node{r // a_node}",
            pid=r,
            device=device,
            device_type=device,
            threads=1,
            used=GB,
            node_free=400 * GB,
            stage_memory=200 * GB,
            encode_rate=encode,
            decode_rate=decode,
        )
        for r in range(nodes * a_node)
    ]
    with Movie(path) as movie:
        grid = WindowGrid(*movie.shape[1:], model.architecture.window, step)
        local = LocalScaling(movie.shape[1:], engine.window) if model.scaling == "local" else None
        reader = TileReader(movie, PreprocessSection(), False, Transform(local=local))
        return estimate(make_plan(engine, reader, grid, ranks, None), model.architecture.latents, ranks)


def write_zeros(path: Path, shape: tuple[int, int, int], *, gzip: bool) -> None:
    """A movie of zeros that takes hardly any space, contiguous or in chunks of whole frames."""
    with h5py.File(path, "w") as file:
        if gzip:
            movie = file.create_dataset("movie", shape, "u2", chunks=(1, *shape[1:]), compression="gzip")
            packed = zlib.compress(bytes(2 * shape[1] * shape[2]))
            for t in range(shape[0]):
                movie.id.write_direct_chunk((t, 0, 0), packed)
        else:
            storage = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            storage.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            storage.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, b"movie", h5py.h5t.NATIVE_UINT16, space, storage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("movie", type=Path)
    parser.add_argument("--model", default="published")
    parser.add_argument("--step", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows-per-second", type=float, default=3e5)
    parser.add_argument("--cores", type=int, default=8)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    rounds = [
        {ranks: analyze(options.movie, options.model, options.step, ranks) for ranks in (1, 2, 4)}
        for _ in range(options.rounds)
    ]
    encode, decode = median(r[1].encode for r in rounds), median(r[1].decode for r in rounds)
    print("| ranks | start | staging | tiles | tiles expected | speed-up | speed-up, start to result |")
    print("|---|---|---|---|---|---|---|")
    for ranks in (1, 2, 4):
        start, staging, tiles = (median(r[ranks].phases[p] for r in rounds) for p in ("start", "staging", "tiles"))
        shared = min(1.0, cores / ranks)
        e = expected(options.movie, options.model, options.step, 1, ranks, encode * shared, decode * shared, "cpu")
        print(
            f"| {ranks} | {start:.1f} s | {staging:.1f} s | {tiles:.1f} s | {e.tiles:.1f} s | "
            f"{median(r[1].phases['tiles'] / r[ranks].phases['tiles'] for r in rounds):.2f} | "
            f"{median(r[1].seconds / r[ranks].seconds for r in rounds):.2f} |"
        )
    print(f"\none core decodes {decode / 1e6:.0f} MB/s")
    print("\n| 8 nodes x 4 GPUs, 4096 x 4096 x 1000 | staging | tiles | ranks busy | saving | result | total |")
    print("|---|---|---|---|---|---|---|")
    for name, gzip in (("contiguous", False), ("whole frames, gzip", True)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "large.h5")
            write_zeros(path, (1000, 4096, 4096), gzip=gzip)
            reading = options.cores * decode if gzip else PLAIN
            e = expected(path, options.model, 8, 8, 4, options.windows_per_second, reading, "cuda")
        print(
            f"| {name} | {e.staging:.0f} s | {e.tiles:.0f} s | {e.busy:.0%} | {e.saving:.1f} s | {e.result:.1f} s | "
            f"{e.total:.0f} s |"
        )


if __name__ == "__main__":
    main()
