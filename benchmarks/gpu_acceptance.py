"""Checks and measures what a GPU does here, stage by stage, and prints a line of JSON after each.

    python benchmarks/gpu_acceptance.py [-o acceptance.json] [--only STAGE ...]

Needs PyTorch and this program, no network, and ten minutes at most. Each stage runs in processes of its own with a
limit of time: one that fails, hangs or is killed is reported, and the next begins. Ends with 1 if any was, or if
numbers differ that must not. Without a GPU, stages do as little on the CPU as shows that they work.
"""

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from encode import (
    DEVICE,
    DTYPES,
    ON_GPU,
    PRECISIONS,
    STEP,
    Prepared,
    model_for,
    operations,
    product_rate,
    seconds,
)  # fmt: skip

from hrtemvae_hpc.files import replacing
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.schemas import Scaling
from hrtemvae_hpc.statistics.comparison import Comparison
from hrtemvae_hpc.statistics.over_time import series_statistics
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Rectangle
from hrtemvae_hpc.windows.in_memory import for_engine

CHECKOUT = Path(__file__).parents[1]
WAYS: dict[str, Scaling] = {"published": "window", "one scale per frame": "frame", "without padding": "local"}
Facts = dict[str, Any]


FRAMES, SIDE = (64, 2048) if ON_GPU else (3, 128)
COLD_STARTS = 20 if ON_GPU else 1
SEGMENTS = 20_000 if ON_GPU else 64


def movie_of(frames: int, side: int) -> np.ndarray:
    """Noise over fringes [frames, side, side] uint16."""
    y, x = np.mgrid[:side, :side]
    random = np.random.default_rng(0)
    images = (1.2 + np.cos((x * np.cos(a) + y * np.sin(a)) / 3) for a in np.linspace(0, 0.1, frames))
    return np.stack([random.poisson(200 * image).astype(np.uint16) for image in images])


class Maps:
    """The maps [4, windows, latents] of the blocks of a movie."""

    def __init__(self, way: str, precision: str, movie: np.ndarray) -> None:
        self.engine = Engine(model_for(WAYS[way]), DEVICE, precision, WAYS[way], STEP)  # type: ignore[arg-type]
        self._prepared = Prepared(self.engine, movie)
        self._test = PermutationTest(Comparison.with_time(len(movie)), self.engine.device)
        self.windows = len(movie) * self._prepared.grid.rows * self._prepared.grid.columns

    def _of(self, block: Rectangle) -> np.ndarray:
        with torch.inference_mode():
            s = series_statistics(*self._prepared.encode(block), self._test)
        return torch.stack([s.mean, s.variance, s.spearman, s.time_correlated_variance]).cpu().numpy()

    def compute(self, threads: int = 0, backwards: bool = False) -> list[np.ndarray]:
        """Those of all blocks, in their order; computed on other ``threads``, if any."""
        blocks = self._prepared.blocks
        if not threads:
            return [self._of(block) for block in blocks]
        with ThreadPoolExecutor(threads, initializer=self.engine.begin_thread) as pool:
            found = list(pool.map(self._of, reversed(blocks) if backwards else blocks))
        return found[::-1] if backwards else found


def ceilings() -> Facts:
    """What large products and copies reach: TFLOP/s and GB/s."""
    count = 2**28 if ON_GPU else 2**22
    host = torch.empty(count, pin_memory=ON_GPU)
    on_device, other = torch.empty(2, count, device=DEVICE)
    copies = {"copy_gb_s": (lambda: other.copy_(on_device), 8), "from_host_gb_s": (lambda: on_device.copy_(host), 4)}
    facts: Facts = {"products_tflop_s": {p: product_rate(DTYPES[p]) / 1e12 for p in PRECISIONS}}
    for name, (copy, bytes_each) in copies.items():
        facts[name] = count * bytes_each / min(seconds(copy) for _ in range(5)) / 1e9
    name = torch.cuda.get_device_name() if ON_GPU else "CPU"
    return {"device": name, "pytorch": torch.__version__, "threads": torch.get_num_threads(), **facts}


def tests() -> Facts:
    """The tests that need a GPU."""
    some = ["tests"] if ON_GPU else ["tests/test_fused.py"]
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *some]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    return {"outcome": done.stdout.strip().splitlines()[-1], "failed": done.returncode not in (0, 5)}


def exactness() -> Facts:
    """Errors of latents (root mean square, relative to theirs) against float64 on the CPU, without sharing."""
    errors = {}
    movie = movie_of(2, 128)
    for way, step in product(WAYS, (STEP, 12)):
        model, scaling = model_for(WAYS[way]), WAYS[way]
        frames, frame_range = for_engine(movie, scaling, model.architecture.window)
        pixels = torch.from_numpy(frames.astype(np.float64))
        windows = pixels.unfold(1, 64, step).unfold(2, 64, step)
        if scaling != "local":
            whole = pixels[:, None, None] if scaling == "frame" else windows
            low, high = whole.amin((3, 4), keepdim=True), whole.amax((3, 4), keepdim=True)
            windows = (windows - low) / (high - low)
        exact = Encoder(model.architecture).double().eval()
        exact.load_state_dict(model.encoder.state_dict())
        with torch.inference_mode():
            expected = exact(windows.reshape(-1, 1, 64, 64))[0][:, list(model.latent_order)]
        for precision in PRECISIONS:
            engine = Engine(model, DEVICE, precision, scaling, step)
            z, _ = engine.encode(frames, np.ones((2, 1), bool), frame_range)
            error = (z.cpu().double().view(expected.shape) - expected).norm() / expected.norm()
            errors[f"{way}, step {step}, {precision}"] = float(error)
    limit = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 0.05}
    return {"errors": errors, "failed": any(error > limit[name.split(", ")[-1]] for name, error in errors.items())}


def digest(way: str, precision: str, threads: int = 1, backwards: bool = False) -> str:
    """SHA-256 of the maps of a small movie."""
    blocks = Maps(way, precision, movie_of(6, 320 if ON_GPU else 160)).compute(threads, backwards)
    return hashlib.sha256(b"".join(block.tobytes() for block in blocks)).hexdigest()


def sameness() -> Facts:
    """Whether maps have the same bits for any number of threads, order of blocks, cold start, and on a full card."""
    found: dict[str, list[str]] = {}
    precisions = PRECISIONS if ON_GPU else PRECISIONS[:1]
    for way, precision in product(WAYS, precisions):
        digests = [digest(way, precision, threads, backwards) for threads, backwards in ((1, False), (2, True))]
        if ON_GPU:
            free, _ = torch.cuda.mem_get_info()
            held = torch.empty(max(0, free - 3 * 2**30), dtype=torch.uint8, device=DEVICE)
            digests.append(digest(way, precision, 2))
            del held
        found[f"{way}, {precision}"] = digests
    for start in range(COLD_STARTS):
        way, precision = list(product(WAYS, precisions))[start % (len(WAYS) * len(precisions))]
        words = [sys.executable, __file__, "--digest", way, precision]
        cold = subprocess.run(words, check=True, capture_output=True, text=True)
        found[f"{way}, {precision}"].append(cold.stdout.strip())
    return {
        "digests": {name: sorted(set(d)) for name, d in found.items()},
        "failed": any(len(set(d)) > 1 for d in found.values()),
    }


def speed() -> Facts:
    """Windows/s with statistics, their products in TFLOP/s, and the most memory of the device that was taken."""
    facts = {}
    movie = movie_of(FRAMES, SIDE)
    for way, precision in product(WAYS, PRECISIONS if ON_GPU else PRECISIONS[:1]):
        maps = Maps(way, precision, movie)
        threads = maps.engine.at_once(torch.get_num_threads())
        Maps(way, precision, movie[:, :128, :128]).compute(threads)
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats()
        rate = maps.windows / seconds(lambda: maps.compute(threads))  # noqa: B023
        facts[f"{way}, {precision}"] = {
            "windows_s": rate,
            "tflop_s": rate * operations(model_for(WAYS[way]).architecture) / 1e12,
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if ON_GPU else None,
            "without": maps.engine.without,
        }
    return facts


def profile() -> Facts:
    """Where the time of one block goes: the longest operations, in ms."""
    facts = {}
    for way in WAYS:
        maps = Maps(way, "fp32", movie_of(FRAMES, 64 + 15 * STEP))
        maps.compute()
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if ON_GPU else []
        with torch.profiler.profile(activities=kinds) as profiler:
            maps.compute()
        total = "self_device_time_total" if ON_GPU else "self_cpu_time_total"
        spent = {e.key: getattr(e, total) / 1e3 for e in profiler.key_averages()}
        facts[way] = dict(sorted(spent.items(), key=lambda item: -item[1])[:8])
    return facts


def command() -> Facts:
    """Seconds of `hrtemvae analyze`, for a movie as it is and one compressed by gzip."""
    facts = {}
    side = SIDE // 2 if ON_GPU else 192
    pixels = movie_of(max(FRAMES, 10), side)
    with tempfile.TemporaryDirectory() as folder:
        for name, storage in {"plain": {}, "gzip": {"chunks": (1, side, side), "compression": "gzip"}}.items():
            with h5py.File(Path(folder, f"{name}.h5"), "w") as file:
                file.create_dataset("movie", data=pixels, **storage)
            words = ["hrtemvae", "analyze", f"{name}.h5", "--drift", "none", *([] if ON_GPU else ["--step", "16"])]
            began = time.monotonic()
            done = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
            phases = next(line for line in done.stderr.splitlines() if line.startswith("start "))
            facts[name] = {"seconds": time.monotonic() - began, "phases": phases}
    return facts


def training() -> Facts:
    """Segments/s of a training."""
    facts = {}
    kinds = ["fp32", "bf16"] if ON_GPU else ["fp32"]
    with tempfile.TemporaryDirectory() as folder:
        run = {"cwd": folder, "check": True, "capture_output": True, "text": True}
        words = ["hrtemvae", "segments", "--simulated", str(SEGMENTS), "--validation", "0.1", "-o", "s.h5"]
        subprocess.run(words, **run)  # type: ignore[call-overload]
        for batch, precision in product((32, 512) if ON_GPU else (32,), kinds):
            name = f"{batch}-{precision}"
            optimizer = {"epochs": 1, "batch": batch, "precision": precision}
            settings = {"data": {"segments": ["s.h5"]}, "optimizer": optimizer, "loss": {"beta": 0.01}}
            Path(folder, f"{name}.yaml").write_text(json.dumps(settings))
            words = ["hrtemvae", "train", f"{name}.yaml", "-o", f"{name}.safetensors"]
            subprocess.run(words, **(run | {"check": False}))  # type: ignore[call-overload]  # one epoch may teach nothing
            with Path(folder, f"{name}.safetensors.training", "losses.csv").open() as file:
                facts[f"batch {batch}, {precision}"] = float(next(csv.DictReader(file))["segments_per_second"])
    return facts


STAGES: dict[str, tuple[Callable[[], Facts], float]] = {  # with the seconds that each may take on a GPU, 600 in all
    "ceilings": (ceilings, 40),
    "tests": (tests, 120),
    "exactness": (exactness, 60),
    "sameness": (sameness, 120),
    "speed": (speed, 80),
    "profile": (profile, 40),
    "command": (command, 60),
    "training": (training, 80),
}


def run_stage(name: str) -> Facts:
    """What a stage reports, or how it failed."""
    limit = STAGES[name][1] * (1 if ON_GPU else 4)
    began = time.monotonic()
    words = [sys.executable, __file__, "--stage", name]
    stage = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, errors = stage.communicate(timeout=limit)
        facts: Facts = json.loads(out.splitlines()[-1]) if stage.returncode == 0 else {
            "failed": True, "code": stage.returncode, "error": errors[-2000:]}  # fmt: skip
    except subprocess.TimeoutExpired:
        os.killpg(stage.pid, signal.SIGKILL)  # with what it started
        stage.communicate()
        facts = {"failed": True, "error": f"took more than {limit:g} s"}
    return {"stage": name, "took_s": round(time.monotonic() - began, 1), **facts}


def accept(names: Sequence[str], output: Path | None) -> int:
    """Run the stages, print and write what each reports, and return 1 if any failed."""
    report = []
    for name in names:
        report.append(run_stage(name))
        print(json.dumps(report[-1]), flush=True)
        if output:
            with replacing(output) as aside:
                aside.write_text(json.dumps(report, indent=1))
    return int(any(facts.get("failed") for facts in report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON file of all stages, written after each")
    parser.add_argument(
        "--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help=", ".join(STAGES)
    )
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--digest", nargs=2, metavar=("WAY", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.digest:
        print(digest(*options.digest))
    elif options.stage:
        print(json.dumps(STAGES[options.stage][0]()))
    else:
        sys.exit(accept(options.only, options.output))


if __name__ == "__main__":
    main()
